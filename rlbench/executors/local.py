"""Jobs in processes on this machine, which never outlive their parent and leave nothing behind when killed.

See `worker` for what a worker is.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import wait
from typing import Any, ClassVar, Generic, TypeVar

from rlbench.core.errors import RLBenchError
from rlbench.core.executor import PERIOD, Lost, Pool, Report, Work
from rlbench.core.machine import devices_of
from rlbench.core.processes import processors
from rlbench.core.registry import register
from rlbench.executors.jobs import STARTS, JobQueue
from rlbench.executors.messages import Notes, unpack_error
from rlbench.executors.worker import Worker, end_ahead, take_worker

J = TypeVar("J")
R = TypeVar("R")


@register("executor", "local")
@dataclass(frozen=True)
class Local:
    """Processes on this machine: one per GPU, or one per CPU core."""

    here: ClassVar[bool] = True

    def devices(self, device: str, workers: int | None) -> tuple[str, ...]:
        """As `Executor.devices`; workers beyond the number of GPUs share them."""
        found = devices_of(device)
        most = len(found) if found[0].startswith("cuda") else processors()
        return tuple(islice(cycle(found), workers or most))

    def open(self, work: Work[J, R]) -> AbstractContextManager[Pool[J, R]]:
        """As `Executor.open`; a single worker is this process."""
        if len(work.devices) > 1:
            return _open_processes(work)
        end_ahead()
        here: Pool[J, R] = _Here[J, R](work)
        return nullcontext(here)


@contextmanager
def _open_processes(work: Work[J, R]) -> Iterator[Pool[J, R]]:
    pool = _Processes(work)
    try:
        for place in range(len(work.devices)):
            pool.worker_at(place)
        yield pool
    finally:
        for worker in pool.workers:
            worker.close()


class _Here(Generic[J, R]):
    """This process as the only worker."""

    def __init__(self, work: Work[J, R]) -> None:
        self.work = work
        self.active: list[J] = []

    def run(self, jobs: deque[J]) -> Iterator[tuple[J, R | Lost]]:
        report, work = Report(self.work.tick), self.work
        while jobs:
            job = jobs.popleft()
            self.active = [job]
            result = work.perform(work.shared, work.devices[0], job, jobs[0] if jobs else None, report)
            report.flush()
            yield job, result
        self.active = []


class _Processes(Generic[J, R]):
    """A process for every device; after one has died, a fresh one when there is a job for it."""

    def __init__(self, work: Work[J, R]) -> None:
        self.work = work
        self.workers: list[Worker[J]] = []
        self.notes = Notes()
        self.failed = 0  # workers in a row that died before they could begin

    @property
    def active(self) -> list[J]:
        return [worker.ticket.job for worker in self.workers if worker.ticket is not None]

    def run(self, jobs: deque[J]) -> Iterator[tuple[J, R | Lost]]:
        queue = JobQueue(jobs)
        while queue or self.active:
            for place in range(len(self.work.devices)):
                if not queue:
                    break
                worker = self.worker_at(place)
                if worker.ready and worker.ticket is None:
                    self._begin(worker, queue)
            yield from self._collect(queue)

    def worker_at(self, place: int) -> Worker[J]:
        """The worker for a device, a fresh one if there is none."""
        found = next((worker for worker in self.workers if worker.place == place), None)
        if found is None:
            found = take_worker(place)
            self.workers.append(found)
            perform, device = self.work.perform, self.work.devices[place]
            self._send(found, (sys.path, perform.__module__, perform.__qualname__, self.work.shared, device))
        return found

    def _begin(self, worker: Worker[J], queue: JobQueue[J]) -> None:
        taken = queue.take(worker.place)
        if taken is not None:
            worker.ticket, ahead = taken
            self._send(worker, (worker.ticket.job, ahead))

    def _send(self, worker: Worker[J], message: object) -> None:
        with suppress(OSError):  # it has died, which `_collect` finds
            worker.pipe.send(message)

    def _collect(self, queue: JobQueue[J]) -> Iterator[tuple[J, R | Lost]]:
        ready = wait([worker.pipe for worker in self.workers], PERIOD)
        passes, news = 0, dict[Any, Any]()
        for worker in [worker for worker in self.workers if worker.pipe in ready]:
            try:
                kind, value = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker, queue)
                continue
            if kind == "report":
                passes += value[0]
                news |= value[1]
            elif kind == "note":
                self.notes.add(value)
            elif kind == "error":
                raise unpack_error(*value)
            elif kind == "ready":
                worker.ready, self.failed = True, 0
            elif worker.ticket is not None:
                job, worker.ticket = worker.ticket.job, None
                yield job, value
        self.work.tick(passes, news)

    def _bury(self, worker: Worker[J], queue: JobQueue[J]) -> Iterator[tuple[J, Lost]]:
        self.workers.remove(worker)
        how, ticket = worker.describe_death(), worker.ticket
        if ticket is None:
            self.failed += 1
            if self.failed >= STARTS and not any(other.ready for other in self.workers):
                raise RLBenchError(f"no worker can start: {how}; if memory ran out, use fewer workers")
            return
        lost = queue.lose(worker.place, ticket, how)
        if lost is not None:
            yield ticket.job, lost
