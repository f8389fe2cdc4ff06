"""Fast minimum-norm attack: the smallest eps that breaks each example, in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.search.minimal import MinimalSearch, search_nearest
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.rules import amplify
from rlbench.attacks.search.state import Jobs, Rowwise
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import USUAL, per_row, rows_norm

DUAL: dict[Norm, float] = {"linf": 1, "l2": 2}  # the order of the dual norm


@dataclass(eq=False)
class Memory(Rowwise):
    """What FMN remembers of each of B jobs.

    Attributes:
        eps: (B,) radius of the current ball; infinite at first.
        nearest: (B,) norm of the smallest adversarial perturbation; infinite until one is found.
    """

    eps: Tensor
    nearest: Tensor


@register("attack", "fmn")
@dataclass(frozen=True, kw_only=True)
class FMN:
    """Fast minimum-norm attack: gradient steps in a ball whose radius adapts until it touches the boundary.

    Pintor et al., 2021, https://arxiv.org/abs/2102.12827, algorithm 1. One run gives the smallest eps of each example,
    so a suite with several eps pays for one. Compared with the closed form of affine classifiers; alpha and gamma are
    from memory of the authors' and adversarial-library's defaults, not read again. Different from the paper: a point
    is adversarial if its margin is below what another batch may change, the run without a target follows the gradient
    of the cross-entropy instead of the margin, and the starting point is one that the attack's own runs found.

    Attributes:
        steps: iterations.
        alpha: length of the first step in L2, for a box of range 1; the last one is a hundredth of it. In Linf, that of
            a part of 1,024 coordinates: a ball of given eps is longer in L2 the more coordinates there are.
        gamma: share by which the radius grows or shrinks at first; 0.001 at last.
        targets: further runs, each towards the boundary of one of the wrong classes with the largest clean logits.
        restarts: last runs, from the nearest point so far.
    """

    steps: int = 100
    alpha: float = 1.0
    gamma: float = 0.05
    targets: int = 3
    restarts: int = 1
    norms: ClassVar[frozenset[Norm]] = USUAL
    min_classes: ClassVar[int] = 2
    leaves_ball: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise FieldError(f"fmn: steps is {self.steps}; it must be at least 1")
        for name, value in (("targets", self.targets), ("restarts", self.restarts)):
            if value < 0:
                raise FieldError(f"fmn: {name} is {value}; it must be at least 0")
        if not self.alpha > 0:
            raise FieldError(f"fmn: alpha is {self.alpha}; it must be above 0")
        if not 0 < self.gamma < 1:
            raise FieldError(f"fmn: gamma is {self.gamma}; it must be between 0 and 1")

    def loss_used(self, n_classes: int) -> str:
        """The functions that are ascended."""
        return "ce+margin-targeted" if self.targets else "ce"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example; a run's last point has no gradient."""
        runs = 1 + min(self.targets, n_classes - 1) + self.restarts
        return (self.targets > 0) + runs * (self.steps + 1), runs * self.steps

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> Memory:
        """The memory of new jobs."""
        unknown = x.new_full((len(x),), float("inf"))
        return Memory(eps=unknown, nearest=unknown)

    def advance(self, jobs: Jobs[Memory], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """Algorithm 1: adapts the radius eps, steps along the gradient g, and projects to the new ball and the box."""
        m, x, g = jobs.memory, jobs.x, gradient
        cosine = (1 + (pi * jobs.steps / self.steps).cos().to(x)) / 2
        longer = (x[0].numel() / 1024) ** 0.5 if ball.norm == "linf" else 1.0
        alpha = (ball.high - ball.low) * self.alpha * longer * (0.01 + 0.99 * cosine)
        gamma = 0.001 + (self.gamma - 0.001) * cosine
        delta = jobs.x_adv - x
        far, adversarial = rows_norm(delta, ball.norm), loss > 0
        m.nearest = torch.where(adversarial, torch.minimum(m.nearest, far), m.nearest)
        reach = far + loss.abs() / g.flatten(1).norm(p=DUAL[ball.norm], dim=1).clamp_min(1e-12)
        grown = torch.where(m.nearest.isfinite(), m.eps * (1 + gamma), reach)
        m.eps = torch.where(adversarial, torch.minimum(m.eps * (1 - gamma), m.nearest), grown)
        g = amplify(g)
        step = per_row(alpha, g) * g / per_row(rows_norm(g, "l2"), g).clamp_min(1e-12)
        jobs.x_adv = (x + _shrink(delta + step, m.eps, ball.norm)).clamp(ball.low, ball.high)

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> MinimalSearch:
        """The attack's jobs, for the pool."""
        return search_nearest(
            self, x, y, ball, streams, logits, loss="ce", targets=self.targets, restarts=self.restarts
        )

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))


def _shrink(delta: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """Projects (B, *shape) to the norm balls of radius eps (B,) about 0."""
    radius = per_row(eps, delta)
    if norm == "linf":
        return torch.maximum(torch.minimum(delta, radius), -radius)
    return delta * (radius / per_row(rows_norm(delta, "l2"), delta).clamp_min(1e-20)).clamp_max(1.0)
