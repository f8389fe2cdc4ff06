"""Tables and boards: numbers are counted from the records, and each protocol has its own column."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from columns import column
from made import key

from rlbench.core import Record
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import wilson
from rlbench.report.boards import leaderboard
from rlbench.report.boards.scores import Table
from rlbench.report.boards.tables import frame
from rlbench.report.boards.tables import tables as comparable
from rlbench.store.records import read_records

COLUMNS = ["clean", "apgd-ce linf 4/255", "pgd linf 4/255", "pgd linf 8/255", "pgd l2 0.5", "worst linf 4/255"]


def record(model: str, perturbation: str, n_correct: int | None, **changes: object) -> Record:
    base = Record(
        key=key(model, perturbation, changes.get("n", 200), changes.get("key", "")),
        suite="thermal",
        suite_version=1,
        task="thermal-world",
        modality="thermal",
        model=model,
        backbone="mini",
        perturbation=column(perturbation),
        n=200,
        n_correct=n_correct,
        error=None if n_correct is not None else "the linf norm is 0.02; eps is 0.0156",
        forwards=10,
        backwards=9,
        provenance={"protocol": "aa", "data": "dd", "anchors": "an", "seed": 0, "torch": "2.9", "seconds": 1.5},
    )
    return replace(base, **{k: v for k, v in changes.items() if k != "key"})


def board(model: str, worst: int = 60) -> list[Record]:
    counts = [180, worst + 2, worst + 5, 20, worst + 30, worst]
    return [record(model, c, k) for c, k in zip(COLUMNS, counts, strict=True)]


def tables(records: list[Record]) -> list[Table]:
    return comparable(frame(records))


def test_a_cell_is_the_share_with_its_wilson_interval() -> None:
    text = leaderboard.render(frame([record("fare:mini", "clean", 180)]), "t")
    # 180 of 200: Wilson 95% by the score equation's roots, 0.8506 and 0.9343 (R: prop.test(180, 200, correct=FALSE))
    assert "| fare:mini | 200 | 90.0 [85.1, 93.4] |" in text


def test_columns_are_in_reading_order_and_rows_by_worst_case() -> None:
    [table] = tables(board("a:mini", 50) + board("b:mini", 70))
    assert list(table.columns) == COLUMNS
    assert [row.model for row in table.rows] == ["b:mini", "a:mini"]


def test_same_records_same_bytes_in_any_order() -> None:
    records = board("a:mini") + board("b:mini")
    text = leaderboard.render(frame(records), "t")
    frozen = leaderboard.freeze(records)
    random.Random(0).shuffle(records)
    assert leaderboard.render(frame(records), "t") == text
    assert leaderboard.freeze(records) == frozen


def test_a_failed_cell_is_shown_with_its_reason_and_ranks_last() -> None:
    broken = [record("a:mini", c, None if c.startswith("worst") else 190) for c in COLUMNS]
    [table] = tables(broken + board("b:mini", 1))
    assert [row.model for row in table.rows] == ["b:mini", "a:mini"]
    text = leaderboard.render(frame(broken), "t")
    assert "| failed" in text and "- failed: a:mini, worst linf 4/255: the linf norm is 0.02" in text


def test_a_model_that_lacks_a_column_ranks_last() -> None:
    def both(model: str, four: int, eight: int | None) -> list[Record]:
        found = [record(model, "clean", 180), record(model, "worst linf 4/255", four)]
        return found if eight is None else [*found, record(model, "worst linf 8/255", eight)]

    [table] = tables(both("whole:mini", 100, 60) + both("part:mini", 110, None))
    assert [row.model for row in table.rows] == ["whole:mini", "part:mini"]
    text = leaderboard.render(frame(both("whole:mini", 1, 1) + both("part:mini", 1, None)), "t")
    assert re.search(r"part:mini .*\| - +\|", text)


@pytest.mark.parametrize("field", ["data", "seed"])
def test_other_data_or_seeds_get_another_table(field: str) -> None:
    other = [replace(r, provenance={**r.provenance, field: "other"}) for r in board("b:mini")]
    found = tables(board("a:mini") + other)
    assert len(found) == 2 and all(len(table.rows) == 1 for table in found)
    text = leaderboard.render(frame(board("a:mini") + other), "t")
    assert re.search(rf"^## .*, {field} other$", text, re.MULTILINE)  # the heading names the difference


def test_another_protocol_is_another_column_with_its_hash() -> None:
    def change(r: Record) -> Record:
        return replace(r, provenance={**r.provenance, "protocol": "bbbbbbbbbb"}) if "pgd" in str(r.perturbation) else r

    [table] = tables([*board("a:mini"), *map(change, board("b:mini"))])
    assert "pgd linf 4/255" not in table.columns
    assert {"pgd linf 4/255 (protocol aa)", "pgd linf 4/255 (protocol bbbbbbbb)", "clean"} <= set(table.columns)
    assert all(len(row.scores) == 6 for row in table.rows)


@pytest.mark.parametrize("change", [{"suite_version": 2}, {"suite": "thermal-unseen"}, {"task": "another"}])
def test_suites_versions_and_tasks_do_not_share_a_table(change: dict[str, object]) -> None:
    assert len(tables(board("a:mini") + [replace(r, **change) for r in board("b")])) == 2  # type: ignore[arg-type]


def test_a_run_with_fewer_examples_gets_another_table() -> None:
    whole, trial = tables([*board("a:mini"), record("a:mini", "clean", 10, n=16)])
    assert [(row.n, len(row.scores)) for row in (*whole.rows, *trial.rows)] == [(200, 6), (16, 1)]
    assert whole.title.endswith(", n = 200") and trial.title.endswith(", n = 16")


def test_two_records_of_one_column_and_row_are_refused() -> None:
    twice = [*board("a:mini"), record("a:mini", "clean", 181, key="another dtype")]
    with pytest.raises(StoreError, match="two records"):
        tables(twice)


def test_other_weights_under_one_name_are_shown_with_their_hash() -> None:
    old, new = ([replace(r, key=r.key + w, provenance={**r.provenance, "checkpoint": w}) for r in board("a:mini")]
                for w in ("1234567890", "abcdefabcd"))  # fmt: skip
    [table] = tables(old + new)
    assert sorted(row.model for row in table.rows) == ["a:mini (12345678)", "a:mini (abcdefab)"]


def test_corruptions_are_averaged_by_severity_with_a_cautious_interval() -> None:
    names = ["gaussian_noise", "fog", "jpeg_compression", "snow"]
    records = [record("a:mini", f"{name} 3", k) for name, k in zip(names, [100, 120, 140, 80], strict=True)]
    [table] = tables(records)
    [score] = table.rows[0].scores.values()
    assert table.columns == ("4 corruptions at 3",)
    assert score.share == pytest.approx(110 / 200)
    alone = wilson(110, 200)
    assert (score.low, score.high) == pytest.approx(alone)  # as wide as one cell of 200 examples


def test_a_model_that_lacks_a_corruption_has_no_mean() -> None:
    both = [record("a:mini", "fog 3", 100), record("a:mini", "snow 3", 90)]
    [table] = tables([*both, record("b:mini", "fog 3", 199)])
    score = {row.model: row.scores["2 corruptions at 3"] for row in table.rows}
    assert score["a:mini"].error is None and score["b:mini"].error == "1 of 2 corruptions were run"


def test_boards_of_the_mini_backbone_explain_it() -> None:
    mini, full = board("a:mini"), [replace(r, backbone="vit-l-14") for r in board("a")]
    assert "Backbone `mini` is a model organism" in leaderboard.render(frame(mini), "t")
    both = [*mini, *(replace(r, suite="scenes", backbone="mini-scenes") for r in mini)]
    assert "Backbones `mini` and `mini-scenes` are model organisms" in leaderboard.render(frame(both), "t")
    assert "model organism" not in leaderboard.render(frame(full), "t")


def test_frozen_records_render_like_the_store_and_hold_no_times(tmp_path: Path) -> None:
    file = tmp_path / "mini.jsonl"
    own = [replace(r, flags=np.packbits(np.arange(200) < r.n_correct).tobytes().hex()) for r in board("a:mini")]
    file.write_text(leaderboard.freeze(own))
    assert "seconds" not in file.read_text()
    assert leaderboard.render(leaderboard.load(file), "t") == leaderboard.render(frame(own), "t")
    assert leaderboard.freeze(read_records([file])) == file.read_text()


def test_freezing_refuses_models_of_this_machine() -> None:
    with pytest.raises(StoreError, match="a path of this machine"):
        leaderboard.freeze(board("/home/me/runs/fare"))


def test_the_frame_is_tidy() -> None:
    cells = frame([*board("a:mini"), record("b:mini", "clean", None)])
    assert isinstance(cells, pd.DataFrame) and len(cells) == 7
    assert {"suite", "model", "perturbation", "n", "n_correct", "accuracy", "low", "high", "protocol", "seed"} <= set(
        cells
    )
    assert cells.loc[cells["model"] == "b:mini", "accuracy"].isna().all()


def test_no_records_is_an_empty_board() -> None:
    assert "No records" in leaderboard.render(frame([]), "t")


@pytest.mark.parametrize("folder", ["thermal", "together"])
def test_a_campaigns_runs_are_named_by_their_jobs(folder: str, tmp_path: Path) -> None:
    """The cost of training and what it saw come from the card; a run on a series of test examples is a round."""
    run = tmp_path / "1" / folder / "fare"
    run.mkdir(parents=True)
    trained = {"seed": 7, "sees": ["names of unseen classes"], "since": {"forwards": 30, "backwards": 20}}
    entry = {"file": "x", "sha256": "", "bytes": 1, "trained": trained}
    backbones = {"mini": {"family": "mini", "modalities": {"thermal": entry}}}
    (run / "card.yaml").write_text(yaml.safe_dump({"baseline": "fare", "summary": "s", "backbones": backbones}))
    plain = record(str(run), "clean", 150)
    series = replace(plain, key="other", provenance={**plain.provenance, "series": 2, "data": "d2"})
    lines = [json.loads(line) for line in leaderboard.freeze([plain, series], tmp_path).splitlines()]
    assert {line["model"] for line in lines} == {"fare:mini"}
    assert [line["provenance"].get("round") for line in lines] == [None, "2"]
    assert all(line["provenance"]["training_forwards"] == 30 for line in lines)
    with pytest.raises(StoreError, match="a path of this machine"):
        leaderboard.freeze([plain])
