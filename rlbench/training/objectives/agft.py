"""AGFT: fine-tuning to the original's softened class distribution."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import check_positive, log_p, require
from rlbench.training.types import Batch, Need


@register("objective", "agft")
@dataclass(frozen=True, kw_only=True)
class AGFT:
    """Cross-entropy of adversarial predictions to the original's softened class distribution; no labels.

    -sum_c t_c log p_s(f(x'))_c with t = softmax(soften s n(f0) A^T), x' maximises it: AGFT, 2026,
    https://arxiv.org/abs/2603.29410.

    Attributes:
        scale: s of the logits; 180 in the paper, for CLIP's scale of 100.
        soften: factor of s in the target; 0.4 in the paper.
    """

    scale: float = 36.0
    soften: float = 0.4

    def __post_init__(self) -> None:
        check_positive(self, "scale", "soften")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "f0"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """Soft cross-entropy of p(f') against t."""
        target = log_p(require(batch.f0), batch.anchors, self.soften * self.scale).exp()
        return -(target * log_p(f_adv, batch.anchors, self.scale)).sum(1)

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """Soft cross-entropy of p(f') against t."""
        return self.loss(f, f_adv, batch)
