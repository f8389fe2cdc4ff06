"""Auto conjugate gradient: Auto-PGD's schedule of steps along conjugate directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD, Memory, surface
from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.rules import direction, project_jobs
from rlbench.attacks.search.state import Jobs
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import per_row, rows_norm

VANISHED = 1e-3  # a direction shorter than this share of the gradient is rounding


@register("attack", "acg")
@dataclass(frozen=True, kw_only=True)
class ACG:
    """Auto conjugate gradient on the margin: a rival of Auto-PGD that reaches other optima.

    Yamamura et al., 2022, https://arxiv.org/abs/2206.09628; the update as in the authors' code. Compared with the
    closed form of affine classifiers. Different from the original: after a return to the best point, and where the
    direction vanishes since all gradients are parallel, it is the gradient; L2 steps along the normalised direction.

    Attributes:
        steps: iterations of a run.
        restarts: runs from fresh random starts.
        rho: the step is halved unless this share of an interval's steps raised the loss.
    """

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    min_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            if value < 1:
                raise FieldError(f"acg: {name} is {value}; it must be at least 1")
        if not 0 < self.rho < 1:
            raise FieldError(f"acg: rho is {self.rho}; it must be between 0 and 1")

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended."""
        return "margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example; a run's last point has no gradient."""
        return self.restarts * (self.steps + 1), self.restarts * self.steps

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> Search:
        """The attack's jobs, for the pool."""
        jobs = [f"restart {r}" for r in range(self.restarts)]
        return Search(
            x=x,
            y=y,
            ball=ball,
            streams=streams,
            rule=_Conjugate(steps=self.steps, rho=self.rho),
            loss="margin",
            start=surface,
            jobs=jobs,
            targets=y[:, None].expand(-1, len(jobs)),
        )

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))


@dataclass(eq=False)
class Directions(Memory):
    """What ACG remembers of each of B jobs, besides what Auto-PGD does.

    Attributes:
        gradient: (B, *shape) the gradient of the step before.
        along: (B, *shape) its direction s.
    """

    gradient: Tensor
    along: Tensor


@dataclass(frozen=True, kw_only=True)
class _Conjugate(APGD):
    """The rule of ACG's jobs."""

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> Directions:
        """The memory of new jobs that start at x_adv."""
        memory = vars(super().begin(x, x_adv, ball))
        return Directions(**memory, gradient=torch.zeros_like(x), along=torch.zeros_like(x))

    def advance(self, jobs: Jobs[Memory], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """Algorithm 1: s = g + beta s with Hestenes and Stiefel's beta, then a step along s; s = g after a return."""
        m, here = jobs.memory, jobs.x_adv
        assert isinstance(m, Directions)
        s = gradient + per_row(_beta(gradient, m), gradient) * m.along
        gradient = self.remember(jobs, loss, gradient)
        vanished = rows_norm(s, "l2") < VANISHED * rows_norm(gradient, "l2")
        returned = vanished | (jobs.x_adv != here).flatten(1).any(1)
        m.along = torch.where(per_row(returned, s), gradient, s)
        m.gradient = gradient
        jobs.x_adv = project_jobs(jobs.x_adv + per_row(m.step, s) * direction(m.along, ball), jobs, ball)


def _beta(gradient: Tensor, m: Directions) -> Tensor:
    """(B,) beta = <-g, y> / <s, y>, where y = g_old - g; 0 in the first step.

    Hestenes & Stiefel, 1952, https://doi.org/10.6028/jres.049.044.
    """
    y = (m.gradient - gradient).flatten(1)
    above, below = -(gradient.flatten(1) * y).sum(1), (m.along.flatten(1) * y).sum(1)
    return torch.where(below != 0, above / below.where(below != 0, 1.0), 0.0)
