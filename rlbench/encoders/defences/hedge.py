"""Hedge: an attack on every class at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Way, ascent, move, span
from rlbench.encoders.heads import ZeroShot

ATTACKED = 5  # inner steps while it is attacked: Croce et al., 2022


@register("defence", "hedge")
@dataclass(frozen=True, kw_only=True)
class Hedge(ClassifierDefence):
    """Moves an input up the sum of its cross-entropies to all classes, so that false classes lose more than the true.

    Wu et al., 2021, https://arxiv.org/abs/2106.04938; steps and radius as in the evaluation by Croce et al., 2022,
    https://arxiv.org/abs/2202.13711, which found no robustness beyond the static classifier's. The start is the input
    itself (assumed). Attacked with fewer steps and the move as a constant, as there: the sign has no derivative.

    Attributes:
        eps: radius of the move (Linf), as a share of the box.
        step: length of a step, as a share of the box.
        steps: sign steps.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"dynamic"})
    needs_gradient: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    eps: float = 8 / 255
    step: float = 4 / 255
    steps: int = 20

    def predict(self, plain: ZeroShot, x: Tensor) -> Tensor:
        radius, step = self.eps * span(plain.box), self.step * span(plain.box)
        delta = torch.zeros_like(x).detach()
        for _ in range(self.steps):
            gradient = ascent(lambda at: -plain.score(at).log_softmax(1).sum(1), move(x, delta, plain.box))
            delta = (delta + step * gradient.sign()).clamp(-radius, radius)
        return plain.score(move(x, delta, plain.box))

    def ways(self) -> tuple[Way, ...]:
        return super(Hedge, replace(self, steps=min(self.steps, ATTACKED))).ways()
