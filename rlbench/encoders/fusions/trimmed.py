"""The sum without the odd one out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core.registry import register
from rlbench.encoders.fusions.rule import ROUNDING, pass_gradient

_SHARPNESS = 10.0  # of the softmax


def measure_agreement(logits: Tensor) -> Tensor:
    """(M, N, C) -> (M, N): the mean cosine between a sensor's softmax and those of the others."""
    unit = normalize(logits.double().softmax(2), dim=2)
    cosines = torch.einsum("mnc,knc->mkn", unit, unit)
    agreement: Tensor = (cosines.sum(1) - 1) / (len(logits) - 1)  # its own cosine is 1
    return agreement.to(logits)


@register("fusion", "trimmed")
@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """The mean of the logits without the sensor whose probabilities agree least with the others'.

    Sensors that agree equally little share the loss. The gradient is that of a softmax in place of the selection (see
    `rule`), so that a sensor that is dropped can be attacked back in. Odd one out after Yang et al., 2021,
    https://arxiv.org/abs/2206.12714, without their trained detector.
    """

    least: ClassVar[int] = 3

    def fuse(self, logits: Tensor) -> Tensor:
        """(M, N, C) -> (N, C)."""
        agreement = measure_agreement(logits)
        odd = (agreement <= agreement.amin(0) + ROUNDING).to(logits)
        shares = odd / odd.sum(0), (-_SHARPNESS * agreement).softmax(0)
        hard, soft = (((1 - one)[..., None] * logits).sum(0) / (len(logits) - 1) for one in shares)
        return pass_gradient(hard, soft, logits)
