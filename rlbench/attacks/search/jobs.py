"""The jobs of a gradient attack in one ball: (example, target, restart), each a rule that moves a point.

An example leaves with all its jobs at the step that breaks it. A job's numbers depend only on its example, target and
restart, so batch size, order and the other examples do not change which examples break. The loop is in `pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlbench.attacks.search.losses import LOSSES, LossName, substitute
from rlbench.attacks.search.rules import Rule, Start
from rlbench.attacks.search.state import JobPoints, Jobs, join, select
from rlbench.core import Ball, Streams
from rlbench.core.errors import AttackError
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import project

BROKEN = 1e-4  # a job ends at a margin below -BROKEN * max|logit|: another batch may move the judge's logits by 1e-6


class Query(NamedTuple):
    """Points to classify.

    Attributes:
        x: (B, *shape) the points.
        rows: (B,) int64, the classifier's index of each point's example.
    """

    x: Tensor
    rows: Tensor


@dataclass(kw_only=True, eq=False)
class Search:
    """The jobs of one cell and the best point of every example.

    Each example has the same jobs, one after another; a job's place in that order is its turn.

    Attributes:
        x: (N, *shape) clean examples.
        y: (N,) int64 labels.
        ball: the ball around each example.
        streams: the random streams of the examples.
        rule: how a job moves.
        loss: the loss that the jobs maximise.
        start: gives the first points: (examples (K, *shape), ball, streams) -> (K, *shape).
        jobs: the names of an example's jobs, which name their random streams, by turn.
        targets: (N, len(jobs)) int64 target classes.
        rows: (N,) int64, each example's index for the classifier (default: 0..N-1).
        past: whether an example goes on past its first error, for points that are to mislead another model.
        open: (N,) bool, the examples that may run; `attach` closes all, and `reopen` opens some.
        best: (N, *shape) the point with the smallest margin so far.
        best_margin: (N,) float64, the margin of `best`; infinite before the first pass.
        alive: (N,) bool, the examples that are not broken yet.
        slots: the running jobs; None if there are none.
        parked: the last points of jobs, which need a forward pass but no gradient; None if there are none.
    """

    x: Tensor
    y: Tensor
    ball: Ball
    streams: Streams
    rule: Rule[Any]
    loss: LossName
    start: Start
    jobs: Sequence[str]
    targets: Tensor
    past: bool = False
    rows: Tensor = field(init=False)
    best: Tensor = field(init=False)
    best_margin: Tensor = field(init=False)
    slots: Jobs[Any] | None = field(init=False, default=None)
    parked: JobPoints | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.rows = torch.arange(n)
        self.best = self.x.clone()
        self.best_margin = torch.full((n,), float("inf"), dtype=torch.float64)
        self.alive, self.open = torch.ones(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
        self.turn = torch.zeros(n, dtype=torch.int64)  # the turn of each example's next job
        self.running = torch.zeros(n, dtype=torch.int64)  # each example's jobs in slots and parked
        self.left = torch.full((n,), len(self.jobs) if self.ball.radius > 0 else 0)  # its jobs that have not ended
        self._reported = torch.zeros(n, dtype=torch.bool)  # the examples that `take_ended` has returned
        # Whether an example may have ended, and the values of `alongside` for which `admit` found no job to begin.
        self._changed, self._idle = True, set[bool]()

    def attach(self, rows: Tensor) -> None:
        """Sets `rows`, the examples' indices for the classifier (N,), and closes all examples."""
        self.rows = rows
        self.open.zero_()

    def follow(self, smaller: Search) -> None:
        """May take over what the same attack finds in a smaller ball, before any example runs; by default nothing."""

    def reopen(self, rows: Tensor) -> None:
        """Lets these examples run."""
        self.open[rows] = True
        self._mark_changed()

    def _mark_changed(self) -> None:
        self._changed = True
        self._idle.clear()

    @property
    def n_running(self) -> int:
        """Number of running jobs."""
        return 0 if self.slots is None else len(self.slots)

    @property
    def n_parked(self) -> int:
        """Number of parked points."""
        return 0 if self.parked is None else len(self.parked)

    def is_waiting(self) -> Tensor:
        """(N,) bool, the examples that have a job to begin."""
        return self.open & self.alive & (self.turn < len(self.jobs)) & (self.left > 0)

    def admit(self, room: int, *, alongside: bool) -> int:
        """Begins jobs and returns their number.

        Args:
            room: the most jobs to begin.
            alongside: whether to begin also jobs of examples that have running ones.
        """
        if room <= 0 or alongside in self._idle:
            return 0
        ready = self.is_waiting() if alongside else self.is_waiting() & (self.running == 0)
        found = ready.nonzero()[:, 0]
        if not len(found):
            self._idle.add(alongside)
            return 0
        order = torch.argsort(self.turn[found] + len(self.jobs) * self.running[found], stable=True)
        rows = found[order[:room]]
        for turn in sorted(set(self.turn[rows].tolist())):
            self.begin(rows[self.turn[rows] == turn], turn)
        self.turn[rows] += 1
        self.running[rows] += 1
        return len(rows)

    def draw_start(self, rows: Tensor, turn: int) -> Tensor:
        """(K, *shape) the first points of a turn's jobs."""
        streams = self.streams.child(self.jobs[turn]).take(rows.tolist())
        return self.start(self.x[rows], self.ball, streams)

    def confine(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Projects first points (K, *shape) to where jobs may be: the balls around x."""
        return project(x_adv, x, self.ball)

    def begin(self, rows: Tensor, turn: int) -> None:
        """Starts the turn's jobs of these examples (K,)."""
        x, zero = self.x[rows], torch.zeros(len(rows), dtype=torch.int64, device=self.x.device)
        x_adv = self.confine(self.draw_start(rows, turn).to(x), x)
        reach, linf = 2 * self.ball.radius, self.ball.norm == "linf"
        new = Jobs(
            example=rows,
            turn=zero + turn,
            x_adv=x_adv,
            y=self.y[rows],
            x=x,
            target=self.targets[rows, turn],
            steps=zero,
            low=project(x - reach, x, self.ball) if linf else None,
            high=project(x + reach, x, self.ball) if linf else None,
            memory=self.rule.begin(x, x_adv, self.ball),
        )
        self.slots = join(self.slots, new)

    def query(self) -> Query:
        """The points of the running jobs."""
        jobs = self._jobs()
        return Query(jobs.x_adv, self.rows[jobs.example])

    def adversary_loss(self, logits: Tensor) -> Tensor:
        """(B,) loss of the running jobs' logits (B, C)."""
        jobs = self._jobs()
        return LOSSES[substitute(self.loss, logits.shape[1])](logits, jobs.y, jobs.target)

    def observe(self, logits: Tensor) -> bool:
        """Records the logits (B, C) of the running jobs; returns whether any of their examples is still alive."""
        jobs = self._jobs()
        self.record(jobs, logits)
        return bool(self.alive[jobs.example].any())

    def advance(self, loss: Tensor, gradient: Tensor) -> None:
        """Moves every running job. Raises: AttackError for a non-finite gradient of an example that is alive."""
        jobs = self._jobs()
        _check_finite(gradient, self.alive[jobs.example])
        self.rule.advance(jobs, loss, gradient, self.ball)

    def is_finished(self) -> Tensor:
        """(B,) bool, the running jobs that have taken their last gradient."""
        return self._jobs().steps == self.rule.steps

    def leave(self) -> None:
        """Ends a step: drops all jobs of broken examples, and parks the jobs that have taken their last gradient."""
        jobs = self._jobs()
        jobs.steps = jobs.steps + 1
        alive, last = self.alive[jobs.example], self.is_finished().cpu()
        if not last.any() and alive.all():
            return
        points = JobPoints(jobs.example, jobs.turn, jobs.x_adv, jobs.y)
        self.parked = join(self.parked, select(points, alive & last))
        self.slots = select(jobs, alive & ~last)
        self._count()

    def query_parked(self) -> Query | None:
        """The parked points of examples that are alive, or None; the others are dropped."""
        if self.parked is not None:
            self.parked = select(self.parked, self.alive[self.parked.example])
        return None if self.parked is None else Query(self.parked.x_adv, self.rows[self.parked.example])

    def settle(self, logits: Tensor) -> None:
        """Ends the parked jobs, given their logits (B, C)."""
        parked, self.parked = self.parked, None
        assert parked is not None
        self.record(parked, logits)
        self.left.index_add_(0, parked.example, torch.full_like(parked.example, -1))
        self._count()

    def _jobs(self) -> Jobs[Any]:
        assert self.slots is not None, "no job is running"
        return self.slots

    def _count(self) -> None:
        self.running.zero_()
        for points in (self.slots, self.parked):
            if points is not None:
                self.running.index_add_(0, points.example, torch.ones_like(points.example))
        self._mark_changed()

    def record(self, points: JobPoints, logits: Tensor) -> Tensor:
        """Updates the best points and the examples that are alive.

        Args:
            points: B points.
            logits: (B, C) at these points. NaN counts as broken: it is an error of the classifier.

        Returns:
            (K,) int64, which of the points are now the best of their examples.
        """
        scale = logits.abs().amax(1).nan_to_num(0.0)
        m = margin(logits, points.y).nan_to_num(float("-inf"), float("inf"), float("-inf"))
        ended = (m < -BROKEN * scale).cpu()
        m, example = m.cpu().double(), points.example
        before = self.best_margin[example]
        self.best_margin.scatter_reduce_(0, example, m, "amin")
        better = ((m < before) & (m == self.best_margin[example])).nonzero()[:, 0]
        self.best[example[better]] = points.x_adv[better]
        if not self.past:
            self.alive[example[ended]] = False
        return better

    def is_broken(self, rows: Tensor) -> Tensor:
        """(K,) bool, which of these examples are broken."""
        return ~self.alive[rows]

    def take_ended(self) -> Tensor:
        """(K,) int64, the open examples that have ended since the last call, broken or not."""
        if not self._changed:
            return torch.empty(0, dtype=torch.int64)
        self._changed = False
        new = self.open & ~self._reported & (~self.alive | (self.left == 0))
        self._reported |= new
        return new.nonzero()[:, 0]


def _check_finite(gradient: Tensor, alive: Tensor) -> None:
    """Raises AttackError for a gradient that is not finite: torch.sign(nan) is 0, so the point would look robust."""
    if isfinite(float(gradient.sum())):
        return
    bad = int((~torch.isfinite(gradient.flatten(1).sum(1)).cpu() & alive).sum())
    if bad:
        raise AttackError(
            f"the classifier's gradient is not finite for {bad} of {int(alive.sum())} examples in a batch"
        )
