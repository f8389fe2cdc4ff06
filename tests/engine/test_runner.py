"""Plan and run on the linear oracle: what is recorded does not depend on how it was computed."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_suite import counts, same, suite_file

from rlbench.core import Adversarial, Record
from rlbench.core.suite import load_suite
from rlbench.engine import cells
from rlbench.engine.attack.api import attack
from rlbench.engine.block.bench import prepare
from rlbench.engine.run.runner import Progress, execute, plan, run
from rlbench.store.records import read_records
from rlbench.store.store import Store


def test_records_agree_with_attacking_by_hand(whole: list[Record], tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path, 300))
    bench = prepare(suite, "linear")
    examples = suite.task.load(bench.box, 0, 300)
    found = counts(whole)
    for name, eps, fields in (("pgd", "2/255", {"steps": 5}), ("fgsm", "4/255", {})):
        by_hand = attack(bench.classifier, examples.x, examples.y, name, eps=eps, ids=examples.ids, **fields)
        column = next(p for p in found if p.startswith(name) and p.endswith(eps))
        assert found[column] == int((~by_hand.broken).sum())
    assert found["clean"] == int((bench.classifier(examples.x).argmax(1) == examples.y).sum())
    assert all(record.n == 300 and record.error is None and len(record.key) >= 16 for record in whole)


def test_worst_is_a_mean_of_minima(whole: list[Record], tmp_path: Path) -> None:
    found, path = counts(whole), suite_file(tmp_path, 300)
    folder = tmp_path / "out"
    records = run(path, "linear", out=folder, workers=1)
    made = plan(path, "linear", store=folder)
    pair = made.pairs[0]
    rows: dict[str, bool] = {}
    for p in pair.suite.perturbations:
        if isinstance(p, Adversarial):
            for file in (folder / "blocks" / pair.keys[cells.canonical(p)]).iterdir():
                for row in pq.read_table(file).to_pylist():
                    rows[row["id"]] = rows.get(row["id"], True) and row["correct"]
    assert counts(records)["worst linf 4/255"] == sum(rows.values()) and len(rows) == 300
    assert found["worst linf 2/255"] == found["pgd(steps=5) linf 2/255"]
    assert found["worst linf 4/255"] <= min(v for k, v in found.items() if k.endswith("4/255"))


def test_provenance_of_a_record(whole: list[Record]) -> None:
    facts = whole[1].provenance
    for name in ("rlbench", "torch", "numpy", "python", "device", "dtype", "protocol", "anchors", "data", "seconds"):
        assert facts[name] != "", name
    assert facts["seed"] == 0 and facts["loss"] == "ce" and facts["dtype"] == "float32"
    assert whole[1].forwards > 0 and whole[1].backwards > 0
    json.dumps(dict(facts))


@pytest.mark.parametrize("options", [{"workers": 2}, {"batch_size": 7}, {"batch_size": 1}], ids=str)
def test_numbers_do_not_depend_on_workers_or_batches(
    options: dict[str, int], tmp_path: Path, whole: list[Record]
) -> None:
    records = run(suite_file(tmp_path, 300), "linear", out=tmp_path / "out", **options)
    if "workers" in options:
        assert same(records) == same(whole)
    assert counts(records) == counts(whole)


NETWORK = """
suite: network
version: 1
summary: A little of the thermal world.
modality: thermal
task: {name: thermal-world}
examples: 260
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255], steps: 4}
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"workers": 2}, {"batch_size": 7}], ids=str)
def test_numbers_of_a_network_do_not_depend_on_workers_or_batches(options: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "network.yaml").write_text(NETWORK)
    one, other = (
        run(str(tmp_path / "network.yaml"), "rlbind", out=tmp_path / str(i), **{"workers": 1, **o})
        for i, o in enumerate(({}, options))
    )
    assert counts(one) == counts(other) and 0 < one[2].n_correct < one[0].n_correct
    assert same(one) == same(other) or "workers" not in options


