"""Sigma-zero: the fewest pixels or bins that break each example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.search.minimal import MinimalSearch, search_nearest
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.attacks.search.state import Jobs, Rowwise
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.errors import FieldError
from rlbench.core.positions import change, spread
from rlbench.core.registry import register
from rlbench.core.threat import per_row, rows_norm

BETA = (0.9, 0.999)  # of Adam


@dataclass(eq=False)
class Memory(Rowwise):
    """What sigma-zero remembers of each of B jobs.

    Attributes:
        mean: (B, *shape) Adam's mean of the gradients.
        square: (B, *shape) Adam's mean of their squares.
        threshold: (B,) a position that changes by less, for a box of range 1, is reset.
    """

    mean: Tensor
    square: Tensor
    threshold: Tensor


@register("attack", "sigma-zero")
@dataclass(frozen=True, kw_only=True)
class SigmaZero:
    """Sigma-zero: Adam on the margin and a smooth L0 norm; small changes are reset, by a threshold that adapts.

    Cina et al., 2024, https://arxiv.org/abs/2402.01879, algorithm 1 with the default constants of the authors' code.
    One run gives the fewest positions of each example, so a suite with several counts pays for one. Compared with the
    closed form of affine classifiers. Different from the paper: a pixel counts once, with all its channels, so the
    smooth norm takes the sum of its squared changes, and the threshold the largest of them.

    Attributes:
        steps: iterations.
        step: Adam's first step, for a box of range 1; the last one is a tenth of it.
        sigma: of the smooth norm: mean d^2 / (d^2 + sigma).
        threshold: the first threshold.
        change: by which the threshold moves, times the current step.
    """

    steps: int = 300
    step: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    change: float = 0.01
    norms: ClassVar[frozenset[Norm]] = frozenset({"l0"})
    min_classes: ClassVar[int] = 2
    leaves_ball: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise FieldError(f"sigma-zero: steps is {self.steps}; it must be at least 1")
        for name, value in (("step", self.step), ("sigma", self.sigma), ("change", self.change)):
            if not value > 0:
                raise FieldError(f"sigma-zero: {name} is {value}; it must be above 0")
        if not 0 <= self.threshold <= 1:
            raise FieldError(f"sigma-zero: threshold is {self.threshold}; it must be between 0 and 1")

    def loss_used(self, n_classes: int) -> str:
        """The function that is ascended."""
        return "margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example; its last point has no gradient."""
        return self.steps + 1, self.steps

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> Memory:
        """The memory of new jobs."""
        return Memory(torch.zeros_like(x), torch.zeros_like(x), x.new_full((len(x),), self.threshold))

    def advance(self, jobs: Jobs[Memory], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """Algorithm 1 on delta, for a box of range 1: a step of Adam, the box, the threshold."""
        m, x, span = jobs.memory, jobs.x, ball.high - ball.low
        delta, adversarial = (jobs.x_adv - x) / span, loss > 0
        descent = -gradient.where(per_row(~adversarial, gradient), 0.0) * span + self._slope(delta)
        descent = descent / per_row(rows_norm(descent, "linf"), descent).clamp_min(1e-12)
        rate = self.step * (0.1 + 0.9 * (1 + (pi * jobs.steps / self.steps).cos().to(x)) / 2)
        delta = delta - per_row(rate, x) * _adam(m, descent, jobs.steps)
        delta = ((x + span * delta).clamp(ball.low, ball.high) - x) / span
        m.threshold = (m.threshold + torch.where(adversarial, 1.0, -1.0) * self.change * rate).clamp(0.0, 1.0)
        kept = spread(change(delta) >= m.threshold[:, None], delta)
        jobs.x_adv = (x + span * delta).clamp(ball.low, ball.high).where(kept, x)

    def _slope(self, delta: Tensor) -> Tensor:
        """(B, *shape) the gradient of the smooth L0 norm, eq. 5: the mean over positions of d^2 / (d^2 + sigma)."""
        square = delta.square().sum(1, keepdim=True) if delta.dim() > 2 else delta.square()
        return 2 * self.sigma * delta / (square + self.sigma).square() / square[0].numel()

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> MinimalSearch:
        """The attack's jobs, for the pool."""
        return search_nearest(self, x, y, ball, streams, logits)

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return run_alone(classifier, self.search(x, y, ball, streams, lambda: clean_logits(classifier, x)))


def _adam(m: Memory, gradient: Tensor, steps: Tensor) -> Tensor:
    """(B, *shape) Adam's direction after this gradient (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980)."""
    m.mean = BETA[0] * m.mean + (1 - BETA[0]) * gradient
    m.square = BETA[1] * m.square + (1 - BETA[1]) * gradient.square()
    first, second = (per_row(1 - beta ** (steps + 1).to(gradient), gradient) for beta in BETA)
    return m.mean / first / ((m.square / second).sqrt() + 1e-8)
