"""GRACE's alignment term: the volume between clean, adversarial and weight-perturbed features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core.registry import register
from rlbench.training.objectives.terms import require
from rlbench.training.types import Batch, Need

RIDGE = 1e-6  # on the Gram matrix's diagonal: the root has no gradient at a volume of 0


def volume(*features: Tensor) -> Tensor:
    """sqrt |det (G + 1e-6 I)|, G_jk = n(f_j) n(f_k)^T, of K features (B, D) -> (B,).

    The volume of the parallelotope between K unit vectors, and sin of the angle for two. In float64: the determinant
    of nearly equal vectors is below the rounding errors of float32.
    """
    n = torch.stack([normalize(f.double(), dim=-1) for f in features], dim=1)
    ridge = RIDGE * torch.eye(len(features), dtype=n.dtype, device=n.device)
    squared: Tensor = torch.linalg.det(n @ n.mT + ridge).abs()
    return squared.sqrt().to(features[0].dtype)


@register("objective", "gram-volume")
@dataclass(frozen=True, kw_only=True)
class GramVolume:
    """Volume between an example's clean and adversarial features, and those on the other side of AWP's step.

    Equations 8 and 9 of GRACE (Chopra et al., 2026, https://arxiv.org/abs/2603.27139), for a recipe's `extras` beside
    `awp`. The equations are from two independent descriptions that agree; the paper was not available. Two points are
    this project's reading. GRACE takes f and f' at the current weights and the third feature at the perturbed ones;
    here, AWP takes every gradient at the perturbed weights, so that f and f' are there, and the third is the constant
    f' at the current weights. And AWP perturbs whole layers, not a subspace with ranks by curvature. Any two equal
    directions make the volume 0, so that the term alone does not bring f and f' together.
    """

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"f", "f_adv", "f_adv_before"})

    def loss(self, f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        """The volume of f, f' and f' before AWP."""
        return volume(f, f_adv, require(batch.f_adv_before))

    def adversary_loss(self, f_adv: Tensor, f: Tensor, batch: Batch) -> Tensor:
        """The area of f and f': while x' is searched for, the weights are the current ones."""
        return volume(f, f_adv)
