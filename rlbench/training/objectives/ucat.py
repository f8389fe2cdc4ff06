"""UCAT: adversarial training that keeps the original's certainty as a Dirichlet distribution."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from torch import Tensor

from rlbench.core.registry import register
from rlbench.training.objectives.terms import ce, check_not_negative, check_positive, logits, require
from rlbench.training.types import Batch, Need


def dirichlet_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(Dir(a) || Dir(b)) per row of concentrations above 0: (B, C), (B, C) -> (B,), in float64."""
    a, b = a.double(), b.double()
    a0, b0 = a.sum(1), b.sum(1)
    normalisers = a0.lgamma() - b0.lgamma() - (a.lgamma() - b.lgamma()).sum(1)
    return normalisers + ((a - b) * (a.digamma() - a0.digamma()[:, None])).sum(1)


@register("objective", "ucat")
@dataclass(frozen=True, kw_only=True)
class UCAT:
    """TeCoA plus the KL from adversarial class concentrations to the original's clean ones.

    CE(p_s(x'), y) + dirichlet / (1 + e^{2 tau}) KL(Dir(a(f')) || Dir(a(f0))) with a(f) = exp(tau (n(f) A^T + 1)), whose
    largest value is e^{2 tau}; x' maximises the CE: Lu et al., 2025, https://arxiv.org/abs/2512.12997. Their code
    compares with the frozen original on clean inputs, and so does this; the paper itself was not available. The default
    weight and tau are this project's choice, and not tuned: concentrations of the published tau reach 10^12.

    Attributes:
        scale: s of the logits; 100 in the paper.
        dirichlet: the weight of the KL; 1e5 in the code, for the cosines of CLIP, which are 0.1 to 0.3.
        tau: the inverse temperature of the concentrations; 1 / 0.07 in the code.
    """

    scale: float = 20.0
    dirichlet: float = 10.0
    tau: float = 5.0

    def __post_init__(self) -> None:
        check_positive(self, "scale", "tau")
        check_not_negative(self, "dirichlet")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "f0"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """CE(f') + dirichlet / (1 + e^{2 tau}) KL(Dir(a(f')) || Dir(a(f0)))."""
        a, a0 = (self.concentrations(g, batch) for g in (f_adv, require(batch.f0)))
        kl = self.dirichlet / (1 + exp(2 * self.tau)) * dirichlet_kl(a, a0)
        return self.adversary_loss(f_adv, f, batch) + kl.to(f_adv.dtype)

    def concentrations(self, f: Tensor, batch: Batch) -> Tensor:
        """exp(tau (n(f) A^T + 1)) -> (B, C)."""
        return (logits(f.double(), batch.anchors.double(), self.tau) + self.tau).exp()

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """CE(f')."""
        return ce(f_adv, batch.anchors, batch.y, self.scale)
