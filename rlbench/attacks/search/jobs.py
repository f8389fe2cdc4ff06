"""The jobs of a gradient attack in one ball: (example, target, restart), each a rule that moves a point.

An example leaves with all its jobs at the step where it is broken. A job's numbers depend on its example, target and
restart alone, so that batch size, order and company do not change which examples break. The loop is in `pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor

from rlbench.attacks.search.losses import LOSSES, LossName, substitute
from rlbench.core import Ball, Streams
from rlbench.core.errors import AttackError
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import per_row, project, rows_norm

State = dict[str, Tensor]  # one row per slot; "x_adv" (B, *shape), "x" its centre, "i" the steps taken
Start = Callable[[Tensor, Ball, Streams], Tensor]
BROKEN = 1e-4  # a job ends at a margin below -BROKEN * max|logit|: a judge's other batch may move logits by 1e-6


class Rule(Protocol):
    """How a job moves. `steps` is the number of gradients that a job takes."""

    @property
    def steps(self) -> int: ...

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> State:
        """The rule's own state of new jobs that start at x_adv."""

    def advance(self, state: State, loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """Takes loss (B,) and gradient at state["x_adv"] and moves it, in place of the old."""


def direction(gradient: Tensor, ball: Ball) -> Tensor:
    """The steepest unit step of the ball's norm: the sign (Linf), or the gradient over its L2 norm."""
    if ball.norm == "linf":
        return gradient.sign()
    return gradient / per_row(rows_norm(gradient, "l2"), gradient).clamp_min(1e-20)


def inside(point: Tensor, state: State, ball: Ball) -> Tensor:
    """`point` projected to the balls of a state; may reuse its memory."""
    if ball.norm == "linf":
        return torch.clamp(point, state["low"], state["high"], out=point)
    return project(point, state["x"], ball)


@dataclass(kw_only=True, eq=False)
class Search:
    """The jobs of one cell and the best point of every example.

    Attributes:
        jobs: names of the random streams of an example's jobs, in the order of their turns.
        targets: (N, len(jobs)) target classes.
        rows: (N,) what the classifier is told that an example is (default: its index).
        open: (N,) bool, which examples may run; a search alone runs all. `close` and `reopen` change it.
        best, best_margin: per example the point with the smallest margin so far.
        alive: (N,) bool, not broken yet.
        slots, parked: the running jobs, and jobs whose last point still needs its forward pass, without a gradient.
    """

    x: Tensor
    y: Tensor
    ball: Ball
    streams: Streams
    rule: Rule
    loss: LossName
    start: Start
    jobs: Sequence[str]
    targets: Tensor
    rows: Tensor = field(init=False)
    best: Tensor = field(init=False)
    best_margin: Tensor = field(init=False)
    slots: State = field(init=False, default_factory=dict)
    parked: State = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.rows = torch.arange(n)
        self.best = self.x.clone()
        self.best_margin = torch.full((n,), float("inf"))
        self.alive, self.open = torch.ones(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
        self.turn = torch.zeros(n, dtype=torch.int64)  # of the next job
        self.running = torch.zeros(n, dtype=torch.int64)  # jobs in slots
        self.left = torch.full((n,), len(self.jobs) if self.ball.radius > 0 else 0)  # jobs that have not ended
        self.told = torch.zeros(n, dtype=torch.bool)
        self._news, self._idle = True, set[bool]()  # an example may have ended; how `admit` found nobody waiting

    def close(self) -> None:
        """No example may run until it is opened."""
        self.open.zero_()

    def reopen(self, rows: Tensor) -> None:
        """Examples that may run."""
        self.open[rows] = True
        self._changed()

    def _changed(self) -> None:
        self._news = True
        self._idle.clear()

    def waiting(self) -> Tensor:
        """(N,) bool, examples that have a job to begin."""
        return self.open & self.alive & (self.turn < len(self.jobs)) & (self.left > 0)

    def admit(self, room: int, *, alongside: bool) -> None:
        """Begins at most `room` jobs: of examples that run none, or `alongside` also further ones of those that do."""
        if room <= 0 or alongside in self._idle:
            return
        ready = self.waiting() if alongside else self.waiting() & (self.running == 0)
        found = ready.nonzero()[:, 0]
        if not len(found):
            self._idle.add(alongside)
            return
        order = torch.argsort(self.turn[found] + len(self.jobs) * self.running[found], stable=True)
        rows = found[order[:room]]
        for turn in sorted(set(self.turn[rows].tolist())):
            self.begin(rows[self.turn[rows] == turn], turn)
        self.turn[rows] += 1
        self.running[rows] += 1

    def first(self, rows: Tensor, turn: int) -> Tensor:
        """(K, *shape) the first points of a turn's jobs."""
        streams = self.streams.child(self.jobs[turn]).take(rows.tolist())
        return self.start(self.x[rows], self.ball, streams)

    def begin(self, rows: Tensor, turn: int) -> None:
        """Gives the turn's jobs of these examples a slot each."""
        x, device = self.x[rows], self.x.device
        x_adv = project(self.first(rows, turn).to(x), x, self.ball)
        new = {"example": rows, "x": x, "x_adv": x_adv, "y": self.y[rows], "target": self.targets[rows, turn]}
        new |= {k: torch.full((len(rows),), v, device=device) for k, v in (("i", 0), ("turn", turn))}
        if self.ball.norm == "linf":
            reach = 2 * self.ball.radius
            new |= {"low": project(x - reach, x, self.ball), "high": project(x + reach, x, self.ball)}
        self.slots = _join(self.slots, new | self.rule.begin(x, x_adv, self.ball))

    def adversary_loss(self, logits: Tensor) -> Tensor:
        """(B,) loss of the slots' logits."""
        return LOSSES[substitute(self.loss, logits.shape[1])](logits, self.slots["y"], self.slots["target"])

    def advance(self, loss: Tensor, gradient: Tensor) -> None:
        """Every slot moves. Raises: AttackError for a gradient that is not finite, where the example is alive."""
        _check_finite(gradient, self.alive[self.slots["example"]])
        self.rule.advance(self.slots, loss, gradient, self.ball)

    def finished(self) -> Tensor:
        """(B,) bool, the slots whose jobs took their last gradient."""
        return self.slots["i"] == self.rule.steps

    def leave(self) -> None:
        """After a step: broken examples leave with all their jobs, jobs that took their last gradient park."""
        s = self.slots
        s["i"] = s["i"] + 1
        alive, last = self.alive[s["example"]], self.finished().cpu()
        if not last.any() and alive.all():
            return
        self.parked = _join(self.parked, take({k: s[k] for k in ("example", "turn", "x_adv", "y")}, alive & last))
        self.slots = take(s, alive & ~last)
        self._count()

    def settle(self, logits: Tensor) -> None:
        """Ends the parked jobs, given their logits."""
        parked, self.parked = self.parked, {}
        self.record(parked, logits)
        self.left.index_add_(0, parked["example"], torch.full_like(parked["example"], -1))
        self._count()

    def _count(self) -> None:
        self.running.zero_()
        for state in (self.slots, self.parked):
            if state:
                self.running.index_add_(0, state["example"], torch.ones_like(state["example"]))
        self._changed()

    def record(self, s: State, logits: Tensor) -> Tensor:
        """Keeps the point of the smallest margin; (K,) the slots that are it now.

        NaN logits are the classifier's error: they count as broken.
        """
        scale = logits.abs().amax(1).nan_to_num(0.0)
        m = margin(logits, s["y"]).nan_to_num(float("-inf"), float("inf"), float("-inf")).float()
        ended = (m < -BROKEN * scale).cpu()
        m, example = m.cpu(), s["example"]
        before = self.best_margin[example]
        self.best_margin.scatter_reduce_(0, example, m, "amin")
        better = ((m < before) & (m == self.best_margin[example])).nonzero()[:, 0]
        self.best[example[better]] = s["x_adv"][better]
        self.alive[example[ended]] = False
        return better

    def ended(self) -> Tensor:
        """The open examples that ended, broken or not, since this was asked last."""
        if not self._news:
            return torch.empty(0, dtype=torch.int64)
        self._news = False
        new = self.open & ~self.told & (~self.alive | (self.left == 0))
        self.told |= new
        return new.nonzero()[:, 0]


def _check_finite(gradient: Tensor, alive: Tensor) -> None:
    """torch.sign(nan) is 0: without this check an example with such a gradient would stand still and look robust."""
    if isfinite(float(gradient.sum())):
        return
    bad = int((~torch.isfinite(gradient.flatten(1).sum(1)).cpu() & alive).sum())
    if bad:
        raise AttackError(
            f"the classifier's gradient is not finite for {bad} of {int(alive.sum())} examples in a batch"
        )


def size(state: State) -> int:
    return len(state["example"]) if state else 0


def _join(old: State, new: State) -> State:
    return {k: torch.cat([old[k], v]) for k, v in new.items()} if old and new else (old or new)


def take(state: State, mask: Tensor) -> State:
    """The rows of a mask; {} when there are none."""
    rows = mask.nonzero()[:, 0]
    return {k: v[rows] for k, v in state.items()} if len(rows) else {}
