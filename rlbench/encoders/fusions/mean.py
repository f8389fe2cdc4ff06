"""The mean of the sensors' probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import beat_rivals, leave_one_out


@register("fusion", "mean")
@dataclass(frozen=True, kw_only=True)
class Mean:
    """The logarithm of the mean of the sensors' probabilities, a linear opinion pool.

    Computed from log-softmax, so that gradients stay useful where softmax is 0 or 1 in float32. Kittler et al., 1998
    (the sum rule of classifiers), https://doi.org/10.1109/34.667881.
    """

    least: ClassVar[int] = 1

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C) log-probabilities."""
        return logits.log_softmax(2).logsumexp(0) - log(len(logits))

    def certify(self, logits: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        """sum_{m != j} (p_my - p_mt) > tanh(reach[y, t] / 2) for every sensor j and rival t (see `encoders.takeover`).

        Of sensor j, p_t <= p_y exp(reach) and p_t + p_y <= 1, so p_t - p_y <= tanh(reach / 2), which is below 1. Exact
        for two classes. Two sensors are never certified where the bound is 1.
        """
        others = leave_one_out(logits.double().softmax(2))
        gap = others.gather(2, y.expand(len(others), -1)[..., None]) - others
        return beat_rivals(gap, (reach.to(gap)[y] / 2).tanh(), y)
