"""Projected gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.rules import Start, direction, project_jobs
from rlbench.attacks.search.state import Jobs
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import project, sample


@register("attack", "pgd")
@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent with a random start; the best point by margin is kept.

    Madry et al., 2018, https://arxiv.org/abs/1706.06083. L2 steps along the normalised gradient.

    Attributes:
        steps: gradient steps of a run.
        rel_step: length of a step as a share of eps, above 0 and at most 2; None: 2.5 / steps.
        restarts: runs from fresh random starts, uniform in the ball.
        loss: "ce" or "margin".
    """

    steps: int = 20
    rel_step: float | None = None
    restarts: int = 1
    loss: Literal["ce", "margin"] = "ce"
    min_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            if value < 1:
                raise FieldError(f"pgd: {name} is {value}; it must be at least 1")
        if self.rel_step is not None and not 0 < self.rel_step <= 2:
            raise FieldError(f"pgd: rel_step is {self.rel_step}; it is a share of eps, above 0 and at most 2")

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended with this number of classes."""
        return self.loss

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> None:
        """PGD has no memory."""

    def advance(self, jobs: Jobs[None], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """One step and its projection."""
        step = ball.radius * (self.rel_step or 2.5 / self.steps)
        jobs.x_adv = project_jobs(jobs.x_adv + step * direction(gradient, ball), jobs, ball)

    def search(
        self,
        x: Tensor,
        y: Tensor,
        ball: Ball,
        streams: Streams,
        logits: Callable[[], Tensor],
        *,
        start: Start = sample,
    ) -> Search:
        """The attack's jobs, for the pool; `start` gives each run's first point."""
        jobs = [f"restart {r}" for r in range(self.restarts)]
        return Search(
            x=x,
            y=y,
            ball=ball,
            streams=streams,
            rule=self,
            loss=self.loss,
            start=start,
            jobs=jobs,
            targets=y[:, None].expand(-1, len(jobs)),
        )

    def __call__(
        self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams, *, start: Start = sample
    ) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x), start=start))


def ascend(
    loss: Callable[[Tensor], Tensor],
    x: Tensor,
    ball: Ball,
    start: Tensor,
    *,
    steps: int,
    step: float,
    momentum: float = 0.0,
) -> Tensor:
    """Projected ascent of any loss per example, for adversarial training; returns the last iterate.

    Madry et al., 2018, https://arxiv.org/abs/1706.06083.

    Args:
        loss: (B, *shape) -> (B,), differentiable in its argument.
        x: (B, *shape) in the box, the centres of the balls.
        ball: the ball around each example.
        start: the first iterate, in the balls.
        steps: number of gradient steps.
        step: length of a step in the ball's norm, in box units.
        momentum: weight of the last direction, which is added to the gradient's, as in FARE's adversary.

    Returns:
        (B, *shape) in the balls, without a graph.
    """
    x_adv, velocity = start.detach(), torch.zeros_like(start)
    for _ in range(steps):
        x_adv = x_adv.requires_grad_()
        with torch.enable_grad():
            gradient = torch.autograd.grad(loss(x_adv).sum(), x_adv)[0]
        velocity = direction(momentum * velocity + direction(gradient, ball), ball)
        x_adv = project(x_adv.detach() + step * velocity, x, ball)
    return x_adv
