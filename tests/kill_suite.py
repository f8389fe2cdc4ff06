"""A suite of many small units, and a thread that kills workers while it runs."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUITE = """
suite: killed
version: 1
summary: Some seconds of work in many small units.
modality: image
task: {name: blobs}
examples: 6000
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255], steps: 40}
  - {attack: apgd-ce, norm: linf, eps: 4/255, steps: 40}
  - worst
"""


def write_suite(folder: Path) -> str:
    path = folder / "killed.yaml"
    path.write_text(SUITE)
    return str(path)


@contextmanager
def killing(find: Callable[[], list[int]], times: int, seed: int) -> Iterator[list[int]]:
    """Kills one of the found processes at random moments while the block runs; yields those killed so far."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        rng = random.Random(seed)
        while len(killed) < times and not stop.wait(rng.uniform(0.3, 3.0)):
            if left := sorted(set(find()) - set(killed)):
                with suppress(ProcessLookupError):
                    os.kill(pid := rng.choice(left), signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def children() -> list[int]:
    """The processes that this one has started."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [int(pid) for pid in found.read_text().split()] if found.exists() else []


def actors() -> list[int]:
    """The processes of Ray that do a job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::Server.do"):
                found.append(int(path.parent.name))
    return found


def wait_for_blocks(store: Path, count: int) -> None:
    """Waits until a store has this many blocks."""
    while len(list(store.glob("blocks/*/*.parquet"))) < count:
        time.sleep(0.1)
