"""TeCoA: adversarial training against the class anchors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import ce, check_not_negative, check_positive, require, retention
from rlbench.training.types import Batch, Need


@register("objective", "tecoa")
@dataclass(frozen=True, kw_only=True)
class TeCoA:
    """Cross-entropy of adversarial examples over the class anchors.

    CE(p_s(f(x')), y), x' maximises it: Mao et al., 2023, https://arxiv.org/abs/2212.07016. Not in the paper:
    `distil` adds KL(q(f0) || q(f')) over the classes other than y, to measure what that term alone gives RLBind.

    Attributes:
        scale: s of the logits; 100 in the paper.
        distil: the weight of the KL to the original's distribution over the other classes.
        tau: the inverse temperature of that distribution.
    """

    scale: float = 20.0
    distil: float = 0.0
    tau: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "scale", "tau")
        check_not_negative(self, "distil")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "f0"} if self.distil else {"f_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """CE(f') + distil KL(q(f0) || q(f'))."""
        loss = ce(f_adv, batch.anchors, batch.y, self.scale)
        return loss + self.distil * retention(f_adv, require(batch.f0), batch, self.tau) if self.distil else loss

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """CE(f')."""
        return ce(f_adv, batch.anchors, batch.y, self.scale)
