"""The scale of a table: which rows are ranked, bounds, notes, and the tests of many pairs at once."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from itertools import combinations
from math import comb
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from columns import column
from made import key, made

from rlbench.cli.main import main
from rlbench.core import Record
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import holm, mcnemar, sign_flip, sign_flips
from rlbench.report.boards.averages import macros
from rlbench.report.boards.leaderboard import freeze, load, render
from rlbench.report.boards.ranks import ranks
from rlbench.report.boards.scores import ModelRow, Score, Table, choose_common
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures.curves import curves, scatters
from rlbench.report.site.page import render as page
from rlbench.store.columns import Column

FOUR, EIGHT = "worst linf 4/255", "worst linf 8/255"


def cell(model: str, column: str, ones: int, *, n: int = 100, **facts: object) -> Record:
    return made(model, column, np.arange(n) < ones, **{"checkpoint": model, **facts})


def fail(record: Record) -> Record:
    return replace(record, n_correct=None, flags=None, error="crash")


def table(*records: Record) -> Table:
    [found] = tables(frame(records))
    return found


def exact_p(differences: list[int]) -> float:
    """The p-value of the sign-flip test: the share of all sign patterns whose sum is at least as large, counted."""
    ways = {0: 1}
    for size in map(abs, differences):
        step: dict[int, int] = {}
        for total, count in ways.items():
            for signed in (total + size, total - size):
                step[signed] = step.get(signed, 0) + count
        ways = step
    return sum(count for total, count in ways.items() if abs(total) >= abs(sum(differences))) / 2 ** len(differences)


def test_many_tests_at_once_are_the_exact_ones() -> None:
    rng = np.random.default_rng(0)
    for most in (1, 2, 3, 7):
        rows = [rng.integers(-most, most + 1, n) * (rng.random(n) < 0.6) for n in rng.integers(1, 80, 30)]
        counts = np.stack([np.bincount(row + most, minlength=2 * most + 1) for row in rows])
        wanted = [exact_p(row.tolist()) for row in rows]
        assert sign_flips(counts) == pytest.approx(wanted, rel=1e-6, abs=1e-12)
        assert [sign_flip(row.tolist()) for row in rows] == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    assert sign_flip([2] * 300) == pytest.approx(2 / 2**300) and sign_flip([2, 1] * 300) == 1e-12
    for b, c in [(0, 0), (0, 1), (7, 7), (3, 12), (250, 180)]:
        tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
        assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-10)


@pytest.mark.parametrize("columns", [1, 3])
def test_ranks_of_all_pairs_at_once_are_those_of_each_pair(columns: int) -> None:
    """With random flags, two equal rows and shared sources; each pair is tested alone, then come Holm's steps."""
    rng = np.random.default_rng(columns)
    n, names = 90, [Column(column(f"worst linf {k}/255")) for k in range(1, columns + 1)]
    flags = rng.random((9, columns, n)) < np.linspace(0.2, 0.9, 9)[:, None, None]
    flags[4] = flags[3]
    deff = np.where(np.arange(9) % 3 == 0, 2.3, 1.0)
    effects = [[1.0] * (columns - 1) + [d] for d in deff]  # the largest one of a row counts
    scores = [
        {c: Score(0.5, 0, 1, hits=f.astype(int), deff=d) for c, f, d in zip(names, fs, ds, strict=True)}
        for fs, ds in zip(flags, effects, strict=True)
    ]
    rows = [ModelRow(f"m{k}", n, one) for k, one in enumerate(scores)]
    ps, better = [], []
    for i, j in combinations(range(9), 2):
        d = flags[i].sum(0) - flags[j].sum(0)
        values, counts = np.unique(d[d != 0], return_counts=True)
        fewer = np.repeat(values, (counts / max(deff[i], deff[j])).astype(int))
        ps.append(exact_p(fewer.tolist()))
        better.append((i, j) if d.sum() > 0 else (j, i))
    above, below = [0] * 9, [0] * 9
    for order, k in enumerate(np.argsort(ps, kind="stable")):
        if (len(ps) - order) * ps[k] >= 0.05:
            break
        below[better[k][0]] += 1
        above[better[k][1]] += 1
    expected = [(1 + a, 9 - b) for a, b in zip(above, below, strict=True)]
    assert ranks(Table({}, tuple(names), tuple(rows), "")) == expected and len(set(expected)) > 3


