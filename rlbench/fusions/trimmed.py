"""The sum without the odd one out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core.registry import register
from rlbench.fusions.rule import ROUNDING, replace_gradient


def weigh_agreement(logits: Tensor) -> Tensor:
    """How much of each sensor is kept: all but one sensor, that which agrees least; equal ones share the loss.

    Agreement is the mean cosine between a sensor's softmax and those of the others.

    Args:
        logits: (M, N, C).

    Returns:
        (M, N) weights that sum to M - 1.
    """
    unit = normalize(logits.detach().double().softmax(2), dim=2)
    cosines = torch.einsum("mnc,knc->mkn", unit, unit)
    agreement = cosines.sum(1) - 1  # its own cosine is 1
    odd = (agreement <= agreement.amin(0) + ROUNDING).to(logits)
    return 1 - odd / odd.sum(0)


@register("fusion", "trimmed")
@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """The mean of the logits without the sensor whose probabilities agree least with the others'.

    Its gradient is that of the mean of all logits (see `rule`), so that a sensor that is dropped can be attacked back
    in. Odd one out after Yang et al., 2021, https://arxiv.org/abs/2206.12714, without their trained detector.
    """

    least: ClassVar[int] = 3

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C)."""
        weights = weigh_agreement(logits)[..., None]
        return replace_gradient((weights * logits).sum(0) / (len(logits) - 1), logits)
