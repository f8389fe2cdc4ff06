"""Minimal-norm attacks in the pool: one run finds an example's nearest misclassified point, and so decides all eps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import BROKEN, Search
from rlbench.attacks.search.losses import LOSSES, LossName
from rlbench.attacks.search.rules import Rule
from rlbench.attacks.search.state import JobPoints
from rlbench.core import Ball, Streams
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import distance, per_row, project


@dataclass(kw_only=True, eq=False)
class MinimalSearch(Search):
    """Jobs whose points may leave the ball, one at a time; an example is broken once its nearest point lies inside.

    A job whose target is the label follows the gradient of `loss`, the others that of their target class's margin.

    Attributes:
        restarts: how many of the jobs, the last ones, start from the nearest point of those before.
        nearest: (N, *shape) the nearest misclassified points so far; x until one is found.
        distance: (N,) float64, their distances in box units; infinite until one is found.
        smaller: the same attack's search in a smaller ball, whose finished runs decide this one's examples, too.
    """

    restarts: int = 0
    smaller: MinimalSearch | None = None
    nearest: Tensor = field(init=False)
    distance: Tensor = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.nearest = self.x.clone()
        self.distance = torch.full((len(self.x),), float("inf"), dtype=torch.float64)

    def follow(self, smaller: Search) -> None:
        """Takes over the runs of the same attack in a smaller ball, so that a ladder of eps costs one run."""
        if isinstance(smaller, MinimalSearch):
            self.smaller = smaller

    def reopen(self, rows: Tensor) -> None:
        """Lets these examples run; those that ran in the smaller ball need no further pass."""
        if self.smaller is not None:
            ran = rows[self.smaller.open[rows] & (self.smaller.left[rows] == 0)]
            self.nearest[ran], self.distance[ran] = self.smaller.nearest[ran], self.smaller.distance[ran]
            self.left[ran] = 0
            self._place(ran)
        super().reopen(rows)

    def adversary_loss(self, logits: Tensor) -> Tensor:
        """(B,) a margin, lowered so that it is above 0 only where the judge sees the error, too (see `jobs.BROKEN`).

        Its gradient is that of the loss.
        """
        jobs = self._jobs()
        targeted = LOSSES["margin-targeted"](logits, jobs.y, jobs.target)
        value, slope = (LOSSES[name](logits, jobs.y, jobs.target) for name in ("margin", self.loss))
        loss = torch.where(jobs.target == jobs.y, slope + (value - slope).detach(), targeted)
        return loss - 2 * BROKEN * logits.detach().abs().amax(1)

    def draw_start(self, rows: Tensor, turn: int) -> Tensor:
        """(K, *shape) the first points of a turn's jobs: x, or the nearest points so far."""
        return self.x[rows] if turn < len(self.jobs) - self.restarts else self.nearest[rows]

    def confine(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """First points (K, *shape) may lie outside the balls."""
        return x_adv

    def admit(self, room: int, *, alongside: bool) -> int:
        """Begins jobs, never two of an example at a time."""
        return 0 if alongside else super().admit(room, alongside=False)

    def record(self, points: JobPoints, logits: Tensor) -> Tensor:
        """Keeps the misclassified points that are nearer than the earlier ones; returns which they are, (K,) int64."""
        example = points.example
        m = margin(logits, points.y).nan_to_num(float("-inf"))
        wrong = (m < -BROKEN * logits.abs().amax(1).nan_to_num(0.0)).cpu()
        far = distance(points.x_adv, self.x[example], self.ball.norm).cpu()
        nearer = (wrong & (far < self.distance[example])).nonzero()[:, 0]
        self.nearest[example[nearer]] = points.x_adv[nearer]
        self.distance[example[nearer]] = far[nearer]
        self._place(example[nearer])
        return nearer

    def settle(self, logits: Tensor) -> None:
        """Ends the parked jobs; a nearest point outside the ball is projected to it, where the judge decides."""
        assert self.parked is not None
        examples = self.parked.example
        super().settle(logits)
        self._place(examples)

    def _place(self, rows: Tensor) -> None:
        """Sets the best points of these examples (K,), and which of them are broken."""
        inside = self.distance[rows] <= self.ball.radius
        point = self.nearest[rows]
        near = per_row(inside, point).to(point.device)
        self.best[rows] = point.where(near, project(point, self.x[rows], self.ball))
        self.alive[rows[inside]] = False


def search_nearest(
    rule: Rule[Any],
    x: Tensor,
    y: Tensor,
    ball: Ball,
    streams: Streams,
    logits: Callable[[], Tensor],
    *,
    loss: LossName = "margin",
    targets: int = 0,
    restarts: int = 0,
) -> MinimalSearch:
    """The search of a minimal-norm attack: a job from x, others with targets, and others from the nearest point.

    Args:
        rule: the attack.
        x: (N, *shape) examples in the box.
        y: (N,) int64 labels.
        ball: the ball around each example.
        streams: the random streams of the examples.
        logits: gives the clean logits (N, C).
        loss: the loss of the jobs without a target.
        targets: the number of jobs towards the classes with the largest clean logits.
        restarts: the number of last jobs, which start from the nearest point so far and have no target.
    """
    classes = y[:, None]
    if targets and ball.radius > 0:
        others = logits().scatter(1, y[:, None], float("-inf"))
        classes = torch.cat([classes, others.topk(min(targets, others.shape[1] - 1), dim=1).indices], dim=1)
    classes = torch.cat([classes, y[:, None].expand(-1, restarts)], dim=1)
    targeted = classes.shape[1] - 1 - restarts
    return MinimalSearch(
        x=x,
        y=y,
        ball=ball,
        streams=streams,
        rule=rule,
        loss=loss,
        start=lambda x, ball, streams: x,
        jobs=["run", *(f"target {t}" for t in range(targeted)), *(f"restart {r}" for r in range(restarts))],
        targets=classes,
        restarts=restarts,
    )