def test_holm_takes_one_step_after_the_other() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 40):
        ps = np.round(rng.random(size) ** 3, 2).tolist()
        wanted, most = [0.0] * size, 0.0
        for rank, i in enumerate(sorted(range(size), key=lambda i: ps[i])):
            most = max(most, min(1.0, (size - rank) * ps[i]))
            wanted[i] = most
        assert holm(ps) == wanted


def test_three_hundred_models_take_seconds() -> None:
    rng = np.random.default_rng(0)
    hard, names = (
        rng.normal(size=100),
        [f"pgd linf {k}/255" for k in range(1, 7)] + ["clean", FOUR, EIGHT, "worst l2 1"],
    )
    skills = rng.normal(size=300)
    cells = [
        made(f"m{k}", c, hard + 0.5 * rng.normal(size=100) < s - place / 9, checkpoint=f"m{k}")
        for k, s in enumerate(skills)
        for place, c in enumerate(names)
    ]
    found = frame(cells)
    begun = process_time()
    assert render(found, "t", baseline="m0").count("\n| ") > 600
    assert process_time() - begun < 5


def test_columns_that_most_rows_have_are_chosen() -> None:
    assert choose_common([{"a", "b"}] * 3 + [{"a"}], ["a", "b"]) == ("a", "b")
    assert choose_common([{"a", "b"}] + [{"a"}] * 3, ["a", "b"]) == ("a",)
    assert choose_common([{"a", "b"}, {"a", "c"}, {"a"}], ["a", "b", "c"]) == ("a",)
    assert choose_common([{"a"}, {"a", "b"}], ["a", "b"]) == ("a", "b")  # a tie goes to more
    assert choose_common([], []) == choose_common([set()], ["a"]) == ()


