"""Distillation of the original's class distribution: the loss of replayed examples, which have no labels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import check_positive, kl, log_p, require
from rlbench.training.types import Batch, Need


@register("objective", "distribution")
@dataclass(frozen=True, kw_only=True)
class Distribution:
    """KL from the original's class distribution to those of clean and adversarial examples; no labels.

    KL(p(f0) || p(f)) + KL(p(f0) || p(f')) with p = p_tau, x' maximises the second. Distillation as in Hinton et al.,
    2015, https://arxiv.org/abs/1503.02531.

    Attributes:
        tau: inverse temperature.
    """

    tau: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "tau")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f", "f_adv", "f0"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """KL(p(f0) || p(f)) + KL(p(f0) || p(f'))."""
        return self.adversary_loss(f, f, batch) + self.adversary_loss(f_adv, f, batch)

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """KL(p(f0) || p(f'))."""
        return kl(log_p(require(batch.f0), batch.anchors, self.tau), log_p(f_adv, batch.anchors, self.tau))
