"""PMG-AFT: adversarial training guided by the original's predictions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import ce, check_not_negative, check_positive, kl, log_p, require
from rlbench.training.types import Batch, Need


@register("objective", "pmg-aft")
@dataclass(frozen=True, kw_only=True)
class PMGAFT:
    """TeCoA plus KLs from adversarial predictions to the original's and to the clean ones.

    CE(p(x'), y) + general KL(p(x') || p0(x')) + clean KL(p(x') || p(x)), x' maximises the CE: Wang et al., 2024,
    https://arxiv.org/abs/2401.04350. p0 is the frozen original's prediction, on the same x'.

    Attributes:
        scale: s of the logits; 100 in the paper.
        general: the weight of the KL to the original; 1 in the paper.
        clean: the weight of the KL to the clean prediction; 1 in the paper.
    """

    scale: float = 20.0
    general: float = 1.0
    clean: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")
        check_not_negative(self, "general", "clean")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f", "f_adv", "f0_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """CE(f') + general KL(p(f') || p(f0')) + clean KL(p(f') || p(f))."""
        p, p_adv, p0_adv = (log_p(g, batch.anchors, self.scale) for g in (f, f_adv, require(batch.f0_adv)))
        guided = self.general * kl(p_adv, p0_adv) + self.clean * kl(p_adv, p)
        return self.adversary_loss(f_adv, f, batch) + guided

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """CE(f')."""
        return ce(f_adv, batch.anchors, batch.y, self.scale)