def test_encoders_with_other_backbones_share_a_table() -> None:
    """Backbone and anchors are columns if they differ; otherwise they are in the heading and below the table."""
    own = [replace(cell("own:x", c, k, anchors="b" * 16), backbone="own:x") for c, k in (("clean", 80), (FOUR, 70))]
    other = [cell("fare:mini", c, k) for c, k in (("clean", 90), (FOUR, 30))]
    text = render(frame([*own, *other]), "t", baseline="fare")
    rows = [[value.strip() for value in line.split("|")[1:5]] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["rank", "model", "backbone", "anchors"]
    assert rows[2:4] == [["1", "own:x", "own:x", "bbbbbbbb"], ["2", "fare:mini", "mini", "a"]]
    assert "+40.0 (40:0" in text and "anchors a" not in text and "## thermal v1: thermal on world" in text
    alike = render(frame(other), "t")
    assert "backbone mini on world" in alike and "| backbone" not in alike and "· anchors a ·" in alike
    cells = pd.read_csv(StringIO(render(frame([*own, *other]), "t", format="csv")))
    assert dict(zip(cells["model"], cells["backbone"], strict=True)) == {"own:x": "own:x", "fare:mini": "mini"}


def test_other_prompts_get_a_warning() -> None:
    def prompted(model: str, prompts: str, anchors: str) -> Record:
        return cell(model, "clean", 50, anchors=anchors, **({"prompts": prompts} if prompts else {}))

    usual = [prompted("a", "p1p1p1p1p1", "x"), prompted("b", "p1p1p1p1p1", "y"), prompted("old", "", "z")]
    assert "warning" not in render(frame(usual), "t")  # other text towers, the same prompts
    found = table(*usual, prompted("odd", "p2p2p2p2p2", "x"))
    assert {row.model: row.warning for row in found.rows if row.warning} == {"odd": "other prompts: p2p2p2p2"}
    text = render(frame([*usual, prompted("odd", "p2p2p2p2p2", "x")]), "t")
    assert "| warning " in text and "note: rows with other prompts differ by the choice of templates" in text
    twice = table(prompted("a", "p1p1p1p1p1", "x"), prompted("a", "p2p2p2p2p2", "y"))
    assert [row.model for row in twice.rows] == ["a (anchors x, prompts p1p1p1p1)", "a (anchors y, prompts p2p2p2p2)"]
    assert all(row.warning for row in twice.rows)


def test_rows_that_are_not_on_the_scale_have_no_rank() -> None:
    """Two worst cases: c failed in one and d lacks one, so only a and b are ranked; c and d come last."""
    rows = [cell(m, c, k) for m, k in (("a", 60), ("b", 20)) for c in (FOUR, EIGHT)]
    rows += [cell("c", FOUR, 99), fail(cell("c", EIGHT, 0)), cell("d", FOUR, 98)]
    found = table(*rows)
    assert [row.model for row in found.rows] == ["a", "b", "c", "d"] and found.scale == (FOUR, EIGHT)
    assert ranks(found) == [(1, 1), (2, 2), None, None]
    assert ranks(found, (FOUR,)) == [(3, 3), (4, 4), (1, 2), (1, 2)]  # in a column alone, who has it
    lines = [line for line in render(frame(rows), "t").splitlines() if line.startswith("| -  ")]
    assert len(lines) == 2
    cells = pd.read_csv(StringIO(render(frame(rows), "t", format="csv")))
    crash = cells[cells["error"].notna()].iloc[0]
    assert crash["model"] == "c" and crash[["share", "low", "high", "rank_low"]].isna().all()
    some = table(*rows, *(cell(m, "worst l2 1", 50) for m in "ab"), cell("e", FOUR, 10))
    assert some.scale == (FOUR, EIGHT, "worst l2 1")
    few = table(*(cell(m, FOUR, k) for m, k in (("a", 60), ("b", 20), ("c", 40))), cell("a", EIGHT, 5))
    assert few.scale == (FOUR,)
    text = render(frame([*(cell(m, FOUR, 9) for m in "abc"), cell("a", EIGHT, 5)]), "t")
    assert f"- note: ranked by the mean of {FOUR}\n" in text


BOUNDS = [
    *(cell(m, c, k) for m, k in (("a", 60), ("b", 20)) for c in ("clean", FOUR)),
    *(cell(m, f"{c} descending", k) for m, k in (("a", 61), ("c", 95)) for c in ("pgd linf 4/255", FOUR)),
]


def test_bounds_are_marked_and_never_ranked() -> None:
    found = table(*BOUNDS)
    assert found.scale == (FOUR,) and [row.model for row in found.rows] == ["a", "b", "c"]
    assert list(found.columns) == [
        "clean", "pgd linf 4/255 descending", FOUR, f"{FOUR} descending"
    ]  # fmt: skip
    assert ranks(found) == [(1, 1), (2, 2), None] and ranks(found, (f"{FOUR} descending",)) is None
    text = render(frame(BOUNDS), "t", baseline="a")
    assert text.count("≤ 95.0 [") == 2 and "**≤" not in text and "+34.0" not in text
    assert r"$\leq$ 95.0" in render(frame(BOUNDS), "t", format="latex")
    cells = json.loads(render(frame(BOUNDS), "t", format="json"))["cells"]
    assert {c["column"] for c in cells if c["bound"]} == {c for c in found.columns if "descending" in c}
    assert not any(c["tied_best"] for c in cells if c["bound"])
    assert table(*BOUNDS[4:]).scale == () and ranks(table(*BOUNDS[4:])) is None
    only = [cell("a", "clean", 90), cell("b", "clean", 50), *(r for r in BOUNDS[4:] if "pgd" in str(r.perturbation))]
    assert table(*only).scale == ()  # not by its clean accuracy
    assert not [s for s in scatters(found) if "descending" in s.column]
    assert {spec.what for spec in curves(found)} == {"worst"}


def test_bounds_stay_bounds_in_averages_and_on_the_page(tmp_path: Path) -> None:
    rows = [
        replace(cell(m, c, k, data=modality), suite=modality, modality=modality, key=key(modality, m, c))
        for modality in ("image", "audio")
        for m, k in (("a", 60), ("b", 20))
        for c in ("clean", f"{FOUR} descending")
    ]
    [one] = macros(tables(frame(rows)), baseline="a")
    assert set(one.rows["b"]) == {"clean", "robust, descending"} and one.rows["b"]["robust, descending"].bound
    assert set(one.minus["b"]) == {"clean"} and "≤ 20.0 [" in render(frame(rows), "t", baseline="a").split("Macro")[2]
    (tmp_path / "r.jsonl").write_text(freeze(rows))
    text = page([tmp_path / "r.jsonl"])
    held = json.loads(text.split('id="data">')[1].split("</script>")[0])
    marked = [row["cells"][f"{FOUR} descending"]["b"] for t in held["tables"] for row in t["rows"]]
    assert marked == [True] * 4 and {r["perturbation"] for r in held["records"] if "b" in r} == {f"{FOUR} descending"}


def test_missing_classes_and_few_sources_are_noted() -> None:
    few = table(cell("a", "clean", 6, n=8, classes=10, seen=2))
    assert few.notes == ("the 8 examples are of 2 of the 10 classes: the others are not tested",)
    assert table(cell("a", "clean", 6, n=8, classes=10, seen=10)).notes == ()
    low_high = {"clustered_low": 0.75, "clustered_high": 0.75, "sources": 1}
    one = table(
        cell("a", "clean", 75, **low_high), cell("b", "clean", 10, clustered_low=0.1, clustered_high=0.1, sources=1)
    )
    assert one.rows[0].scores["clean"].low < 0.2 and one.rows[0].scores["clean"].high > 0.9
    assert ranks(one) == [(1, 2), (1, 2)] and "of one source" in one.notes[0]


def test_one_model_under_two_names_is_noted_and_contradictions_are_refused() -> None:
    pair = [replace(cell(m, "clean", 60, checkpoint="w"), key="k") for m in ("own:a", "own:b")]
    assert table(*pair).notes == ("own:a and own:b are one model under two names: their cells have the same keys",)
    other = replace(cell("own:b", "clean", 59, checkpoint="w"), key="k")
    with pytest.raises(StoreError, match=r"own:a and own:b have one key but different results \(thermal, clean\)"):
        table(pair[0], other)


def test_corruptions_of_one_model_alone_do_not_spoil_the_mean_of_all() -> None:
    rows = [cell(m, f"{name} 3", 50) for m in "abc" for name in ("fog", "snow")]
    found = table(*rows, cell("c", "rain 3", 9))
    assert found.columns == ("2 corruptions at 3", "rain 3") and not found.failures


def test_a_folder_of_files_is_read_wherever_records_are(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    empty = CliRunner().invoke(main, ["leaderboard", "--records", str(folder)])
    assert empty.exit_code == 2 and "no .jsonl file" in empty.output and empty.output.count("\n") == 1
    for m, k in (("a", 90), ("b", 40)):
        (folder / f"{m}.jsonl").write_text(freeze([cell(m, c, k) for c in ("clean", FOUR)]))
    (folder / "notes.txt").write_text("no records")
    assert len(load(folder)) == len(load([folder, folder / "a.jsonl"])) == 4
    for words in (
        ["leaderboard", "--records", folder, "--format", "csv"],
        ["leaderboard", "--records", folder, "--html", tmp_path / "site"],
        ["plot", folder, "--out", tmp_path / "figures"],
        ["compare", "a", "b", "--records", folder],
        ["compare", folder / "a.jsonl", folder / "b.jsonl"],
    ):
        done = CliRunner().invoke(main, list(map(str, words)))
        assert done.exit_code == 0, done.output
    (folder / "c.jsonl").write_text(freeze([cell("a", "clean", 89)]))
    refused = CliRunner().invoke(main, ["leaderboard", "--records", str(folder)])
    assert refused.exit_code == 2 and "c.jsonl contradicts" in refused.output and "a.jsonl" in refused.output
