"""Jobs in worker processes, which never outlive their parent and leave nothing behind when killed.

A worker is a fresh interpreter: nothing is forked, and the caller's script does not run again. It takes jobs from a
pipe and sends results back on it. Its stdin is another pipe, which the parent never writes to: when that pipe closes,
the parent has ended.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection, Pipe, wait
from time import monotonic
from types import TracebackType
from typing import Any, Generic, TypeVar

from rlbench.core.errors import RLBenchError
from rlbench.core.files import LOG
from rlbench.core.processes import command

J = TypeVar("J")
R = TypeVar("R")
PERIOD = 0.25  # seconds between two calls of `tick`
Tick = Callable[[int, Mapping[Any, Any]], object]  # passes and news since the last call

# glibc keeps a worker's memory between passes: a thousand page faults per pass cost 5 to 10% of its time.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


class _Worker:
    def __init__(self) -> None:
        self.pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                command(f"from {__name__} import serve; serve({theirs.fileno()})"),
                env={**_MALLOC, **os.environ},
                stdin=subprocess.PIPE,
                stdout=2,  # a plugin's prints must not reach the parent's output
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # only the parent handles Ctrl-C
            )
        self.job: Any = None

    def send(self, message: object) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            raise self.death() from None

    def death(self) -> RLBenchError:
        self.process.kill()
        code = self.process.wait()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        kept = "finished blocks are kept, so running again continues; if memory ran out, use fewer workers"
        return RLBenchError(f"worker process {self.process.pid} ended {how}; {kept}")

    def close(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


class WorkerPool(Generic[J, R]):
    """Processes that call `perform(shared, job, report)`; a single worker runs in this process.

    Args:
        perform: a function at the top of a module.
        shared: what all jobs need; it is sent once to each worker.
        workers: number of processes, at least 1.
        tick: called with what jobs reported since the last call, passes and news, at least every PERIOD seconds.
    """

    def __init__(
        self,
        perform: Callable[[Any, J, Report], R],
        shared: object,
        workers: int,
        tick: Tick,
    ) -> None:
        self.perform, self.shared, self.size, self.tick = perform, shared, workers, tick
        self.workers: list[_Worker] = []
        self.active: list[J] = []
        self.notes: set[str] = set()  # the workers' log messages, each once

    def __enter__(self) -> WorkerPool[J, R]:
        """Starts the workers, without waiting for them."""
        try:
            for _ in range(self.size if self.size > 1 else 0):
                self.workers.append(_Worker())
                self.workers[-1].send((self.perform.__module__, self.perform.__qualname__, self.shared))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.close()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def run(self, jobs: Sequence[J]) -> Iterator[tuple[J, R]]:
        """Yields (job, result) as the jobs finish; jobs begin in their order.

        Raises:
            Exception: whatever `perform` raised.
            RLBenchError: a worker was killed.
        """
        return self._run_in_workers(jobs) if self.size > 1 else self._run_here(jobs)

    def _run_here(self, jobs: Sequence[J]) -> Iterator[tuple[J, R]]:
        report = Report(self.tick)
        for job in jobs:
            self.active = [job]
            result = self.perform(self.shared, job, report)
            report.flush()
            yield job, result
        self.active = []

    def _run_in_workers(self, jobs: Sequence[J]) -> Iterator[tuple[J, R]]:
        queue = deque(jobs)
        while True:
            for worker in self.workers:
                if worker.job is None and queue:
                    worker.job = queue.popleft()
                    worker.send(worker.job)
            self.active = [worker.job for worker in self.workers if worker.job is not None]
            if not self.active:
                return
            yield from self._collect()

    def _collect(self) -> Iterator[tuple[J, R]]:
        ready = wait([worker.pipe for worker in self.workers], PERIOD)
        passes, news = 0, dict[Any, Any]()
        for worker in self.workers:
            if worker.pipe not in ready:
                continue
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                raise worker.death() from None
            if kind == "report":
                passes += value[0]
                news |= value[1]
            elif kind == "note":
                self._note(value)
            elif kind == "error":
                raise _rebuild_error(*value)
            else:
                job, worker.job = worker.job, None
                yield job, value
        self.tick(passes, news)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.add(text)
            LOG.warning(text)


def _rebuild_error(error: BaseException | None, text: str) -> BaseException:
    if error is None:
        return RuntimeError(f"a worker failed:\n{text}")
    if not isinstance(error, RLBenchError):
        error.add_note(f"in a worker:\n{text}")
    return error


class Report:
    """What a job reports while it runs, sent on at most every PERIOD seconds: passes, and the newest news by key."""

    def __init__(self, tick: Tick) -> None:
        self.tick, self.passes, self.latest, self.last = tick, 0, dict[Any, Any](), monotonic()

    def count(self, passes: int) -> None:
        """Adds forward passes."""
        self.passes += passes
        if monotonic() - self.last >= PERIOD:
            self.flush()

    def tell(self, news: Mapping[Any, Any]) -> None:
        """Replaces the news of these keys."""
        self.latest |= news

    def flush(self) -> None:
        """Sends everything now."""
        self.tick(self.passes, self.latest)
        self.passes, self.latest, self.last = 0, {}, monotonic()


class _Notes(logging.Handler):
    """Sends a worker's log messages to the parent, which logs each message once for all workers."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.WARNING)
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self.pipe.send(("note", record.getMessage()))


def serve(handle: int) -> None:
    """Runs a worker: performs jobs from the pipe `handle` until it closes."""
    pipe = Connection(handle)
    LOG.addHandler(_Notes(pipe))
    LOG.propagate = False
    report = Report(lambda passes, news: pipe.send(("report", (passes, news))))
    try:
        module, name, shared = pipe.recv()
        perform = getattr(import_module(module), name)
        while True:
            job = pipe.recv()
            result = perform(shared, job, report)
            report.flush()
            pipe.send(("done", result))
    except EOFError:
        os._exit(1)
    except Exception as error:
        pipe.send(("error", (_sendable(error), traceback.format_exc())))


def _sendable(error: Exception) -> Exception | None:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return error
