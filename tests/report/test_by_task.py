"""Suites of several tasks: accuracies side by side, their mean and its interval, in boards and after a run."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from made import key, made

from rlbench.cli.console import console, results
from rlbench.core import Record
from rlbench.core.stats.metrics import wilson
from rlbench.report.boards import by_task as module
from rlbench.report.boards.by_task import by_task, rows_of, shorten_names
from rlbench.report.boards.leaderboard import render
from rlbench.report.boards.reported import NAME, REPORTED
from rlbench.report.boards.reported import render as render_paper
from rlbench.report.boards.tables import frame, tables

TASKS = {"wds/vtab/pets": 90, "wds/cars": 40, "wds/vtab/pcam": 0}


def record(model: str, task: str, right: int, *, n: int = 100, under: str = "clean", suite: str = "several") -> Record:
    one = made(model, under, np.arange(n) < right, suite=suite, data=f"data of {task}", protocol=under)
    return replace(one, task=task, modality="image", key=key(model, task, under, n))


def records(model: str = "mine", **options: object) -> list[Record]:
    return [record(model, task, right, **options) for task, right in TASKS.items()]  # type: ignore[arg-type]


def test_the_mean_and_its_interval_are_by_hand() -> None:
    (table,) = by_task(tables(frame(records())))
    assert table.tasks == ("cars", "pcam", "pets") and table.title == "several v1: image, 3 tasks, n = 100"
    (column,) = table.columns
    mean = table.means["mine"][column]
    ends = {k: wilson(k, 100) for k in (90, 40, 0)}
    low = 130 / 300 - sqrt(sum((k / 100 - ends[k][0]) ** 2 for k in ends)) / 3
    high = 130 / 300 + sqrt(sum((ends[k][1] - k / 100) ** 2 for k in ends)) / 3
    assert (mean.share, mean.low, mean.high) == pytest.approx((130 / 300, low, high))
    (row,) = rows_of(table)
    assert row == {"under": "clean", "model": "mine", "mean": str(mean), "cars": "40.0", "pcam": "0.0", "pets": "90.0"}


def test_the_interval_covers() -> None:
    """Of 400 drawn means of three tasks, about 95% of the intervals have the true mean."""
    rng, shares = np.random.default_rng(0), (0.5, 0.02, 0.9)
    inside = 0
    for _ in range(400):
        drawn = [(k / 100, *wilson(k, 100)) for k in rng.binomial(100, shares)]
        mean = module._mean([module.Score(*one) for one in drawn])
        assert mean is not None
        inside += mean.low <= sum(shares) / 3 <= mean.high
    assert 0.92 <= inside / 400 <= 0.985


def test_a_missing_or_failed_task_has_no_mean() -> None:
    two = records("two")[:2]
    failed = replace(records("bad")[0], n_correct=None, flags=None, error="crashed")
    (table,) = by_task(tables(frame([*records(), *two, failed, *records("bad")[1:]])))
    assert set(table.means["mine"]) == set(table.columns) and not table.means["two"] and not table.means["bad"]
    (column,) = table.columns
    assert table.order(column)[0] == "mine"
    rows = {row["model"]: row for row in rows_of(table)}
    assert rows["two"]["mean"] == "-" and rows["two"]["pcam"] == "-" and rows["two"]["pets"] == "90.0"
    assert rows["bad"]["pets"] == "failed"


def test_models_stand_by_their_mean_and_columns_in_order() -> None:
    better = [record("better", task, min(right + 5, 100)) for task, right in TASKS.items()]
    attacked = [record(m, t, k // 2, under="worst linf 4/255") for m in ("mine", "better") for t, k in TASKS.items()]
    (table,) = by_task(tables(frame([*attacked, *records(), *better])))
    found = [(row["under"], row["model"]) for row in rows_of(table)]
    assert found[:2] == [("clean", "better"), ("clean", "mine")]
    assert [under for under, _ in found] == ["clean", "clean", "worst linf 4/255", "worst linf 4/255"]


def test_other_suites_stay_as_they_are() -> None:
    single = [record("mine", "thermal-world", 50, suite="thermal")]
    assert by_task(tables(frame(single))) == []
    assert "task by task" not in render(frame(single), "t")
    text = render(frame([*single, *records()]), "t")
    assert text.count("task by task") == 2 and "| clean   | mine    | 43.3 [" in text
    assert render(frame([*records()[::-1], *single]), "t") == text


def test_the_largest_table_of_a_task_counts() -> None:
    trial = record("mine", "wds/cars", 10, n=10)
    (table,) = by_task(tables(frame([*records(), trial])))
    assert rows_of(table)[0]["cars"] == "40.0"


def test_json_csv_and_latex_have_the_mean_too() -> None:
    several = [*records(), *records("two")[:2], *records(under="worst linf 4/255")]
    found = json.loads(render(frame(several), "t", format="json"))["by_task"]
    assert [(one["model"], one["column"]) for one in found] == [("mine", "clean"), ("mine", "worst linf 4/255")]
    (mean, _) = found
    assert (mean["suite"], mean["task"], mean["modality"]) == ("several", "mean of 3 tasks", "image")
    assert mean["share"] == pytest.approx(130 / 300, abs=1e-6) and mean["low"] < mean["share"] < mean["high"]
    assert mean["tasks"] == {"wds/cars": 0.4, "wds/vtab/pcam": 0.0, "wds/vtab/pets": 0.9}
    lines = list(csv.DictReader(io.StringIO(render(frame(several), "t", format="csv"))))
    means = [line for line in lines if line["task"] == "mean of 3 tasks"]
    assert lines[-2:] == means and len(lines) == 8 + 2 and (means[0]["share"], means[0]["n"]) == ("0.433333", "")
    (tex, *_) = render(frame(several), "t", format="latex").split(r"\end{table}")
    assert r"\begin{tabular}{llrrrr}" in tex and "under & model & mean & cars & pcam & pets" in tex
    assert "clean & mine & 43.3 [" in tex and r"clean & two & -- & 40.0 & -- & 90.0 \\" in tex


def test_names_are_short_only_while_they_differ() -> None:
    assert shorten_names(["wds/vtab/pets", "wds/cars"]) == ("pets", "cars")
    assert shorten_names(["a/pets", "b/pets"]) == ("a/pets", "b/pets")


def test_a_run_ends_with_the_mean() -> None:
    file = io.StringIO()
    results([*records(), *records(under="pgd linf 2/255")], console(file))
    lines = file.getvalue().splitlines()
    assert any(line.startswith("several v1: image, 3 tasks, n = 100, mine; accuracy") for line in lines)
    (mean,) = [line for line in lines if line.startswith("mean of 3")]
    assert mean.split()[3] == "43.3" and mean.count("43.3") == 2
    assert sum(line.startswith("cars") for line in lines) == 1 and not any("on wds/cars" in line for line in lines)


def test_the_paper_s_board_has_the_tasks_side_by_side() -> None:
    from rlbench.report.boards.leaderboard import boards

    board = next(board for board in boards() if board.name == NAME)
    text = render_paper(board.page.with_name(REPORTED), records(suite="image-clip13"))
    part = text.split("\n## Zero-shot pictures by set, Linf 4/255\n")[1].split("\n## ")[0]
    assert "#### image-clip13 v1: image, 3 tasks, n = 100, task by task" in part.split("\n### measured\n")[1]
    assert "43.3 [" in part and text.count("43.3 [") == 1


def test_the_page_has_the_means(tmp_path) -> None:
    from rlbench.report.site import page
    from rlbench.store.lines import to_line

    path = tmp_path / "r.jsonl"
    attacked = records(under="pgd linf 2/255")
    path.write_text("".join(to_line(one) + "\n" for one in [*records(), *attacked, *records("two")]))
    text = page.render([path])
    data = json.loads(text.partition('type="application/json" id="data">')[2].partition("</script>")[0])
    (macro,) = data["macros"]
    assert (macro["family"], macro["over"], macro["suites"]) == ("several", "tasks", ["cars", "pcam", "pets"])
    assert [model for model, _ in macro["rows"]] == ["mine", "two"]
    assert macro["rows"][0][1]["clean"]["v"] == pytest.approx(130 / 300, abs=1e-5)
    assert "task by task" in text
