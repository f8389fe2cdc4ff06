"""Jobs in actors of a Ray cluster (Moritz et al., 2018, https://arxiv.org/abs/1712.05889; https://docs.ray.io).

An actor keeps its encoder between jobs. Only the driver, which is this process, writes results. An actor whose node
runs other code is refused by name, as is one whose weights or data differ: `perform` checks those.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Generic, TypeVar

from rlbench.core.errors import FieldError, RLBenchError, first_line, quote
from rlbench.core.executor import PERIOD, Lost, Pool, Work
from rlbench.core.files import LOG
from rlbench.core.machine import code
from rlbench.core.registry import register
from rlbench.executors.actor import Gathered, Server
from rlbench.executors.jobs import STARTS, JobQueue, Ticket
from rlbench.executors.messages import Notes, unpack_error

J = TypeVar("J")
R = TypeVar("R")
CONNECT = 5.0  # seconds to reach an address
PLACE = 30.0  # seconds without any worker until a message says so
POLL = 1.0  # seconds between two questions for an actor's reports


@register("executor", "ray")
@dataclass(frozen=True)
class Ray:
    """Actors of a Ray cluster: one per GPU, or one per CPU core.

    Attributes:
        address: "auto" for the cluster that this machine is part of, or HOST:PORT; "" starts Ray on this machine.
    """

    here: ClassVar[bool] = False
    address: str = ""

    def devices(self, device: str, workers: int | None) -> tuple[str, ...]:
        """As `Executor.devices`: Ray chooses the GPUs, and an actor sees only its own, as cuda:0."""
        if device not in ("auto", "cpu", "cuda"):
            raise FieldError(f"device {device!r} can't be used with ray, which places workers itself; use cuda or cpu")
        found = _connect(self.address).cluster_resources()
        gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 0))
        if device == "cuda" and not gpus:
            raise FieldError(f"the Ray cluster has no GPU, and {cores} CPU cores; use --device cpu")
        if device == "cpu" or not gpus:
            return ("cpu",) * (workers or max(cores, 1))
        return ("cuda:0",) * (workers or gpus)

    def open(self, work: Work[J, R]) -> AbstractContextManager[Pool[J, R]]:
        """As `Executor.open`."""
        return _open(_connect(self.address), work)


def _connect(address: str) -> Any:
    """The module `ray`, connected. Raises: RLBenchError: it is not installed, or nothing answers at the address."""
    try:
        import ray
    except ImportError as error:
        raise RLBenchError(
            f"the executor 'ray' needs Ray ({first_line(error)}); pip install 'rlbind-bench[ray]'"
        ) from None
    if not ray.is_initialized():
        if address:
            _probe(address)
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = quote(address or "local")
            raise RLBenchError(
                f"can't connect to Ray at {where}: {first_line(error)}; start it with `ray start --head`"
            ) from None
    return ray


def _probe(address: str) -> None:
    """Raises RLBenchError if nothing listens at the address; Ray itself would try for minutes."""
    known = address if address != "auto" else os.environ.get("RAY_ADDRESS") or _last_cluster()
    host, _, port = known.removeprefix("ray://").rpartition(":")
    if not known:
        return  # ray.init searches for it
    if not host or not port.isdigit():
        raise FieldError(f"address {quote(known)}: it must be auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
    except (OSError, OverflowError) as error:
        raise RLBenchError(
            f"no Ray cluster at {known}: {first_line(error)}; start one with `ray start --head --port 6379`"
        ) from None


def _last_cluster() -> str:
    """The address of the last cluster that was started on this machine; "" if unknown."""
    try:
        return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _open(ray: Any, work: Work[J, R]) -> Iterator[Pool[J, R]]:
    pool = _Actors(ray, work)
    try:
        yield pool
    finally:
        for actor in pool.actors:
            ray.kill(actor.handle)


class _Actor(Generic[J]):
    """An actor; `pending` is what it was asked last, `node` its node once it has begun."""

    def __init__(self, handle: Any, place: int, pending: Any) -> None:
        self.handle, self.place, self.pending = handle, place, pending
        self.node = ""
        self.ticket: Ticket[J] | None = None
        self.asked: Any = None  # for its reports
        self.asked_at = 0.0


class _Actors(Generic[J, R]):
    """An actor for every device; after one has died, a fresh one as soon as Ray can place it."""

    def __init__(self, ray: Any, work: Work[J, R]) -> None:
        self.ray, self.work = ray, work
        self.shared = ray.put(work.shared)
        self.actors: list[_Actor[J]] = []
        self.notes = Notes()
        self.failed = 0  # actors in a row that died before they could begin
        self.alone_since: float | None = monotonic()  # without a worker; None: there is one, or it was said

    @property
    def active(self) -> list[J]:
        return [actor.ticket.job for actor in self.actors if actor.ticket is not None]

    def run(self, jobs: deque[J]) -> Iterator[tuple[J, R | Lost]]:
        queue = JobQueue(jobs)
        while queue or self.active:
            if queue:
                for place in set(range(len(self.work.devices))) - {actor.place for actor in self.actors}:
                    self.actors.append(self._start(place))
            for actor in self.actors:
                if actor.pending is None and (taken := queue.take(actor.place)) is not None:
                    actor.ticket = taken[0]
                    actor.pending = actor.handle.do.remote(actor.ticket.job, taken[1])
            yield from self._collect(queue)
            self._poll()

    def _start(self, place: int) -> _Actor[J]:
        perform, device = self.work.perform, self.work.devices[place]
        needs = {"num_cpus": 1, "num_gpus": int(device.startswith("cuda"))}
        handle = self.ray.remote(Server).options(**needs, max_restarts=0, max_concurrency=2).remote()
        begun = handle.begin.remote(perform.__module__, perform.__qualname__, self.shared, device, code())
        return _Actor(handle, place, begun)

    def _collect(self, queue: JobQueue[J]) -> Iterator[tuple[J, R | Lost]]:
        pending = {actor.pending: actor for actor in self.actors if actor.pending is not None}
        ready, _ = self.ray.wait(list(pending), num_returns=1, timeout=PERIOD)
        for ref in ready:
            actor, errors = pending[ref], self.ray.exceptions
            try:
                kind, value, gathered = self.ray.get(ref)
            except errors.RayTaskError as error:
                raise RLBenchError(f"a Ray worker can't do its job: {first_line(error.cause)}") from error
            except errors.RayError as error:
                yield from self._bury(actor, queue, first_line(error))
                continue
            actor.pending = None
            self._gather(gathered)
            if kind == "error":
                raise unpack_error(*value)
            if actor.ticket is None:
                actor.node, self.failed, self.alone_since = value, 0, None
            else:
                job, actor.ticket = actor.ticket.job, None
                yield job, value
        self._say_if_alone()

    def _bury(self, actor: _Actor[J], queue: JobQueue[J], how: str) -> Iterator[tuple[J, Lost]]:
        """Removes a dead actor; its job is done again, or Lost."""
        self.actors.remove(actor)
        self.ray.kill(actor.handle)
        if not any(other.node for other in self.actors):
            self.alone_since = monotonic()
        if actor.ticket is None:
            self.failed += 1
            if self.failed >= STARTS and not any(other.node for other in self.actors):
                raise RLBenchError(f"no worker can start on the Ray cluster: {how}; is rlbench installed on its nodes?")
            return
        lost = queue.lose(actor.place, actor.ticket, f"the Ray worker on {actor.node} has ended: {how}")
        if lost is not None:
            yield actor.ticket.job, lost

    def _say_if_alone(self) -> None:
        if self.alone_since is not None and monotonic() - self.alone_since > PLACE:
            LOG.warning("the Ray cluster has no room for a worker yet (see `ray status`); waiting for it")
            self.alone_since = None

    def _gather(self, gathered: Gathered) -> None:
        passes, news, notes = gathered
        for text in notes:
            self.notes.add(text)
        self.work.tick(passes, news)

    def _poll(self) -> None:
        """Asks the actors for what they gathered, each once in POLL seconds, and takes their answers."""
        asked = {actor.asked: actor for actor in self.actors if actor.asked is not None}
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        for ref in ready:
            asked[ref].asked = None
            with suppress(self.ray.exceptions.RayError):  # it has died, which `_collect` finds
                self._gather(self.ray.get(ref))
        for actor in self.actors:
            if actor.ticket is not None and actor.asked is None and monotonic() - actor.asked_at >= POLL:
                actor.asked, actor.asked_at = actor.handle.drain.remote(), monotonic()
        if not ready:
            self.work.tick(0, {})
