"""Where jobs run: what an executor is given, and what it must do. Executors are plugins, see `rlbench.executors`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from rlbench.core import registry
from rlbench.core.errors import FieldError

J = TypeVar("J")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
PERIOD = 0.25  # seconds between two calls of `tick`
Tick = Callable[[int, Mapping[Any, Any]], object]  # passes and news since the last call


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


@dataclass(frozen=True)
class Lost:
    """In place of a job's result: why it has none. Its workers died, as often as it was tried."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Work(Generic[J, R]):
    """What the workers do.

    Attributes:
        perform: a function at the top of a module, called as `perform(shared, device, job, ahead, report)`; `ahead` is
            the job that the worker will probably do next (None: unknown), so that its inputs can be loaded meanwhile.
        shared: what all jobs need; it is sent once to each worker.
        devices: the torch device of every worker.
        tick: called with what jobs reported since the last call, passes and news, at least every PERIOD seconds.
    """

    perform: Callable[[Any, str, J, J | None, Report], R]
    shared: object
    devices: tuple[str, ...]
    tick: Tick


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
    """Runs jobs in worker processes, on this machine or others.

    Attributes:
        here: whether the workers are on this machine, so that this process may do a job while they start.
    """

    here: ClassVar[bool]

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
    try:
        executor: Executor = registry.make("executor", name, fields)
    except FieldError as error:
        if error.field == "address" and name == "local":
            raise FieldError(
                "executor 'local' has no address; one is for a cluster: use executor 'ray'", "address"
            ) from None
        raise
    return executor
