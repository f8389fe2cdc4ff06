"""The jobs that wait for a worker, and what becomes of those whose worker died."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rlbench.core.executor import Lost
from rlbench.core.files import LOG

J = TypeVar("J")
TRIES = 3  # a job whose workers die this often is given up
STARTS = 10  # so many workers in a row that die before they can begin, and no other, end a run


@dataclass(eq=False)
class Ticket(Generic[J]):
    """A job, and how many workers died of it."""

    job: J
    deaths: int = 0


@dataclass
class JobQueue(Generic[J]):
    """Jobs in their order, those that are done again first.

    Each worker has a job reserved while it does another, so that it can load its inputs ahead. An idle worker may take
    a job that is reserved for another.

    Attributes:
        jobs: those that were never begun; more may be added.
    """

    jobs: deque[J]
    _again: deque[Ticket[J]] = field(default_factory=deque)
    _reserved: dict[int, Ticket[J]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.jobs) + len(self._again) + len(self._reserved)

    def take(self, worker: int) -> tuple[Ticket[J], J | None] | None:
        """The next job of a worker and the one that is now reserved for it; None if no job waits."""
        ticket = self._reserved.pop(worker, None) or self._next()
        if ticket is None and self._reserved:
            ticket = self._reserved.pop(next(iter(self._reserved)))
        if ticket is None:
            return None
        ahead = self._next()
        if ahead is not None:
            self._reserved[worker] = ahead
        return ticket, None if ahead is None else ahead.job

    def lose(self, worker: int, ticket: Ticket[J], how: str) -> Lost | None:
        """Queues the job of a dead worker again, and logs how it died; a Lost if it was tried often enough."""
        if worker in self._reserved:
            self._again.append(self._reserved.pop(worker))
        ticket.deaths += 1
        if ticket.deaths == TRIES:
            LOG.warning("%s; that was try %d of %d, so its job is given up", how, TRIES, TRIES)
            return Lost(f"{how}, at the last of {TRIES} tries")
        LOG.warning("%s; its job begins again, try %d of %d", how, ticket.deaths + 1, TRIES)
        self._again.appendleft(ticket)
        return None

    def _next(self) -> Ticket[J] | None:
        if self._again:
            return self._again.popleft()
        return Ticket(self.jobs.popleft()) if self.jobs else None
