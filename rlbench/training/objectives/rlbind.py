"""RLBind's second stage, as this project reads the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from rlbench.core.registry import register
from rlbench.training.objectives.terms import ce, check_not_negative, check_positive, kl, log_p, require, retention
from rlbench.training.types import Batch, Need


@register("objective", "rlbind")
@dataclass(frozen=True, kw_only=True)
class RLBind:
    """Alignment of clean and adversarial features with text anchors, and of class-wise distributions.

    This is this project's reading of RLBind's stage 2, 2025, https://arxiv.org/abs/2509.14383. The paper says in
    words that it pulls clean and adversarial features to a text anchor and aligns class-wise distributions across
    modalities; its equation, weights and code were not available. With p = p_tau, x' maximises every term with f':

        d(f, A_y) + adversarial d(f', A_y)                       alignment with the anchor of y
        + clean    KL(p_s(f) || p_s(f'))                         reference: the clean prediction
        + text     [KL(p(A_y) || p(f)) + KL(p(A_y) || p(f'))]/2  reference: the anchor's own row
        + means    [KL(p(m_y) || p(f)) + KL(p(m_y) || p(f'))]/2  reference: the class's mean over modalities
        + original [KL(q(f0) || q(f)) + KL(q(f0) || q(f'))]      reference: the frozen backbone, classes other than y
        + fused    [CE(n(f) + F) + adversarial CE(n(f') + F)]    F: the sum of the other modalities' n(f) of the scene

    Attributes:
        distance: d: "ce" over the anchors at s, "cosine" (s (1 - cos)), or "l2" (|f - A_y|^2, not normalised).
        adversarial: the weight of the adversarial alignment.
        clean: the weight of the KL to the clean prediction.
        text: the weight of the KLs to the distribution of the anchor.
        means: the weight of the KLs to the distribution of the class mean.
        original: the weight of the KLs to the frozen backbone's distribution.
        fused: the weight of the alignment of the sum over modalities, of examples that are paired.
        scale: s of the logits.
        tau: inverse temperature of the distributions of `text`, `means` and `original`.
    """

    distance: Literal["ce", "cosine", "l2"] = "ce"
    adversarial: float = 2.0
    clean: float = 2.0
    text: float = 0.0
    means: float = 0.0
    original: float = 1.0
    fused: float = 0.0
    scale: float = 20.0
    tau: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "scale", "tau")
        check_not_negative(self, "adversarial", "clean", "text", "means", "original", "fused")

    @property
    def needs(self) -> frozenset[Need]:
        needs: set[Need] = {"f", "f_adv"}
        if self.original:
            needs.add("f0")
        if self.means:
            needs.add("means")
        if self.fused:
            needs.add("peers")
        return frozenset(needs)

    def anchor_loss(self, f: Tensor, batch: Batch) -> Tensor:
        """Returns d(f, A_y), (B,)."""
        anchor = batch.anchors[batch.y]
        if self.distance == "ce":
            return ce(f, batch.anchors, batch.y, self.scale)
        if self.distance == "cosine":
            return self.scale * (1 - (normalize(f, dim=-1) * anchor).sum(1))
        return (f - anchor).square().sum(1)

    def fused_loss(self, f: Tensor, batch: Batch) -> Tensor:
        """Returns the cross-entropy (B,) of the sum of all modalities, at the scale of one of them."""
        z = self.scale * (normalize(f, dim=-1) + require(batch.peers)) @ batch.anchors.T
        return cross_entropy(z, batch.y, reduction="none")

    def distribution_loss(self, f: Tensor, batch: Batch) -> Tensor:
        """Returns the distributional terms that need only f: text, means, original, (B,)."""
        total = f.new_zeros(len(f))
        for weight, rows in ((self.text, batch.anchors), (self.means, batch.means)):
            if weight:
                reference = log_softmax(self.tau * require(rows)[batch.y] @ batch.anchors.T, dim=1)
                total = total + weight / 2 * kl(reference, log_p(f, batch.anchors, self.tau))
        if self.original:
            total = total + self.original * retention(f, require(batch.f0), batch, self.tau)
        return total

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """Sum of all terms."""
        total = self.anchor_loss(f, batch) + self.distribution_loss(f, batch) + self.adversary_loss(f_adv, f, batch)
        return total + self.fused * self.fused_loss(f, batch) if self.fused else total

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """Sum of the terms with f'."""
        total = self.adversarial * self.anchor_loss(f_adv, batch) + self.distribution_loss(f_adv, batch)
        if self.fused:
            total = total + self.fused * self.adversarial * self.fused_loss(f_adv, batch)
        if self.clean:
            p, p_adv = (log_p(g, batch.anchors, self.scale) for g in (f, f_adv))
            total = total + self.clean * kl(p, p_adv)
        return total
