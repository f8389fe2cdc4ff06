"""ET3: gradient steps that lower the input's energy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import ClassVar

from torch import Tensor

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.core.threat import per_row
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Way, ascent, hold_nothing, span
from rlbench.encoders.heads import ZeroShot

PAPER = 3 * 224 * 224  # coordinates of the paper's inputs


@register("defence", "et3")
@dataclass(frozen=True, kw_only=True)
class EnergyDescent(ClassifierDefence):
    """Moves an input by L2 steps down the energy E = -logsumexp of its logits, that is up its confidence.

    ET3, https://arxiv.org/abs/2603.26984, known from a summary only: two steps in a ball of radius 5 (TeCoA) or 4
    (FARE) at 224 pixels; the paper's labels are 21,000 names. Here they are the task's classes, the radius shrinks with
    the square root of the number of coordinates, and a step is half the radius (assumed). It is deterministic and
    smooth, so it is attacked through the double backward too.

    Attributes:
        radius: of the L2 ball at 3 x 224 x 224, in units of the box.
        steps: gradient steps.
        unroll: whether the steps are differentiated too; its values are the same.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"dynamic"})
    needs_gradient: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    radius: float = 5.0
    steps: int = 2
    unroll: bool = False

    def predict(self, plain: ZeroShot, x: Tensor) -> Tensor:
        box = plain.box
        radius = self.radius * span(box) * sqrt(prod(x.shape[1:]) / PAPER)
        at = x
        for _ in range(self.steps):
            gradient = ascent(lambda at: plain.score(at).logsumexp(1), at, unroll=self.unroll)
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-20)
            delta = at - x + radius / self.steps * gradient / per_row(length, x)
            size = delta.flatten(1).norm(dim=1).clamp_min(radius)
            at = (x + delta * per_row(radius / size, x)).clamp(box.low, box.high)
        return plain.score(at if self.unroll else x + (at - x).detach())

    def ways(self) -> tuple[Way, ...]:
        unrolled = replace(self, unroll=True)
        return (*super().ways(), Way("unrolled", lambda plain, x: hold_nothing(unrolled.predict(plain, x))))
