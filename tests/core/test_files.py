"""Files that processes share: atomic replacement, leftover temporary files, locks, and processes without a parent."""

import errno
import logging
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
import torch

from rlbench.core import Box, files
from rlbench.core.documents import read_bytes
from rlbench.core.errors import StoreError
from rlbench.core.files import TEMPORARY, clear, hold_lock, host, is_stale, place, placing
from rlbench.core.processes import command
from rlbench.engine.block import input_files
from rlbench.store import store as stores
from rlbench.store.store import Store

BOX = Box(shape=(1, 8, 8))


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def full(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    place(tmp_path / "new" / "a", b"one")
    with pytest.raises(ZeroDivisionError), placing(tmp_path / "new" / "a") as temporary:
        temporary.write_bytes(b"tw")
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("a", b"one")]


def test_a_small_file_takes_little_memory_and_a_large_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    tracemalloc.start()
    assert read_bytes(tmp_path / "a", 2**28) == b"x" * 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    with pytest.raises(OSError, match="more than 999 bytes"):
        read_bytes(tmp_path / "a", 999)


def test_clear_removes_only_the_files_of_killed_writers(tmp_path: Path) -> None:
    names = {f"{host()}-{gone()}-0": False, f"{host()}-{os.getpid()}-0": True, "elsewhere-1-0": True, "old-1-0": True}
    for name in names:
        (tmp_path / f"{TEMPORARY}{name}").write_bytes(b"half")
    (tmp_path / f"{TEMPORARY}{host()}-{gone()}-1" / "half" / "copy").mkdir(parents=True)
    os.utime(tmp_path / f"{TEMPORARY}old-1-0", (0, 0))  # written by a host whose clock is decades behind, or ahead
    clear(tmp_path)
    left = {path.name.removeprefix(TEMPORARY) for path in tmp_path.iterdir()}
    assert left == {name for name, stays in names.items() if stays}
    assert not is_stale(tmp_path / f"{TEMPORARY}elsewhere-1-1")  # moved to its place meanwhile


HOLD = """
import sys, time
from pathlib import Path
from rlbench.core.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    print(1, flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(TimeoutError), hold_lock(lock, wait=False):
            pytest.fail("two hold it")
        threading.Timer(0.3, process.kill).start()
        with caplog.at_level(logging.WARNING, "rlbench"), hold_lock(lock):
            assert caplog.messages == [f"another process holds {lock}; waiting for it"]
    with hold_lock(lock, wait=False):
        pass


def test_a_disk_without_locks_gets_a_soft_lock(tmp_path: Path, monkeypatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    lock = tmp_path / "lock"
    with hold_lock(lock):
        assert lock.exists()
        with pytest.raises(TimeoutError), hold_lock(lock, wait=False):
            pytest.fail("two hold it")
    assert not lock.exists()


def test_many_writers_share_the_folder_of_corrupted_inputs(tmp_path: Path, monkeypatch) -> None:
    """Each writer also deletes old files, so files vanish while others read them."""
    monkeypatch.setattr(input_files, "LIMIT", 3000)
    failed: list[BaseException] = []

    def write(k: int) -> None:
        g = torch.Generator().manual_seed(k)
        try:
            for i in range(100):
                input_files.write_block(tmp_path / f"{i % 7}.zst", torch.rand(4, 1, 8, 8, generator=g), BOX)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and tmp_path not in input_files.UNUSABLE
    assert all(path.suffix == ".zst" for path in tmp_path.iterdir())
    found = [input_files.read_block(path, (4, 1, 8, 8), BOX) for path in tmp_path.iterdir()]
    assert found and all(x is not None for x in found)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_cache_that_can_not_be_written_is_reported_once(number: int, tmp_path: Path, caplog, monkeypatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        tried.append(arguments)
        raise OSError(number, os.strerror(number))

    tried: list[object] = []
    monkeypatch.setattr(input_files, "place", refuse)
    for name in "abc":
        input_files.write_block(tmp_path / f"{name}.zst", torch.zeros(1, 1, 8, 8), BOX)
    assert len(tried) == 1
    assert caplog.messages == [
        f"corrupted inputs are not cached for the next model: cannot write to {tmp_path}: {os.strerror(number)}"
    ]


def test_a_cache_that_is_not_a_folder_is_reported(tmp_path: Path, caplog) -> None:
    (tmp_path / "inputs").write_text("")
    input_files.write_block(tmp_path / "inputs" / "a.zst", torch.zeros(1, 1, 8, 8), BOX)
    assert (
        len(caplog.messages) == 1 and input_files.read_block(tmp_path / "inputs" / "a.zst", (1, 1, 8, 8), BOX) is None
    )


def test_the_cache_is_deleted_when_the_disk_is_full(tmp_path: Path, monkeypatch) -> None:
    store = Store(tmp_path)
    place(store.inputs / "a.zst", b"0" * 99)
    monkeypatch.setattr(stores, "place", lambda *a, **o: full() if store.inputs.exists() else place(*a, **o))
    store.prepare()
    assert not store.inputs.exists()
    monkeypatch.setattr(stores, "place", full)
    with pytest.raises(StoreError, match=r"can't write .*: No space left on device; free some space") as refused:
        store.prepare()
    assert "\n" not in str(refused.value)


def test_a_process_ends_when_its_parent_closes_the_pipe() -> None:
    process = subprocess.Popen(command("import time; time.sleep(60)"), stdin=subprocess.PIPE)
    process.stdin.close()
    assert process.wait(30) == 1
