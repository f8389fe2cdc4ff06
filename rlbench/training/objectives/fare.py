"""FARE: adversarial embeddings stay close to the original's clean ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import require
from rlbench.training.types import Batch, Need


@register("objective", "fare")
@dataclass(frozen=True, kw_only=True)
class FARE:
    """Squared distance of adversarial embeddings to the original's clean ones; no labels. Also RLBind's stage 1.

    |f(x') - f0(x)|^2, features not normalised, x' maximises it: Schlarmann et al., 2024,
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
