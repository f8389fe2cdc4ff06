"""Anti-adversary: steps towards the predicted class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rlbench.core import Trait
from rlbench.core.registry import register
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, ascent, move, span
from rlbench.encoders.heads import ZeroShot


@register("defence", "anti-adversary")
@dataclass(frozen=True, kw_only=True)
class AntiAdversary(ClassifierDefence):
    """Moves an input by sign steps down the loss of its own predicted class, which hardly ever changes a prediction.

    Alfarra et al., 2022, https://arxiv.org/abs/2103.14347; two steps of 0.15, as in the evaluation of Croce et al.,
    2022, https://arxiv.org/abs/2202.13711, by the label-only attack RayS. The sign steps are from memory; the result
    is clamped to the box (assumed). Since its own prediction decides the move, it is attacked through the undefended
    classifier, and with the move as a constant.

    Attributes:
        step: length of a step, as a share of the box.
        steps: sign steps.
    """

    traits: ClassVar[frozenset[Trait]] = frozenset({"dynamic"})
    needs_gradient: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    step: float = 0.15
    steps: int = 2

    def predict(self, plain: ZeroShot, x: Tensor) -> Tensor:
        with torch.no_grad():
            own = plain.score(x).argmax(1)
        delta = torch.zeros_like(x).detach()
        for _ in range(self.steps):
            gradient = ascent(
                lambda at: -cross_entropy(plain.score(at), own, reduction="none"), move(x, delta, plain.box)
            )
            delta = delta + self.step * span(plain.box) * gradient.sign()
        return plain.score(move(x, delta, plain.box))
