"""A mean of the sensors' logits, weighted by how certain each is."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import pass_gradient

_FLOOR = 1e-6  # of a weight, so that sensors without any certainty count equally


@register("fusion", "entropy")
@dataclass(frozen=True, kw_only=True)
class Certainty:
    """The mean of the logits with the weights 1 - H(p_m) / log C, from 1 for a certain sensor to 0 for a uniform one.

    Differentiable, weights included; its gradient has a share of that of the mean (see `rule`), in which an uncertain
    sensor counts, too. Entropy as a measure of certainty: Wang et al., 2021 (TENT), https://arxiv.org/abs/2006.10726;
    divided by log C, so that it means the same for any C.
    """

    least: ClassVar[int] = 1

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C), C at least 2 -> (N, C)."""
        log_p = logits.log_softmax(2)
        entropy = -(log_p.exp() * log_p).sum(2)
        weights = (1 - entropy / log(logits.shape[2])).clamp_min(_FLOOR)
        fused = ((weights / weights.sum(0))[..., None] * logits).sum(0)
        return pass_gradient(fused, fused, logits)
