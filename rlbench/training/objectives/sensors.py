"""Terms across modalities that are trained together, which a recipe's `extras` add to any objective.

All take the adversarial features f' of the other modalities, as they were at the last step; they add no pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from rlbench.core.registry import register
from rlbench.training.objectives.terms import check_positive, kl, log_p, logits, require
from rlbench.training.types import Batch, Need


class _Term(ABC):
    """A term of f', which its adversary raises as it is."""

    @abstractmethod
    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """The term (B,)."""

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """The loss."""
        return self.loss(f, f_adv, batch)


@register("objective", "prototypes")
@dataclass(frozen=True, kw_only=True)
class Prototypes(_Term):
    """Cross-entropy over the class anchors and the class prototypes of all modalities.

    -log sum_{r in {A_y, P_y}} p(r) with p = softmax of s n(f') r over the 2 C rows A_c and P_c = n(A_c + m'_c). m'_c is
    the class's mean adversarial feature over modalities. This project's own term.

    Attributes:
        scale: s of the logits.
    """

    scale: float = 20.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "means_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """-log of the share of the rows of y."""
        prototypes = normalize(batch.anchors + require(batch.means_adv), dim=-1)
        both = torch.stack([logits(f_adv, rows, self.scale) for rows in (batch.anchors, prototypes)])
        z = both.logsumexp(0)
        return z.logsumexp(1) - z.gather(1, batch.y[:, None]).squeeze(1)


@register("objective", "teacher")
@dataclass(frozen=True, kw_only=True)
class Teacher(_Term):
    """KL from the class's adversarial distribution over all modalities: robust sensors teach weak ones.

    KL(p(m'_y) || p(f')) with p = p_tau. m'_y is the class's mean adversarial feature over modalities, in which a
    modality with scattered features counts less. This project's own term, after multi-modal adversarial distillation
    (https://arxiv.org/abs/2511.17448).

    Attributes:
        tau: inverse temperature.
    """

    tau: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "tau")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "means_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """KL(p(m'_y) || p(f'))."""
        target = log_p(require(batch.means_adv)[batch.y], batch.anchors, self.tau)
        return kl(target, log_p(f_adv, batch.anchors, self.tau))


@register("objective", "joint")
@dataclass(frozen=True, kw_only=True)
class Joint(_Term):
    """Cross-entropy of the sum of the adversarial features of all modalities, each attacked on its own.

    -log softmax(s (n(f') + sum_m r_m) A^T)_y, r_m the unit adversarial feature of the scene in modality m. This
    project's own term.

    Attributes:
        scale: s; the sum of four modalities saturates at the scale of one.
    """

    scale: float = 5.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "peers_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """-log softmax(s (n(f') + sum_m r_m) A^T)_y."""
        fused = normalize(f_adv, dim=-1) + require(batch.peers_adv).sum(0)
        return cross_entropy(self.scale * fused @ batch.anchors.T, batch.y, reduction="none")


@register("objective", "negatives")
@dataclass(frozen=True, kw_only=True)
class Negatives(_Term):
    """InfoNCE of adversarial features against those of the same scenes in the other modalities.

    The mean over positives r of -log p(r), p = softmax of s n(f') r over the adversarial features r of the batch's
    scenes in all other modalities; those of the same class are positives (Khosla et al., 2020,
    https://arxiv.org/abs/2004.11362). 0 while no positive is known. This project's own term.

    Attributes:
        scale: s of the logits.
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f_adv", "peers_adv"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """InfoNCE of f' to (M, B, D) rows of the other modalities; rows of zeros are not known yet."""
        others = batch.gather(require(batch.peers_adv).transpose(0, 1)).transpose(0, 1)
        known = others.square().sum(-1) > 0
        same = batch.y[:, None] == batch.gather(batch.y)
        positive = (same[:, None] & known).flatten(1)  # (B, M B)
        log_share = logits(f_adv, others.flatten(0, 1), self.scale)
        log_share = log_share.masked_fill(~known.flatten(), -torch.inf).log_softmax(1)
        total = -torch.where(positive, log_share, 0.0).sum(1) / positive.sum(1).clamp(min=1)
        return torch.where(positive.any(1), total, 0.0 * f_adv.sum(1))
