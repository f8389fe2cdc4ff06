"""Shards of a plan in stores of their own, and joining them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from commands import fails
from tiny_suite import counts, suite_file

from rlbench.core import Record
from rlbench.core.errors import FieldError, StoreError
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.merge import merge
from rlbench.engine.run.record import fill
from rlbench.engine.run.runner import run
from rlbench.store.lines import to_line
from rlbench.store.records import drop_times
from rlbench.store.store import Store

N = 800  # 4 spans: the first shard of three has two of them


def lines(store: Path) -> list[str]:
    """The store's records as lines of its file, without times."""
    return sorted(to_line(drop_times(record)) for record in Store(store).records()[0])


def run_shards(suite: str, folder: Path, count: int, *indices: int, model: str = "linear", **options) -> list[Path]:
    stores = [folder / f"shard-{index}" for index in indices or range(1, count + 1)]
    for index, store in zip(indices or range(1, count + 1), stores, strict=True):
        run(suite, model, out=store, workers=1, shard=f"{index}/{count}", **options)
    return stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path], Path]:
    """A suite, the stores of its three shards, and that of a whole run."""
    folder = tmp_path_factory.mktemp("shards")
    suite = suite_file(folder, N)
    run(suite, "linear", out=folder / "whole", workers=1)
    return suite, run_shards(suite, folder, 3), folder / "whole"


def test_merged_records_are_those_of_one_run(stores: tuple[str, list[Path], Path], tmp_path: Path) -> None:
    _, parts, whole = stores
    assert all(lines(part) == [] for part in parts)  # no record of an incomplete cell
    assert [len(list(part.glob("blocks/*/*"))) for part in parts] == [8, 4, 4]
    records = merge([*parts[::-1], parts[0]], tmp_path / "joint")
    assert lines(tmp_path / "joint") == lines(whole) and len(records) == len(lines(whole))
    assert [str(r.perturbation) for r in records][:2] == ["clean", "pgd(steps=5) linf 2/255"]
    merge(parts, tmp_path / "joint")  # again
    assert lines(tmp_path / "joint") == lines(whole)
    again = shutil.copytree(parts[1], tmp_path / "again")
    merge([parts[0], again, parts[2]], again)  # into one of them
    assert lines(again) == lines(whole)


def test_missing_and_unfinished_shards_are_named(stores: tuple[str, list[Path], Path], tmp_path: Path) -> None:
    _, parts, whole = stores
    out = tmp_path / "joint"
    with pytest.raises(StoreError, match=r"of 3 shards, 1/3, 3/3 are missing"):
        merge([parts[1]], out)
    with pytest.raises(StoreError, match=r"of 3 shards, 2/3 is missing"):
        merge([parts[0], parts[2]], out)
    with pytest.raises(StoreError, match=r"whole has no shard"):
        merge([*parts, whole], out)
    torn = shutil.copytree(parts[1], tmp_path / "torn")
    next(torn.glob("blocks/*/*")).unlink()
    with pytest.raises(StoreError, match=r"shard 2/3 in .*torn is not finished: 1 of its blocks are missing"):
        merge([parts[0], torn, parts[2]], out)
    file = next(torn.glob("shards/*"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(StoreError, match="is damaged"):
        merge([parts[0], torn, parts[2]], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, r"seed of tiny blobs linear:oracle clean is 0 in one and 1 in the other|only one has|seed of"),
        ({"examples": 700}, "n of tiny blobs linear:oracle clean is 800 in one and 700 in the other"),
        ({"model": "linear+jpeg"}, "only one has tiny blobs linear"),
        ({"count": 4}, "one is of 3 shards, the other of 4"),
    ],
    ids=str,
)
def test_shards_of_other_plans_are_refused(
    change: dict, difference: str, stores: tuple[str, list[Path], Path], tmp_path: Path
) -> None:
    suite, parts, _ = stores
    (other,) = run_shards(suite, tmp_path, change.pop("count", 3), 3, **change)
    with pytest.raises(StoreError, match=difference):
        merge([*parts[:2], other], tmp_path / "joint")