def test_interrupted_anywhere_and_continued_is_the_same(tmp_path: Path, whole: list[Record]) -> None:
    path, out = suite_file(tmp_path, 300), tmp_path / "out"
    interrupted = 0
    for allowed in range(1, 9):  # blocks until the interruption: in the middle of a ladder too

        def limited(self: Store, *arguments: object, save=Store.save, left=[*range(allowed)]) -> None:  # noqa: B006
            if not left:
                raise KeyboardInterrupt
            left.pop()
            save(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "save", limited)
            try:
                execute(plan(path, "linear", store=out, workers=1))
            except KeyboardInterrupt:
                interrupted += 1
    assert interrupted >= 2
    assert same(run(path, "linear", out=out, workers=1)) == same(whole) == same(read_records([out]))


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    path, out = suite_file(tmp_path), tmp_path / "out"
    run(path, "linear", out=out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    again = plan(path, "linear", store=out)
    assert again.units == () and again.passes == 0 and all(cell.done == cell.blocks == 1 for cell in again.cells)
    execute(again)
    assert {f: t for f, t in before.items() if f.name not in (".lock",)} == {
        file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file() and file.name != ".lock"
    }


def test_runs_of_other_lengths_share_their_blocks(tmp_path: Path) -> None:
    path, out = suite_file(tmp_path, 300), tmp_path / "out"
    run(path, "linear", out=out, workers=1)
    longer = plan(path, "linear", store=out, examples=400)
    assert {(unit.start, unit.stop) for unit in longer.units} == {(256, 400)}
    records = execute(longer)
    assert {record.n for record in read_records([out])} == {300, 400}
    assert counts(records) == counts(run(path, "linear", out=tmp_path / "other", examples=400, workers=1))


def test_a_damaged_block_is_reported_and_computed_again(tmp_path: Path) -> None:
    path, out = suite_file(tmp_path), tmp_path / "out"
    records = run(path, "linear", out=out)
    for file in out.glob("blocks/*/*.parquet"):
        file.write_bytes(file.read_bytes()[:-9])
    (out / "records.jsonl").write_text("{torn")
    made = plan(path, "linear", store=out)
    assert len(made.notes) == 5 and all(("damaged" in n) or ("line 1" in n) for n in made.notes)
    assert same(execute(made)) == same(records) == same(read_records([out]))


def test_fresh_starts_over_for_its_own_cells(tmp_path: Path) -> None:
    path, out = suite_file(tmp_path), tmp_path / "out"
    run(path, "linear", out=out, seed=1)
    first = run(path, "linear", out=out)
    files = {f: f.stat().st_mtime_ns for f in out.glob("blocks/*/*.parquet")}
    made = plan(path, "linear", store=out, fresh=True)
    assert len(made.units) == 3 and all(f.exists() for f in files)  # a plan removes nothing
    assert same(execute(made)) == same(first)
    again = {f for f, time in files.items() if f.stat().st_mtime_ns != time}
    assert len(again) == 4 and len(read_records([out])) == 2 * len(first) - 1  # seeds share the clean record


def test_the_working_directory_does_not_matter(
    tmp_path: Path, whole: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = suite_file(tmp_path, 300)
    (tmp_path / "torch.py").write_text("raise SystemExit('wrong torch')")
    (tmp_path / "smoke.yaml").write_text("not a suite")
    monkeypatch.chdir(tmp_path)
    assert same(run(path, "linear", out="out", workers=2)) == same(whole)
    assert (tmp_path / "out" / "records.jsonl").exists() and load_suite("smoke").name == "smoke"


RUN = "import sys; from rlbench.engine.run.runner import run; run(sys.argv[1], 'linear', out=sys.argv[2], workers=1)"


def test_concurrent_runs_lose_and_double_nothing(tmp_path: Path, whole: list[Record]) -> None:
    command = [sys.executable, "-c", RUN, suite_file(tmp_path, 300), str(tmp_path / "out")]
    runs = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in runs] == [0, 0]
    assert same(read_records([tmp_path / "out"])) == same(whole)
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == len(whole)


def test_progress_is_reported_and_ends_complete(tmp_path: Path) -> None:
    told: list[Progress] = []
    made = plan(suite_file(tmp_path, 300), "linear", store=tmp_path / "out", workers=1)
    execute(made, told.append)
    assert told[-1].done == told[-1].total <= made.passes and told[-1].left == 0
    assert [p.done for p in told] == sorted(p.done for p in told) and all(p.done <= p.total for p in told)


def test_a_plan_states_its_cost(tmp_path: Path) -> None:
    made = plan(suite_file(tmp_path, 300), "linear", store=tmp_path / "out")
    by_name = {str(cell.perturbation): cell for cell in made.cells}
    assert by_name["clean"].forwards == 300 and by_name["clean"].backwards == 0
    assert by_name["pgd(steps=5) linf 2/255"].backwards == 5 * 300
    assert by_name["worst linf 2/255"].forwards == 0 and by_name["clean"].blocks == 2
    assert 0.05 < made.half_width < 0.06 and made.seconds > 0 and not (tmp_path / "out").exists()
    records = execute(made)
    for record in records:
        assert record.forwards <= by_name[str(record.perturbation)].forwards
        assert record.backwards <= by_name[str(record.perturbation)].backwards
