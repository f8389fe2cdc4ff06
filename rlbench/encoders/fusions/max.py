"""The answer of the most confident sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import pass_gradient


def measure_confidence(logits: Tensor) -> Tensor:
    """The log-odds of each sensor's class, log(p / (1 - p)), which do not saturate where p is 1 in float32.

    Args:
        logits: (M, N, C), C at least 2.

    Returns:
        (M, N).
    """
    top, at = logits.max(2, keepdim=True)
    rest = logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(2, at, True), float("-inf"))
    return top[..., 0] - rest.logsumexp(2)


@register("fusion", "max")
@dataclass(frozen=True, kw_only=True)
class MostConfident:
    """The logits of the sensor whose largest probability is the largest; equally confident sensors are averaged.

    Its gradient is that of the sensors' mean, weighted by a softmax of their confidences (see `rule`), so that a sensor
    that is not chosen can be attacked until it is.
    """

    least: ClassVar[int] = 1

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C)."""
        confidence = measure_confidence(logits)
        chosen = (confidence == confidence.amax(0)).to(logits)
        hard, soft = ((w[..., None] * logits).sum(0) for w in (chosen / chosen.sum(0), confidence.softmax(0)))
        return pass_gradient(hard, soft, logits)
