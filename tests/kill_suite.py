"""A suite of many small units, and a thread that kills workers while it runs."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SUITE = """
suite: killed
version: 1
summary: Some seconds of work in many small units.
modality: image
task: {name: blobs}
examples: 12288
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255], steps: 5}
  - {attack: apgd-ce, norm: linf, eps: 4/255, steps: 5}
  - worst
"""
APART = 10  # saved blocks between two steps: at least three jobs, of which the second or third is one that was lost


def write_suite(folder: Path) -> str:
    path = folder / "killed.yaml"
    path.write_text(SUITE)
    return str(path)


@dataclass
class Killer:
    """Kills a process at every call.

    Attributes:
        find: lists the processes to choose from.
        killed: those killed so far.
    """

    find: Callable[[], list[int]]
    killed: list[int] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def __call__(self) -> bool:
        """Kills one that was found; False if there is none."""
        left = sorted(set(self.find()) - set(self.killed))
        with suppress(ProcessLookupError):
            if left:
                os.kill(pid := self.rng.choice(left), signal.SIGKILL)
                self.killed.append(pid)
                return True
        return False


@contextmanager
def disturbing(store: Path, steps: Sequence[Callable[[], bool]]) -> Iterator[None]:
    """Takes steps at random moments of the run in this block, but never so soon that one job is lost three times.

    Args:
        store: of the run.
        steps: functions that say whether they could do something; one that could not is called again.
    """
    stop, rng = threading.Event(), random.Random(0)

    def disturb() -> None:
        before = 0
        for step in steps:
            while (now := len(list(store.glob("blocks/*/*.parquet")))) < before + APART or not step():
                if stop.wait(rng.uniform(0.0, 0.2)):
                    return
            before = now

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
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