def test_a_shard_continues_and_a_whole_run_uses_its_blocks(
    stores: tuple[str, list[Path], Path], tmp_path: Path
) -> None:
    suite, parts, whole = stores
    store = shutil.copytree(parts[0], tmp_path / "store")
    assert plan(suite, "linear", store=store, shard="1/3").units == ()
    made = plan(suite, "linear", store=store)
    assert {unit.start // 256 for unit in made.units} == {1, 2}
    records = run(suite, "linear", out=store, workers=1)
    assert counts(records) == counts(Store(whole).records()[0]) and lines(store) == lines(whole)


def test_a_failed_cell_fails_in_the_joint_store_too(tmp_path: Path, broken: Callable[[int], str]) -> None:
    suite = broken(256)  # crashes on the second span
    whole: list[Record] = run(suite, "linear", out=tmp_path / "whole", workers=1)
    assert [r.error is None for r in whole].count(False) == 2
    merge(run_shards(suite, tmp_path, 2), tmp_path / "joint")
    assert lines(tmp_path / "joint") == lines(tmp_path / "whole")


def test_an_error_of_an_earlier_run_is_not_merged(tmp_path: Path, broken: Callable[[int], str]) -> None:
    """The second shard failed, and then ran again: its records can't tell, since only all shards complete a cell."""
    run_shards(broken(256), tmp_path, 2)
    stores = run_shards(broken(10_000), tmp_path, 2)
    records = merge(stores, tmp_path / "joint")
    assert [record.error for record in records] == [None] * len(records)


def test_a_cell_that_lacks_a_block_has_no_counts(stores: tuple[str, list[Path], Path]) -> None:
    """Nor has a worst case over cells of which one lacks it: the others alone are an optimistic worst case."""
    _, parts, _ = stores
    first, *_, worst = Store(parts[0]).shards()[0].outlines
    assert len(worst.keys) > 1
    store = Store(parts[0])
    blocks = [[store.block(key, *span) for span in worst.spans] for key in worst.keys]
    assert blocks[0][0] is not None and blocks[0][1] is None
    for outline, found in ((first, blocks[:1]), (worst, blocks), (worst, [[row[0]] for row in blocks[1:]] + [[None]])):
        record = fill(outline, found, None)
        assert record.error == "some of its blocks are missing" and record.n_correct is None and record.flags is None


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """Makes a suite whose attack crashes on examples from the n-th."""
    from dataclasses import dataclass

    from rlbench.core import registry

    @dataclass(frozen=True, kw_only=True)
    class Late:
        """Crashes in a later block."""

        def __call__(self, classifier, x, y, ball, streams):
            if max(int("".join(filter(str.isdigit, one))) for one in streams.ids) >= int(os.environ["RLBENCH_FROM"]):
                raise ArithmeticError("planned")
            classifier(x)
            return x

    entry = registry.PluginInfo("attack", "late", __name__, "Late", "")
    table = {**registry.entries(), ("attack", "late"): entry}
    monkeypatch.setattr(registry, "entries", lambda: table)
    monkeypatch.setitem(globals(), "Late", Late)

    def make(start: int) -> str:
        monkeypatch.setenv("RLBENCH_FROM", str(start))
        return suite_file(tmp_path, 300, "late")

    return make


def test_wrong_shards_are_refused(tmp_path: Path) -> None:
    for wrong in ("0/3", "4/3", "1", "1/", "a/b", "-1/3", "1/0"):
        with pytest.raises(FieldError, match=r"shard is .*; it must be I/N with 1 <= I <= N"):
            plan(suite_file(tmp_path), "linear", store=tmp_path / "out", shard=wrong)


def test_the_commands(call: Callable[..., Result], tmp_path: Path) -> None:
    suite = suite_file(tmp_path, 300)
    for index in (1, 2):
        shown = call("run", "--suite", suite, "--model", "linear", "--shard", f"{index}/2", "--out", f"s{index}")
        assert shown.exit_code == 0 and f"shard {index}/2" in shown.output
    joint = call("merge", "s1", "s2", "--out", "joint")
    assert joint.exit_code == 0 and "worst linf 4/255" in joint.output
    fails(call("merge", "s1", "--out", "other"), "of 2 shards, 2/2 is missing", untouched=tmp_path / "other")
    assert len([json.loads(line) for line in (tmp_path / "joint" / "records.jsonl").read_text().splitlines()]) == 6
