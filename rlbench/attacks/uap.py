"""A universal perturbation: one for all inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from rlbench.attacks.search.pool import clean_logits
from rlbench.attacks.search.rules import direction
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import AttackError, FieldError
from rlbench.core.registry import register
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import project

CHUNK = 32  # the most examples of a pass, so that the sums of gradients don't depend on the batch size above it


@register("attack", "uap")
@dataclass(frozen=True, kw_only=True)
class UAP:
    """One perturbation for all inputs, made on other examples by gradient ascent on their mean loss.

    Moosavi-Dezfooli et al., 2017, https://arxiv.org/abs/1610.08401; by steps along the sign of the mean gradient as
    Shafahi et al., 2020, https://arxiv.org/abs/1811.11304 (from memory), but over all examples in every step. Their
    clipped cross-entropy depends on the scale of the logits; here the loss is softplus(-m / t), with the margin m and
    the mean size t of the clean margins: broken examples weigh most, so that the steps do not turn back. Of all steps'
    perturbations, the one that breaks the most of its examples counts. In a suite, these are from the validation split
    (or else from training), and the perturbation is the same for every test example, but for the clamp to the box.
    Outside suites, it is made on the attacked examples themselves. Compared with the closed form of affine classifiers
    of two classes: eps times the dual direction.

    Attributes:
        examples: of the other split, on which the perturbation is made in a suite.
        steps: gradient steps, whose length falls from eps to 0.
    """

    examples: int = 100
    steps: int = 50
    universal: ClassVar[bool] = True
    min_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, value in (("examples", self.examples), ("steps", self.steps)):
            if value < 1:
                raise FieldError(f"uap: {name} is {value}; it must be at least 1")

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended."""
        return "softplus margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example on which the perturbation is made."""
        return self.steps + 2, self.steps

    def make(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """Makes the perturbation.

        Args:
            classifier: of the examples.
            x: (B, *shape) in the box.
            y: (B,) int64 labels.
            ball: the ball around each example.

        Returns:
            (*shape), of a norm up to the ball's radius; zeros without examples.

        Raises: AttackError: a gradient is not finite.
        """
        delta = best = x.new_zeros(1, *x.shape[1:])
        if ball.radius == 0 or not len(x):
            return best[0]
        around = replace(ball, low=-ball.radius, high=ball.radius)
        scale = margin(clean_logits(classifier, x), y).double().abs().mean().clamp_min(1e-12)
        most: tuple[int, float] | None = None
        for step in range(self.steps + 1):
            broken, loss, gradient = _sum_up(classifier, x, y, project(x + delta, x, ball), scale, step < self.steps)
            if most is None or (broken, loss) > most:
                most, best = (broken, loss), delta
            length = ball.radius * (1 + cos(pi * step / self.steps)) / 2
            delta = project(delta + length * direction(gradient, ball), torch.zeros_like(delta), around)
        return best[0]

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return project(x + self.make(classifier, x, y, ball), x, ball) if len(x) else x


def _sum_up(
    classifier: Classifier, x: Tensor, y: Tensor, points: Tensor, scale: Tensor, differentiate: bool
) -> tuple[int, float, Tensor]:
    """The number of broken examples, the sum of their losses, and its gradient (1, *shape), with largest value 1."""
    broken, loss, total = 0, 0.0, torch.zeros_like(x[:1], dtype=torch.float64)
    for rows in torch.split(torch.arange(len(x)), min(classifier.batch_size, CHUNK)):
        at = rows.to(x.device)
        point = points[at].requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate):
            m = margin(classifier(point, rows=rows), y[at]).double()
            each = softplus(-m / scale)
        if differentiate:
            total += torch.autograd.grad(each.sum(), point)[0].double().sum(0, keepdim=True)
        broken, loss = broken + int((m <= 0).sum()), loss + float(each.detach().sum())
    if not total.isfinite().all():
        raise AttackError("the classifier's gradient is not finite")
    return broken, loss, (total / total.abs().amax().clamp_min(1e-300)).to(x)
