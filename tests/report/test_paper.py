"""The board of reported numbers: its file, mistakes in it, and separate tables of measured rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from columns import column
from made import key

from rlbench.core import Record
from rlbench.core.errors import RLBenchError
from rlbench.core.suite import suites
from rlbench.report.boards import reported as paper
from rlbench.report.boards.leaderboard import boards

BOARD = next(board for board in boards() if board.name == paper.NAME)
FILE = BOARD.page.with_name(paper.REPORTED)


def record(suite: str, perturbation: str, right: int) -> Record:
    return Record(
        key=key(suite, perturbation),
        suite=suite,
        suite_version=1,
        task=suite,
        modality="thermal",
        model="languagebind:vit-l-14",
        backbone="vit-l-14",
        perturbation=column(perturbation),
        n=100,
        n_correct=right,
        error=None,
        forwards=0,
        backwards=0,
        provenance={"seed": 0, "data": "d", "anchors": "a", "protocol": perturbation, "checkpoint": "c"},
    )


def test_reported_numbers_are_plausible_and_name_existing_suites() -> None:
    _, tables = paper.read(FILE)
    assert {table.suite for table in tables if table.suite} <= {suite.name for suite in suites()}
    for table in tables:
        for row in table.rows:
            values = [value for value in row.values if value is not None]
            if table.columns[0] == "clean" or table.columns[0].startswith("R@"):
                robust = table.columns[0] == "clean"  # falls with eps; recall rises with its rank
                assert values == sorted(values, reverse=robust), row


def test_means_of_thirteen_sets_are_those_of_the_sets() -> None:
    by_title = {table.title: table for table in paper.read(FILE)[1]}
    means = {row.model: row.values for row in by_title["Zero-shot pictures, mean of 13 sets"].rows}
    for k, title in enumerate(("clean", "Linf 2/255", "Linf 4/255")):
        table = by_title[f"Zero-shot pictures by set, {title}"]
        assert table.columns[:2] == ("mean of 13", "ImageNet") and len(table.columns) == 15
        for row in table.rows:
            mean = sum(value for value in row.values[2:] if value is not None) / 13
            off = 0.16 if row.model == "CLIP" else 0.06  # as printed; the others are means of rounded cells
            assert row.values[0] == means[row.model][k] and abs(mean - row.values[0]) < off, row


@pytest.mark.parametrize(
    ("title", "model", "values"),
    [
        ("LLVIP, thermal", "LanguageBind", (87.2,)),
        ("ESC-50, audio", "LanguageBind, fully tuned", (94.0,)),
        ("AudioCaps, audio retrieval", "LanguageBind", (12.2, 53.2)),
        ("Zero-shot pictures, mean of 13 sets", "FARE at 4/255", (61.1, 45.9, 32.4)),
        ("Zero-shot pictures, mean of 16 sets", "TGA-ZSR", (56.44, 42.09)),
    ],
)
def test_some_of_the_published_values(title, model, values) -> None:
    table = next(table for table in paper.read(FILE)[1] if table.title == title)
    assert next(row.values for row in table.rows if row.model == model) == values


def test_measured_rows_are_in_separate_tables() -> None:
    records = [record("thermal-llvip", "clean", 87), record("thermal-llvip", "worst linf 4/255", 3)]
    text = paper.render(FILE, [*records, record("thermal", "clean", 50)])
    part = text.split("\n## LLVIP, thermal\n")[1].split("\n## ")[0]
    reported, measured = part.split("\n### measured\n")
    assert "| LanguageBind " in reported and "87.2" in reported and "languagebind:vit-l-14" not in reported
    assert "languagebind:vit-l-14" in measured and "87.0 [" in measured and "3.0 [" in measured
    assert "arxiv.org" not in measured and "\n## " not in measured
    assert "50.0 [" in text.split("\n## Of no paper\n")[1]
    assert paper.render(FILE, records[::-1]) == paper.render(FILE, records)
    tables = paper.read(FILE)[1]
    assert "Nothing yet." in text and text.count("### reported") == len(tables)
    suites = [table.suite for table in tables]
    assert text.count("### measured") == len(tables) - 3 + 1 and suites.count("image-clip13") == 4


def test_the_committed_page_is_what_its_records_make() -> None:
    assert not BOARD.stale()


def _edit(path: Path, edit) -> Path:
    page = yaml.safe_load(FILE.read_text())
    edit(page)
    path.write_text(yaml.safe_dump(page))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p["tables"][0]["rows"][0].update(source="nobody"), "source 'nobody' is not listed"),
        (lambda p: p["sources"].update(more={"cite": "a", "url": "https://a"}), "source 'more' is not used"),
        (lambda p: p["sources"]["robustvlm"].update(url="ftp://a"), "it must be https"),
        (lambda p: p["tables"][0]["rows"][0].update(values=[1]), "has 1 values for 3 columns"),
        (lambda p: p["tables"][0]["rows"][0].update(values=[1, 2, 101]), r"must lie in \[0, 100\]"),
        (lambda p: p["tables"][0]["rows"][0].update(value=[1]), "has no field 'value'; did you mean 'values'"),
        (lambda p: p["tables"][0]["rows"].append(p["tables"][0]["rows"][0]), "'CLIP' appears twice"),
        (lambda p: p["tables"].append(p["tables"][0]), "'Zero-shot pictures, mean of 13 sets' appears twice"),
        (lambda p: p["tables"][0].update(rows=[]), "the list is empty"),
        (lambda p: p["tables"].append("text"), "'text' must be a mapping"),
        (lambda p: p.update(tables=3), "tables: 3 must be"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, edit, message) -> None:
    path = _edit(tmp_path / "reported.yaml", edit)
    with pytest.raises(RLBenchError, match=message) as caught:
        paper.read(path)
    assert "\n" not in str(caught.value)
