"""Where jobs run: what an executor is given, and what it must do. Executors are plugins, see `rlbench.executors`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rlbench.core import registry

J = TypeVar("J")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
PERIOD = 0.25  # seconds between two calls of `tick`


@dataclass(frozen=True)
class Lost:
    """In place of a job's result: why it has none. Its workers died, as often as it was tried."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Work(Generic[J, R]):
    """What the workers do.

    Attributes:
        perform: a function at the top of a module, called as `perform(shared, device, job, ahead, on_pass)` with the
            job that the worker will probably do next (None: unknown), so that its inputs can be loaded meanwhile, and a
            function to call with the number of examples of every forward pass.
        shared: what all jobs need; it is sent once to each worker.
        devices: the torch device of every worker.
        tick: called with the passes since the last call, at least every PERIOD seconds.
    """

    perform: Callable[[Any, str, J, J | None, Callable[[int], None]], R]
    shared: object
    devices: tuple[str, ...]
    tick: Callable[[int], None]


class Pool(Protocol[J, R_co]):
    """Workers that wait for jobs."""

    @property
    def active(self) -> list[J]:
        """The jobs that are being done."""

    def run(self, jobs: deque[J]) -> Iterator[tuple[J, R_co | Lost]]:
        """Yields (job, result) as the jobs finish; jobs begin in their order.

        The job of a worker that dies is done again by a fresh one, with one line in the log, up to three times.

        Args:
            jobs: emptied; jobs may be added to it while this iterates.

        Raises:
            Exception: whatever `perform` raised.
        """


class Executor(Protocol):
    """Runs jobs in worker processes, on this machine or others."""

    def devices(self, device: str, workers: int | None) -> tuple[str, ...]:
        """The torch device of every worker.

        Args:
            device: "auto", "cpu", "cuda" (every GPU) or one GPU.
            workers: number of workers; None: one per GPU, or per CPU core.

        Raises:
            RLBenchError: there is no such device, or the machines can't be reached.
        """

    def open(self, work: Work[J, R]) -> AbstractContextManager[Pool[J, R]]:
        """Workers for some work, which end with the block."""


def make_executor(name: str, address: str | None = None) -> Executor:
    """The executor of a name; `address` is that of its cluster. Raises: UnknownName; FieldError for a wrong address."""
    fields = {} if address is None else {"address": address}
    executor: Executor = registry.make("executor", name, fields)
    return executor
