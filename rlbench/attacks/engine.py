"""One loop for every gradient attack: a pool of jobs (example, target, restart) that keeps the batch full.

Each round is one forward pass of the batch and one gradient; then every job moves by its rule. An example
leaves with all its jobs at the step where it is broken, and other jobs take their slots. A job's numbers
depend on its example, target and restart alone, so that batch size and order do not change which examples break.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from rlbench.attacks.losses import LOSSES, LossName, defined
from rlbench.core import Ball, Classifier, Streams
from rlbench.errors import AttackError
from rlbench.metrics import margin
from rlbench.threat import per_row, project, rows_norm

State = dict[str, Tensor]  # one row per slot; "x_adv" (B, *shape), "x" its centre, "i" the steps taken
Start = Callable[[Tensor, Ball, Streams], Tensor]
BROKEN = 1e-4  # a job ends at a margin below -BROKEN * max|logit|: a judge's other batch may move logits by 1e-6
ALONGSIDE = 32  # below this batch size, further jobs of a running example are cheaper than an emptier batch


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


@dataclass(kw_only=True)
class Search:
    """The pool and the best point of every example.

    Attributes:
        jobs: names of the random streams of an example's jobs, in the order of their turns.
        targets: (N, len(jobs)) target classes.
        best, best_margin: per example the point with the smallest margin so far.
        slots, parked: the running jobs, and jobs whose last point still needs its forward pass, without a gradient.
    """

    classifier: Classifier
    x: Tensor
    y: Tensor
    ball: Ball
    streams: Streams
    rule: Rule
    loss: LossName
    start: Start
    jobs: Sequence[str]
    targets: Tensor
    best: Tensor = field(init=False)
    best_margin: Tensor = field(init=False)
    slots: State = field(init=False, default_factory=dict)
    parked: State = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.best = self.x.clone()
        self.best_margin = torch.full((n,), float("inf"))
        self.alive = torch.ones(n, dtype=torch.bool)
        self.turn = torch.zeros(n, dtype=torch.int64)
        self.running = torch.zeros(n, dtype=torch.int64)

    def run(self) -> Tensor:
        """(N, *shape) per example the point with the smallest margin of all its jobs."""
        if self.ball.radius > 0:
            while self._fill():
                self._step()
        return self.best

    def _fill(self) -> bool:
        """Admits jobs. Parked points are judged once they fill a batch, or when jobs or the end wait for them."""
        self._admit()
        while self.parked:
            active = _size(self.slots)
            waits = active < self.classifier.batch_size and bool((self.alive & (self.turn < len(self.jobs))).any())
            if active and not waits and _size(self.parked) < self.classifier.batch_size:
                break
            self._judge_parked()
            self._admit()
        return bool(self.slots)

    def _admit(self) -> None:
        while (room := self.classifier.batch_size - _size(self.slots)) > 0:
            ready = self.alive & (self.turn < len(self.jobs)) & (self.running == 0)
            if not ready.any():
                room = min(room, ALONGSIDE - _size(self.slots))
                ready = self.alive & (self.turn < len(self.jobs))
            found = ready.nonzero()[:, 0]
            order = torch.argsort(self.turn[found] + len(self.jobs) * self.running[found], stable=True)
            rows = found[order[: max(room, 0)]]
            if not len(rows):
                return
            for turn in sorted(set(self.turn[rows].tolist())):
                self._begin(rows[self.turn[rows] == turn], turn)
            self.turn[rows] += 1
            self.running[rows] += 1

    def _begin(self, rows: Tensor, turn: int) -> None:
        x, device = self.x[rows], self.x.device
        streams = self.streams.child(self.jobs[turn]).take(rows.tolist())
        x_adv = project(self.start(x, self.ball, streams).to(x), x, self.ball)
        new = {"example": rows, "x": x, "x_adv": x_adv, "y": self.y[rows], "target": self.targets[rows, turn]}
        new["i"] = torch.zeros(len(rows), dtype=torch.int64, device=device)
        if self.ball.norm == "linf":
            reach = 2 * self.ball.radius
            new |= {"low": project(x - reach, x, self.ball), "high": project(x + reach, x, self.ball)}
        self.slots = _join(self.slots, new | self.rule.begin(x, x_adv, self.ball))

    def _step(self) -> None:
        s = self.slots
        x_adv = s["x_adv"].detach().requires_grad_()
        with torch.enable_grad():
            logits = self.classifier(x_adv, rows=s["example"])
            name = defined(self.loss, logits.shape[1])
            loss = LOSSES[name](logits, s["y"], s["target"])
        s["x_adv"] = x_adv.detach()
        self._record(s, logits.detach())
        alive = self.alive[s["example"]]
        if alive.any():
            gradient = torch.autograd.grad(loss.sum(), x_adv)[0]
            _check_finite(gradient, alive)
            self.rule.advance(s, loss.detach(), gradient, self.ball)
        s["i"] = s["i"] + 1
        last = (s["i"] == self.rule.steps).cpu()
        if last.any() or not alive.all():
            self._leave(alive, last)

    def _leave(self, alive: Tensor, last: Tensor) -> None:
        s = self.slots
        self.running.index_add_(0, s["example"][~alive], torch.full((int((~alive).sum()),), -1))
        kept = ("example", "x_adv", "y")
        self.parked = _join(self.parked, _take({k: s[k] for k in kept}, alive & last))
        self.slots = _take(s, alive & ~last)

    def _judge_parked(self) -> None:
        parked, self.parked = self.parked, {}
        parked = _take(parked, self.alive[parked["example"]])
        if parked:
            with torch.no_grad():
                self._record(parked, self.classifier(parked["x_adv"], rows=parked["example"]))
        self.running.zero_()
        if self.slots:
            self.running.index_add_(0, self.slots["example"], torch.ones_like(self.slots["example"]))

    def _record(self, s: State, logits: Tensor) -> None:
        """Keeps the point of the smallest margin. NaN logits are the classifier's error: they count as broken."""
        scale = logits.abs().amax(1).nan_to_num(0.0)
        m = margin(logits, s["y"]).nan_to_num(float("-inf"), float("inf"), float("-inf")).float()
        ended = (m < -BROKEN * scale).cpu()
        m, example = m.cpu(), s["example"]
        before = self.best_margin[example]
        self.best_margin.scatter_reduce_(0, example, m, "amin")
        better = ((m < before) & (m == self.best_margin[example])).nonzero()[:, 0]
        self.best[example[better]] = s["x_adv"][better]
        self.alive[example[ended]] = False


def _check_finite(gradient: Tensor, alive: Tensor) -> None:
    """torch.sign(nan) is 0: without this check an example with such a gradient would stand still and look robust."""
    bad = int((~torch.isfinite(gradient.flatten(1).sum(1)).cpu() & alive).sum())
    if bad:
        raise AttackError(
            f"the classifier's gradient is not finite for {bad} of {int(alive.sum())} examples in a batch"
        )


def _size(state: State) -> int:
    return len(state["example"]) if state else 0


def _join(old: State, new: State) -> State:
    return {k: torch.cat([old[k], v]) for k, v in new.items()} if old and new else (old or new)


def _take(state: State, mask: Tensor) -> State:
    """The rows of a mask; {} when there are none."""
    rows = mask.nonzero()[:, 0]
    return {k: v[rows] for k, v in state.items()} if len(rows) else {}
