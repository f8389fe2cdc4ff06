"""The store returns exactly what was written, or reports that a file is damaged."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from stored import FACTS, KEY, block, key, record

from rlbench.core import Clean
from rlbench.core.errors import StoreError
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.record import fill, outline
from rlbench.engine.run.runner import execute
from rlbench.store.blocks import Block
from rlbench.store.lines import from_line, to_line
from rlbench.store.records import drop_times, read_records
from rlbench.store.store import Store


def test_a_block_comes_back_exactly(tmp_path: Path) -> None:
    store, written = Store(tmp_path / "new" / "store"), block()
    store.prepare()
    assert store.block(KEY, 256, 261) is None
    store.save(KEY, 256, 261, written)
    read = store.block(KEY, 256, 261)
    for name in (f.name for f in fields(Block)):
        got, want = getattr(read, name), getattr(written, name)
        if isinstance(want, np.ndarray):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == want.dtype
        else:
            assert got == want
    assert [p.name for p in store.path.iterdir() if p.name != ".lock"] == ["blocks"]  # no temporary files


def test_an_altered_or_truncated_block_is_damaged(tmp_path: Path) -> None:
    store, original = Store(tmp_path), block()
    store.save(KEY, 0, 5, original)
    path = tmp_path / "blocks" / KEY / "0-5.parquet"
    data, g = path.read_bytes(), np.random.default_rng(1)
    noticed = 0
    for position in g.choice(len(data), 300, replace=False):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << g.integers(8)]) + data[position + 1 :])
        try:
            read = store.block(KEY, 0, 5)
        except StoreError as error:
            noticed += 1
            assert "0-5.parquet is damaged" in str(error) and "\n" not in str(error)
        else:
            assert read is not None and read.digest() == original.digest()  # an unused byte
    assert noticed > 200
    for length in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(StoreError, match="damaged"):
            store.block(KEY, 0, 5)


def test_a_block_copied_to_another_place_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(KEY, 0, 5, block())
    path = tmp_path / "blocks" / KEY / "0-5.parquet"
    for cell, start, stop in ((KEY, 5, 10), (KEY, 0, 6), ("f" * 16, 0, 5)):
        other = tmp_path / "blocks" / cell / f"{start}-{stop}.parquet"
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(path.read_bytes())
        with pytest.raises(StoreError, match="damaged"):
            store.block(cell, start, stop)


def test_records_are_replaced_by_identity_and_survive_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(record(1))
    store.append(record(2))
    store.append(record(1, n_correct=4, flags="f000"))
    store.append(record(1, model="other:mini"))
    assert sorted((r.model, r.key, r.n_correct) for r in read_records([tmp_path])) == [
        ("m:mini", key(1), 4),
        ("m:mini", key(2), 5),
        ("other:mini", key(1), 5),
    ]
    file = tmp_path / "records.jsonl"
    file.write_text(file.read_text() + '{"key": "torn')
    with pytest.raises(StoreError, match=r"records\.jsonl, line 4, is not a record"):
        read_records([file])
    records, problems = store.records()
    assert len(records) == 3 and len(problems) == 1
    store.append(records[0])  # any run repairs the file
    assert len(read_records([tmp_path])) == 3


@pytest.mark.parametrize(
    "line",
    ["", "null", "[]", "{}", '{"provenance": {}}', "\udcff", "9" * 5000, "[" * 99999],
    ids=["empty", "null", "list", "no fields", "no counts", "not text", "number", "deep"],
)
def test_a_line_that_is_not_a_record_is_reported(tmp_path: Path, line: str) -> None:
    (tmp_path / "records.jsonl").write_bytes(line.encode(errors="surrogateescape") + b"\n")
    assert len(Store(tmp_path).records()[1]) == 1


def test_a_record_with_impossible_counts_is_not_read(tmp_path: Path) -> None:
    for wrong in (dict(n_correct=11), dict(n_correct=-1), dict(n_correct=None), dict(error="crashed")):
        store = Store(tmp_path / str(wrong))
        store.append(record(1, **wrong))
        assert store.records()[0] == []


def test_the_error_of_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="rlbench run"):
        read_records([tmp_path])


def test_an_error_of_many_lines_is_stored_as_one_line(tmp_path: Path) -> None:
    planned = plan("smoke", "linear", examples=4, store=tmp_path, workers=1, device="cpu")
    failed = fill(outline(planned.pairs[0], Clean()), [[None]], "CUDA error:\n\x1b[31m  at line 1\n" + "x" * 20_000)
    assert from_line(to_line(failed)) == failed
    assert str(failed.error).startswith("CUDA error: ") and "\n" not in str(failed.error)


def test_a_run_refuses_records_of_format_1_and_fresh_moves_them_aside(tmp_path: Path) -> None:
    old = json.loads(to_line(record())) | {"format": 1, "perturbation": "clean"}
    (tmp_path / "records.jsonl").write_text(json.dumps(old) + "\n")
    with pytest.raises(StoreError, match="records of format 1"):
        plan("smoke", "linear", examples=4, store=tmp_path, workers=1, device="cpu")
    planned = plan("smoke", "linear", examples=4, store=tmp_path, workers=1, device="cpu", fresh=True)
    assert len(execute(planned)) == len(read_records([tmp_path])) == len(planned.cells)
    assert json.loads((tmp_path / "records-1.jsonl.old").read_text()) == old


def test_drop_times_drops_only_seconds() -> None:
    assert dict(drop_times(record()).provenance) == FACTS


WRITER = """
import sys; sys.path.insert(0, sys.argv[3])
from stored import record
from rlbench.store.store import Store
store = Store(sys.argv[1])
for i in range(12):
    store.append(record(100 * int(sys.argv[2]) + i))
"""


def test_concurrent_writers_lose_no_record(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*arguments, str(w), str(Path(__file__).parents[1])]) for w in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    assert sorted(r.key for r in read_records([tmp_path])) == sorted(
        key(100 * w + i) for w in range(3) for i in range(12)
    )


def test_forget_removes_these_cells_and_no_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for i in (1, 2):
        store.append(record(i))
        store.save(f"cell{i}", 0, 5, block())
    store.forget(["cell1"], [key(1)])
    assert [r.key for r in read_records([tmp_path])] == [key(2)]
    assert store.block("cell1", 0, 5) is None and store.block("cell2", 0, 5) is not None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/rlbench-results")):
        with pytest.raises(StoreError, match="--out"):
            Store(path).prepare()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_finds_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="no permission"):
        Store(tmp_path / "out").check()


def test_stores_that_contradict_each_other_are_not_merged(tmp_path: Path) -> None:
    one = record(0, perturbation=Clean())
    Store(tmp_path / "a").append(one)
    Store(tmp_path / "b").append(replace(one, provenance={**FACTS, "device": "cuda"}))
    Store(tmp_path / "c").append(replace(one, n_correct=8, flags="ff00"))
    assert read_records([tmp_path / "a", tmp_path / "b"]) == [one]
    with pytest.raises(StoreError, match=r"contradicts .*records.jsonl on one cell \(s, m:mini, clean\)"):
        read_records([tmp_path / "a", tmp_path / "c"])
