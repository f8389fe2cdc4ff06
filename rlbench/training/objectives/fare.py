"""FARE: embeddings stay where the original has them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import require
from rlbench.training.types import Batch, Need


@register("objective", "fare")
@dataclass(frozen=True, kw_only=True)
class FARE:
    """Adversarial embeddings at the original's clean ones, without labels; also RLBind's stage 1.

    |f(x') - f0(x)|^2, features not normalised, x' raising it: Schlarmann et al., 2024,
    https://arxiv.org/abs/2402.12336, equation 3.
    """

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "f0"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """|f' - f0|^2."""
        return (f_adv - require(batch.f0)).square().sum(1)

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """|f' - f0|^2."""
        return self.loss(f, f_adv, batch)
