"""A suite of several webdatasets from the plan to the records: every task planned, run, resumed and told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Call, fails
from wds_shards import isolate, write_published

from rlbench.attacks.aa_clip import AAClip
from rlbench.core import Box
from rlbench.core.errors import DataError
from rlbench.core.suite import load_suites
from rlbench.encoders.heads import Resized
from rlbench.engine.block.bench import prepare
from rlbench.engine.plan.planner import plan
from rlbench.store.records import read_records
from rlbench.tasks.subset import select_examples

SUITE, MODEL = "image-wds-smoke", "random:mini"
TASKS = ["wds/vtab/cifar10", "wds/vtab/pets", "wds/vtab/pcam"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made copies of the smoke suite's sets below RLBENCH_DATA."""
    root = tmp_path / "data"
    write_published(root, "vtab/cifar10", 12)
    write_published(root, "vtab/pets", 40, size=48)
    write_published(root, "vtab/pcam", 10, size=40)
    monkeypatch.setenv("RLBENCH_DATA", str(root))
    return root


def test_every_task_is_planned(data: Path, tmp_path: Path) -> None:
    found = plan(SUITE, MODEL, store=tmp_path / "store", examples=8)
    assert [pair.suite.task_name for pair in found.pairs] == TASKS
    assert list(dict.fromkeys(cell.task for cell in found.cells)) == TASKS and len(found.cells) == 3 * 6
    keys = [key for pair in found.pairs for key in pair.keys.values()]
    assert len(set(keys)) == len(keys)
    most = {(cell.task, str(cell.perturbation)): cell.forwards for cell in found.cells}
    assert most["wds/vtab/pcam", "aa-clip linf 2/255"] < most["wds/vtab/pets", "aa-clip linf 2/255"] / 2  # no apgd-t
    assert len(plan([SUITE, f"{SUITE}:wds/vtab/pets"], MODEL, store=tmp_path / "store").pairs) == 3


def test_sets_that_are_not_here_are_planned_but_not_run(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolate(tmp_path, monkeypatch)
    with pytest.raises(DataError, match="no data of wds/vtab/caltech101: run"):
        plan("image-clip13", MODEL, store=tmp_path / "store")
    found = plan("image-clip13", MODEL, store=tmp_path / "store", pilot=True)
    assert len(found.pairs) == 13 and {pair.n for pair in found.pairs} == {1000}
    assert {pair.suite.task_name: pair.n_classes for pair in found.pairs}["wds/cars"] == 196
    each = [1000 * (1 + 2 * AAClip().passes(pair.n_classes)[1]) for pair in found.pairs]
    backwards = sum(cell.backwards for cell in found.cells)
    assert backwards == sum(each) - 13_000 and not found.piloted
    (note,) = [note for note in found.notes if "not on this machine" in note]
    assert note.count("wds/") == 13
    with pytest.raises(DataError, match="no data of wds/vtab/caltech101"):
        found.pairs[0].suite.task.load(Box(shape=(3, 8, 8)), 0, 1)
    asked = ("run", "--suite", SUITE, "--model", MODEL, "--examples", 8, "--workers", 1)
    dry = call(*asked, "--dry-run")
    assert dry.exit_code == 0 and "planned by the catalogue's classes and examples" in dry.stdout
    fails(call(*asked), "no data of wds/vtab/cifar10: run `rlbench data get wds/vtab/cifar10`")


def test_the_box_is_the_pictures_own(data: Path) -> None:
    cifar, pets, _ = (prepare(suite, MODEL) for suite in load_suites(SUITE))
    assert isinstance(cifar.classifier, Resized) and cifar.box.shape == (3, 32, 32)
    assert not isinstance(pets.classifier, Resized)
    part = replace(cifar.suite, task=select_examples(cifar.task, [3, 5]))
    few = prepare(part, MODEL)
    assert isinstance(few.classifier, Resized) and few.subject() | {"data": ""} == cifar.subject() | {"data": ""}
    assert cifar.subject()["logit_scale"] == pets.subject()["logit_scale"] == "100"
    assert cifar.subject()["box"] != [*cifar.encoder.boxes["image"].facts(), "fit"]


def test_a_run_has_records_of_every_task(call: Call, data: Path, tmp_path: Path) -> None:
    asked = ("run", "--suite", SUITE, "--model", MODEL, "--examples", 4, "--workers", 1)
    plain = call(*asked, "--dry-run")
    assert plain.exit_code == 0
    assert all(f"{SUITE}:{task}, {MODEL}, 4 examples" in plain.stdout for task in TASKS)
    total = next(line for line in plain.stdout.splitlines() if line.endswith("passes left in all"))
    planned = json.loads(call(*asked, "--dry-run", "--json").stdout)
    assert {row["task"] for row in planned} == set(TASKS)
    assert f"at most {sum(row['forwards'] for row in planned):,} forward and " in total
    result = call(*asked)
    assert result.exit_code == 0 and "mean of 3" in result.stdout
    store = tmp_path / "rlbench-results"
    records = read_records([store])
    assert sorted({record.task for record in records}) == sorted(TASKS) and len(records) == 18
    again = call(*asked)
    assert "nothing left to compute" in again.stdout and len(read_records([store])) == 18
    board = call("leaderboard", "--records", store).stdout
    assert "task by task" in board and f"backbone mini on {TASKS[0]}" in board


def test_tasks_are_compared_and_checked_one_by_one(call: Call, data: Path, tmp_path: Path) -> None:
    asked = ("--suite", SUITE, "--model", MODEL, "--examples", 2, "--workers", 1)
    assert call("run", *asked, "--quiet").exit_code == 0
    store = tmp_path / "rlbench-results"
    rows = call("compare", store, store, "--format", "markdown").stdout
    assert all(f"{SUITE}:{task}" in rows for task in TASKS)
    made = call("check", "--records", store, "--suite", SUITE, "--model", MODEL, "--update")
    assert made.exit_code == 0 and made.stdout.count(": none -> ") == 18
    checked = call("check", "--records", store, "--suite", SUITE, "--model", MODEL, "--format", "json")
    verdicts = json.loads(checked.stdout)["cells"]
    assert {verdict["suite"] for verdict in verdicts} == {f"{SUITE}:{task}" for task in TASKS}
    assert {verdict["status"] for verdict in verdicts} <= {"PASS", "INCONCLUSIVE"}
    entry = ("entry", SUITE, MODEL, "--source", "bundled", "--summary", "S.", "--out", tmp_path / "e.json")
    assert "several tasks; an entry claims one, such as" in call(*entry).stderr
    one = ("entry", f"{SUITE}:{TASKS[2]}", *entry[2:])
    assert call(*one).exit_code == 0
    assert call("verify", tmp_path / "e.json", "--examples", 2, "--quiet").exit_code == 0


def test_a_task_without_a_correct_example_runs_in_several_processes(call: Call, data: Path) -> None:
    asked = ("run", "--suite", f"{SUITE}:wds/vtab/pets", "--model", MODEL, "--examples", 2, "--workers", 2)
    result = call(*asked, "--json", "--quiet")
    assert result.exit_code == 0 and [record["n_correct"] for record in json.loads(result.stdout)] == [0] * 6
