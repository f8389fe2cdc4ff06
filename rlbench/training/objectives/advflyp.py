"""AdvFLYP: adversarial fine-tuning with the loss of pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import (
    check_not_negative,
    check_positive,
    infonce,
    kl,
    log_p,
    require,
    squared_distance,
)
from rlbench.training.types import Batch, Need


@register("objective", "advflyp")
@dataclass(frozen=True, kw_only=True)
class AdvFLYP:
    """InfoNCE of adversarial examples to captions, regularised towards the original and the clean features.

    InfoNCE(x') + features [d(f', f0') + d(f', f)] + predictions [KL(p(f0') || p(f')) + KL(p(f) || p(f'))] with
    d(a, b) = |n(a) - n(b)|^2; x' maximises the InfoNCE: AdvFLYP, 2026, https://arxiv.org/abs/2604.11576. The weights
    and the directions of the KLs are this project's choice.

    Attributes:
        scale: s of the logits.
        features: the weight of the regulariser of features, for clean accuracy.
        predictions: the weight of the regulariser of predictions, for robustness.
    """

    scale: float = 20.0
    features: float = 1.0
    predictions: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")
        check_not_negative(self, "features", "predictions")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f", "f_adv", "f0_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """InfoNCE(f') + features [d(f', f0') + d(f', f)] + predictions [KL(p(f0') || p(f')) + KL(p(f) || p(f'))]."""
        f0_adv = require(batch.f0_adv)
        p, p_adv, p0_adv = (log_p(g, batch.anchors, self.scale) for g in (f, f_adv, f0_adv))
        near = self.features * (squared_distance(f_adv, f0_adv) + squared_distance(f_adv, f))
        alike = self.predictions * (kl(p0_adv, p_adv) + kl(p, p_adv))
        return self.adversary_loss(f_adv, f, batch) + near + alike

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """InfoNCE(f')."""
        return infonce(f_adv, batch, self.scale)
