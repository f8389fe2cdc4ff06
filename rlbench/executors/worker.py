"""A worker process of this machine, and one that starts ahead, while the parent still plans.

A worker is a fresh interpreter: nothing is forked, and the caller's script does not run again. It takes jobs from a
pipe and sends results back on it. Its stdin is another pipe, which the parent never writes to: when that pipe closes,
the parent has ended. This module does not import torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from typing import Any, Generic, TypeVar

from rlbench.core.executor import Report
from rlbench.core.processes import command, without_collection
from rlbench.executors.jobs import Ticket
from rlbench.executors.messages import forward_log, pack_error

J = TypeVar("J")

# glibc keeps a worker's memory between passes: a thousand page faults per pass cost 5 to 10% of its time.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
_AHEAD: list[Worker[Any]] = []


def _describe_origin() -> tuple[object, ...]:
    """What a process takes over from its parent when it starts."""
    return dict(os.environ), os.getcwd()


class Worker(Generic[J]):
    """A worker process, as its parent sees it.

    Attributes:
        place: the index of its device, and of its pipe in a pool.
        ticket: the job that it does.
        ready: whether it has said that it can begin.
    """

    def __init__(self, place: int = 0, load: str = "") -> None:
        self.place, self.origin = place, _describe_origin()
        self.pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                command(f"from {__name__} import serve; serve({theirs.fileno()}, {load!r})"),
                env={**_MALLOC, **os.environ},
                stdin=subprocess.PIPE,
                stdout=2,  # a plugin's prints must not reach the parent's output
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # only the parent handles Ctrl-C
            )
        self.ticket: Ticket[J] | None = None
        self.ready = False

    @property
    def is_fit(self) -> bool:
        """Whether it lives, and a process started now would be the same."""
        return self.process.poll() is None and self.origin == _describe_origin()

    def describe_death(self) -> str:
        """Ends the process; how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)  # its pipe closes a little before it ends
        self.close()
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"worker process {self.process.pid} {how}"

    def close(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


@contextmanager
def start_ahead(module: str) -> Iterator[Worker[Any]]:
    """Starts a process that imports `module`, for the first `take_worker` in the block; it ends with the block."""
    worker = Worker[Any](load=module)
    _AHEAD.append(worker)
    try:
        yield worker
    finally:
        end_ahead()
        worker.close()


def end_ahead() -> None:
    """Ends the workers that were started ahead and not taken."""
    while _AHEAD:
        _AHEAD.pop().close()


def take_worker(place: int) -> Worker[Any]:
    """The worker that was started ahead, or else a fresh one, for this place of a pool."""
    if _AHEAD and _AHEAD[-1].is_fit:
        worker = _AHEAD.pop()
        worker.place = place
        return worker
    end_ahead()
    return Worker(place)


def serve(handle: int, load: str = "") -> None:
    """Runs a worker: imports the module `load`, then performs jobs from the pipe `handle` until it closes."""
    pipe = Connection(handle)
    forward_log(lambda text: pipe.send(("note", text)))
    report = Report(lambda passes, news: pipe.send(("report", (passes, news))))
    try:
        if load:
            with without_collection():
                import_module(load)
        sys.path[:], module, name, shared, device = pipe.recv()
        with without_collection():
            perform: Any = getattr(import_module(module), name)
        pipe.send(("ready", None))
        while True:
            job, ahead = pipe.recv()
            result = perform(shared, device, job, ahead, report)
            report.flush()
            pipe.send(("done", result))
    except EOFError:
        os._exit(1)
    except Exception as error:
        pipe.send(("error", pack_error(error)))
