"""The adaptive attack with long runs from new starts for the examples that are near to break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlbench.attacks.adaptive import CE, Adaptive, AdaptiveSearch
from rlbench.attacks.apgd import APGD, Memory, checkpoints
from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.state import JobPoints, Jobs
from rlbench.core import Ball, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register

ABREAST = 5  # long runs of an example that run side by side, for batches that are less empty


@register("attack", "adaptive-long")
@dataclass(frozen=True, kw_only=True)
class AdaptiveLong(Adaptive):
    """`adaptive`, then long runs of targeted Auto-PGD for the examples that are near to break.

    It differs from `adaptive` in three ways. An example is given up as hopeless only after targeted runs, since on a
    saturated cross-entropy the first run may find little: after the j-th, where its margin is more than hopeless / j
    times its fall. The later runs have `long` iterations and start at new random points: another run from the best
    point hardly ever finds a better one, a new start often does. Each goes towards the class whose difference to the
    true class is the smallest share r of its fall so far, and a class gets its k-th long run only where r is at most
    near / k^1.5: most runs of an example end close together, so only examples on the boundary gain by many starts. Up
    to ABREAST long runs that r allows run side by side; then r is taken anew. benchmarks/adaptive.md has the
    measurements.

    Attributes:
        hopeless: the ratio above.
        near: the share r of the first long run.
        again: the largest number of an example's long runs.
        long: iterations of each, at least `steps`.
    """

    hopeless: float = 8.0
    near: float = 0.2
    again: int = 20
    long: int = 100
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.long < self.steps:
            raise FieldError(f"adaptive-long: long is {self.long}; it must be at least steps, {self.steps}")

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        runs, short = min(self.targets, n_classes - 1), min(self.targeted, self.steps)
        backwards = CE + self.steps + runs * short + self.again * self.long
        return 1 + backwards + CE + 1 + runs + self.again, backwards

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> LongSearch:
        """The attack's jobs, for the pool."""
        first = super().search(x, y, ball, streams, logits)
        values: dict[str, Any] = {f.name: getattr(first, f.name) for f in fields(first) if f.init}
        jobs = [*first.jobs[: first.last + 1], *(f"long run {run}" for run in range(self.again))]
        rule = TwoLengths(name="apgd-t", steps=self.steps, long=self.long, last=first.last)
        values |= {"jobs": jobs, "targets": y[:, None].repeat(1, len(jobs)), "rule": rule}
        return LongSearch(**values)


@dataclass(frozen=True, kw_only=True)
class TwoLengths(APGD):
    """Auto-PGD with the checkpoints of `long` steps in the jobs after turn `last`."""

    long: int
    last: int

    def intervals(self, jobs: Jobs[Memory]) -> Tensor:
        """(B,) int64 the length of the interval that ends after this step of a job, or 0."""
        short, long = (checkpoints(n).to(jobs.steps.device) for n in (self.steps, self.long))
        return torch.where(jobs.turn > self.last, long[jobs.steps], short[jobs.steps.clamp_max(self.steps)])


@dataclass(kw_only=True, eq=False)
class LongSearch(AdaptiveSearch):
    """The short runs, then long ones; see `AdaptiveLong`.

    Attributes:
        gap: (N, C) the least difference of the true class's logit to each class so far.
        begun: (N, C) the number of long runs towards each class, the planned ones included.
        planned: (N,) the first turn after the long runs whose targets are chosen.
    """

    rule: TwoLengths
    gap: Tensor = field(init=False)
    begun: Tensor = field(init=False)
    planned: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clean_gap = _gaps(self.clean, self.y)
        self.gap = self.clean_gap.clone()
        self.begun = torch.zeros_like(self.gap)
        self.planned = torch.full((len(self.x),), self.last + 1)

    def record(self, points: JobPoints, logits: Tensor) -> Tensor:
        """Keeps the least differences, too."""
        gaps, at = _gaps(logits, points.y).float(), points.example.to(self.gap.device)
        self.gap.scatter_reduce_(0, at[:, None].expand_as(gaps), gaps, "amin")
        return super().record(points, logits)

    def rank_classes(self, rows: Tensor) -> Tensor:
        """(K, C) r k^1.5 for the next long run towards each class, which would be its k-th; infinite without a fall."""
        gap = self.gap[rows]
        fall = self.clean_gap[rows] - gap
        return torch.where(fall > 0, gap / fall * (1 + self.begun[rows]) ** 1.5, float("inf"))

    def is_waiting(self) -> Tensor:
        """(N,) bool, the examples that have a job to begin: alone, or beside others of the same plan."""
        planned = (self.turn > self.last) & (self.turn < self.planned)
        return super().is_waiting() & ((self.running == 0) | planned)

    def admit(self, room: int, *, alongside: bool) -> int:
        """Begins jobs; only planned long runs run side by side."""
        return Search.admit(self, room, alongside=alongside)

    def choose_targets(self, rows: Tensor, turn: int) -> Tensor:
        """(K,) the classes of the next runs."""
        if turn <= self.last:
            return super().choose_targets(rows, turn)
        self.plan(rows[(self.planned[rows.cpu()] == turn).to(rows.device)])
        return self.targets[rows, turn]

    def plan(self, rows: Tensor) -> None:
        """Chooses the targets of the long runs of these examples (K,) that their ratios allow now, from 1 to ABREAST.

        No job of theirs is running, so that the plan depends on no other example.
        """
        self._idle.clear()
        for _ in range(ABREAST):
            target = self.rank_classes(rows).argmin(1)
            at = self.planned[rows.cpu()]
            self.targets[rows, at.to(rows.device)] = target
            self.begun[rows, target] += 1
            self.planned[rows.cpu()] += 1
            more = self.rank_classes(rows).amin(1) <= self.near_ratio
            rows = rows[more & (at + 1 < len(self.jobs)).to(rows.device)]

    def draw_start(self, rows: Tensor, turn: int) -> Tensor:
        """(K, *shape) a random start for the long runs, too."""
        return Search.draw_start(self, rows, turn) if turn > self.last else super().draw_start(rows, turn)

    def is_finished(self) -> Tensor:
        """(B,) bool, the running jobs that took their last gradient."""
        jobs = self._jobs()
        return torch.where(jobs.turn > self.last, jobs.steps == self.rule.long, super().is_finished())

    def is_hopeless(self, examples: Tensor, turn: Tensor) -> Tensor:
        """(K,) bool, the examples that are given up after their runs of these turns (K,)."""
        far = self.rank_classes(examples.to(self.gap.device)).amin(1).cpu() > self.near_ratio
        far &= (self.running[examples] == 0) & (self.turn[examples] == self.planned[examples])
        m = self.best_margin[examples].float()
        fall, runs = self.clean_margin[examples] - m, turn - CE
        return torch.where(turn < self.last, (fall > 0) & (runs * m > self.hopeless * fall) & (runs > 0), far)


def _gaps(logits: Tensor, y: Tensor) -> Tensor:
    """(B, C) the true class's logit minus each other one; infinite for the true class. NaN counts as no fall."""
    gaps = logits.gather(1, y[:, None]) - logits
    return gaps.nan_to_num(float("inf")).scatter(1, y[:, None], float("inf"))
