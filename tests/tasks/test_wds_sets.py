"""The catalogue of webdatasets, and where their copies are searched."""

from pathlib import Path

import pytest
from wds_shards import isolate, samples, write_published, write_set

from rlbench.core import registry
from rlbench.core.errors import DataError
from rlbench.core.suite import load_suite
from rlbench.tasks.integrity import inspect_copy
from rlbench.tasks.wds_sets import load_sets


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(tmp_path, monkeypatch)


def test_the_catalogue() -> None:
    sets = load_sets()
    assert len(sets) == 43 and {one.kind for one in sets.values()} == {"classification", "retrieval", "multilabel"}
    pets = sets["vtab/pets"]
    assert (pets.repo, pets.folder) == ("clip-benchmark/wds_vtab-pets", "wds_vtab-pets")
    assert (pets.source.test, pets.source.classes, pets.source.licence) == (3669, 37, "not stated")
    assert sets["fer2013"].source.rounded and sets["fer2013"].source.test == 7180
    assert all(one.revision == "main" or 7 <= len(one.revision) <= 40 for one in sets.values())


def test_where_a_published_set_is_looked_for(tmp_path, monkeypatch) -> None:
    task = registry.make("task", "wds", {"dataset": "stl10"})
    with pytest.raises(
        DataError, match="no data of wds/stl10: run `rlbench data get wds/stl10`, which downloads it from"
    ):
        task.size("test")
    snapshots = tmp_path / "hub" / "hub" / "datasets--clip-benchmark--wds_stl10"
    commit = "0123456789" * 4
    write_set(snapshots / "snapshots" / commit, samples([0, 1, 1]))
    (snapshots / "refs").mkdir()
    (snapshots / "refs" / "main").write_text(commit)
    assert task.size("test") == 3
    write_published(tmp_path / "data", "stl10", 20)
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path / "data"))
    task = registry.make("task", "wds", {"dataset": "stl10"})
    assert task.size("test") == 20 and len(task.classes) == 10
    assert task.notes() == (f"{tmp_path / 'data' / 'wds_stl10'} has 20 test examples; wds/stl10 has 8,000",)


def test_a_pinned_snapshot_is_found_by_the_beginning_of_its_commit(tmp_path) -> None:
    snapshots = tmp_path / "hub" / "hub" / "datasets--clip-benchmark--wds_vtab-cifar10" / "snapshots"
    task = registry.make("task", "wds", {"dataset": "vtab/cifar10"})
    write_set(snapshots / ("e" * 40), samples([0, 1]))
    with pytest.raises(DataError, match="no data of"):
        task.size("test")
    write_set(snapshots / f"d5fc63f{'0' * 33}", samples([0, 1, 0]))
    assert task.size("test") == 3


def test_a_copy_is_checked(tmp_path) -> None:
    write_published(tmp_path, "vtab/pets", 74)
    report = inspect_copy("wds/vtab/pets", str(tmp_path / "wds_vtab-pets"))
    found = {one.what: (one.found, one.good) for one in report.findings}
    assert found["test examples"] == ("74 of 3,669", False) and found["classes"] == ("37 of 37", True)
    assert found["files"] == ("2 of 2", True) and found["decoding"][1] and not report.whole


def test_a_suite_names_the_set(tmp_path, monkeypatch) -> None:
    write_published(tmp_path, "vtab/pets", 10)
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path))
    path = tmp_path / "mine.yaml"
    head = "suite: mine\nversion: 1\nsummary: S.\nmodality: image\nperturbations: [clean]\n"
    path.write_text(head + "task: {name: wds, dataset: vtab/pets}\n")
    suite = load_suite(path)
    assert suite.task_name == "wds/vtab/pets" and suite.task.size("test") == 10
    path.write_text(head + "task: {name: wds, root: wds_vtab-pets}\n")
    assert load_suite(path).task_name == "wds/wds_vtab-pets"
    assert load_suite(path).task.fingerprint() == suite.task.fingerprint()
