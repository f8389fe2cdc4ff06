"""Tables as markdown, LaTeX, CSV and JSON: their content, and that the same records give the same bytes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made import made

from rlbench.cli.main import main
from rlbench.core import Record
from rlbench.core.badges import worst_badge
from rlbench.core.errors import StoreError, UnknownName
from rlbench.core.stats.metrics import format_p, wilson
from rlbench.report.boards.leaderboard import freeze, load, render
from rlbench.report.boards.tables import frame, tables
from rlbench.store.rounds import pool_rounds


def record(model: str, perturbation: str, ones: int, *, n: int = 100, suite: str = "a_b", **facts: object) -> Record:
    return made(model, perturbation, np.arange(n) < ones, suite=suite, checkpoint=model, **facts)


RECORDS = [
    record(model, column, ones)
    for model, row in {"own:mini": (90, 70), "other:mini": (88, 40), "near:mini": (91, 69)}.items()
    for column, ones in zip(("clean", "worst linf 4/255"), row, strict=True)
]


@pytest.mark.parametrize("format", ["md", "latex", "csv", "json"])
def test_the_same_records_give_the_same_bytes_in_any_order(format: str) -> None:
    text = render(frame(RECORDS), "t", baseline="other", format=format)
    for seed in range(3):
        shuffled = random.Random(seed).sample(RECORDS, len(RECORDS))
        assert render(frame(shuffled), "t", baseline="other", format=format) == text


def test_markdown_marks_ties_ranks_and_differences() -> None:
    """Robust: 70, 69 and 40, nested, so that pairs of 1:0 are a tie and 30:0 and 29:0 are not. Clean: all are tied."""
    text = render(frame(RECORDS), "t", baseline="other")
    rows = {line.split("|")[2].strip(): line for line in text.splitlines() if line.count("|") == 6}
    assert rows["own:mini"].split("|")[1].strip() == "1-2" and rows["other:mini"].split("|")[1].strip() == "3"
    assert "**70.0** [" in rows["own:mini"] and "**69.0** [" in rows["near:mini"] and "| 40.0 [" in rows["other:mini"]
    assert "**88.0** [" in rows["other:mini"]
    assert "+30.0 (30:0, p <.001, Holm <.001)" in text and "minus other:mini" in text
    with pytest.raises(UnknownName, match="own:mini"):
        render(frame(RECORDS), "t", baseline="oter")


def test_csv_and_json_have_every_cell_with_its_interval() -> None:
    cells = pd.read_csv(StringIO(render(frame(RECORDS), "t", baseline="other", format="csv")))
    assert len(cells) == 6
    row = cells[(cells["model"] == "own:mini") & (cells["column"] == "worst linf 4/255")].iloc[0]
    assert (row["share"], row["n"]) == (0.7, 100) and (row["low"], row["high"]) == pytest.approx(
        wilson(70, 100), abs=1e-6
    )
    assert (row["rank_low"], row["rank_high"], row["minus_points"]) == (1, 2, 30.0)
    assert row["minus_p"] == pytest.approx(2 / 2**30, rel=1e-5)
    assert cells[cells["model"] == "other:mini"]["minus_p"].isna().all()
    found = json.loads(render(frame(RECORDS), "t", format="json"))
    assert len(found["cells"]) == 6 and found["macro"] == []
    assert {c["model"]: c["tied_best"] for c in found["cells"] if c["column"].startswith("worst")} == {
        "own:mini": True, "near:mini": True, "other:mini": False
    }  # fmt: skip


def test_latex_is_a_booktabs_table_of_escaped_text() -> None:
    text = render(frame(RECORDS), "t", format="latex")
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"a\_b v1", r"1--2 & own:mini & 100 & \textbf{90.0}"):
        assert word in text
    [body] = [part.split(r"\bottomrule")[0] for part in text.split(r"\midrule")[1:]]
    assert {line.count("&") for line in body.strip().splitlines()} == {4}
    assert "_" not in text.replace(r"\_", "") and "%" not in text.replace(r"\%", "")


def test_a_name_makes_no_columns_tags_or_commands() -> None:
    name = "a|b<script>x</script>^~:mini"
    cells = frame([replace(r, model=name) if r.model == "own:mini" else r for r in RECORDS])
    text = render(cells, "t", baseline=name)
    shown = r"a\|b&lt;script>x&lt;/script>^~:mini"
    assert shown in text and f"minus {shown}" in text and "<script" not in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.replace(r"\|", "").count("|") for line in table.splitlines()}) == 1
    tex = render(cells, "t", format="latex")
    assert r"a\textbar{}b\textless{}script\textgreater{}x" in tex and "^" not in tex


def test_a_table_shows_the_gravest_badge_of_each_row() -> None:
    text = render(frame(RECORDS), "t")
    assert "soundness" not in text
    badged = [replace(r, provenance={**r.provenance, "soundness": "sound"}) for r in RECORDS]
    badged[1] = replace(badged[1], provenance={**badged[1].provenance, "soundness": "unreliable"})
    rows = [line.split("|") for line in render(frame(badged), "t").splitlines() if line.count("|") == 7]
    assert {row[2].strip(): row[3].strip() for row in rows[2:]} == {
        "own:mini": "unreliable", "near:mini": "sound", "other:mini": "sound"
    }  # fmt: skip
    assert (
        worst_badge(["sound", "", "warn"]) == "warn"
        and worst_badge([]) == ""
        and worst_badge(["sound", "new"]) == "new"
    )


def test_stores_of_several_machines_are_merged_or_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(freeze(RECORDS[:4]))
    two.write_text(freeze(RECORDS[2:]))
    assert len(load([one, two])) == 6
    moved = replace(RECORDS[2], flags=np.packbits(np.arange(100) >= 12).tobytes().hex())  # as many, others
    two.write_text(freeze([moved]))
    with pytest.raises(StoreError, match=r"two.jsonl contradicts .*one.jsonl on one cell"):
        load([one, two])


@pytest.mark.parametrize(
    ("p", "cell", "equation"),
    [
        (1.0, "1", "p = 1"),
        (0.0936, ".094", "p = 0.094"),
        (0.0004, "<.001", "p = 0.0004"),
        (1e-5, "<.001", "p < 0.0001"),
    ],
)
def test_p_values_are_short_in_tables_and_equations_in_sentences(p: float, cell: str, equation: str) -> None:
    assert format_p(p) == cell and format_p(p, equation=True) == equation


def test_flags_of_rounds_are_concatenated() -> None:
    """Also those of 10 and 14 examples, which do not fill whole bytes."""
    rounds = [record("own:mini", "clean", k, n=n, round=t, data=f"d{t}") for t, n, k in (("1", 10, 3), ("2", 14, 9))]
    alone = record("own:mini", "clean", 5, suite="other")
    kept, merged = pool_rounds([*rounds[::-1], alone])
    assert kept is alone and (merged.n, merged.n_correct) == (24, 12)
    assert len(pool_rounds([rounds[0], replace(rounds[1], task="another")])) == 2
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(merged.flags or ""), dtype=np.uint8))[:24]
    assert bits.tolist() == [1] * 3 + [0] * 7 + [1] * 9 + [0] * 5
    assert str(merged.provenance["data"]).endswith("(rounds 1, 2)")
    only = record("near:mini", "clean", 3, n=10, round="1", data="d1")
    assert len(tables(frame(pool_rounds([*rounds, only])))) == 2  # other rounds are other data
    failed = replace(rounds[0], n_correct=None, flags=None, error="crash")
    assert pool_rounds([failed, rounds[1]])[0].error == "crash"


def test_the_command_line(tmp_path: Path) -> None:
    file, run = tmp_path / "mine.jsonl", CliRunner().invoke
    file.write_text(freeze(RECORDS))
    csv = run(main, ["leaderboard", "--records", str(file), "--format", "csv", "--baseline", "other"])
    assert csv.exit_code == 0 and csv.output.startswith("modality,suite,")
    unknown = run(main, ["leaderboard", "--records", str(file), "--baseline", "oter"])
    assert unknown.exit_code == 2 and "other:mini" in unknown.output
    assert run(main, ["leaderboard", "--format", "csv"]).exit_code == 2
    assert run(main, ["leaderboard", "--pictures", "2"]).exit_code == 2
    assert run(main, ["leaderboard", "--html", str(file / "page"), "--records", str(file)]).exit_code == 2
