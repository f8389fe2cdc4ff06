"""Planted defences that act on the logits: each breaks the loss of an attack in a known way, and declares no trait.

They test the soundness checks, which must notice them. All are attacked through the encoder without the defence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.defences.defended import Defence


@register("defence", "saturated")
@dataclass(frozen=True, kw_only=True)
class Saturated(Defence):
    """Multiplies logits by 50: at the resulting scale of 1000, float32 cross-entropy is exactly zero.

    Carlini & Wagner, 2016 (on defensive distillation), https://arxiv.org/abs/1607.04311.

    Attributes:
        factor: the factor of the logits, above 0.
    """

    factor: float = 50.0

    def answer(self, logits: Tensor) -> Tensor:
        return self.factor * logits


@register("defence", "temperature")
@dataclass(frozen=True, kw_only=True)
class Temperature(Defence):
    """Takes the logarithm of a softmax at temperature 0.01, which is one-hot in float32: no gradient is left.

    Attributes:
        temperature: the divisor of the logits, above 0.
    """

    temperature: float = 0.01

    def answer(self, logits: Tensor) -> Tensor:
        return torch.log((logits / self.temperature).softmax(1) + 1e-30)


@register("defence", "softmax")
@dataclass(frozen=True, kw_only=True)
class Softmax(Defence):
    """Returns probabilities instead of logits."""

    def answer(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)


@register("defence", "float16")
@dataclass(frozen=True, kw_only=True)
class HalfPrecision(Defence):
    """Computes log-probabilities in half precision at CLIP's scale of 100: beyond a cosine gap of 0.1 the loss is flat.

    Attributes:
        factor: the factor of the logits, which turns the mini encoders' scale of 20 into 100.
    """

    factor: float = 5.0

    def answer(self, logits: Tensor) -> Tensor:
        return torch.log((self.factor * logits).half().softmax(1).float() + 1e-4)


@register("defence", "rejection")
@dataclass(frozen=True, kw_only=True)
class Rejection(Defence):
    """Rejects uncertain inputs by setting all their logits to zero; a rejected input counts as an error.

    Carlini & Wagner, 2017 (on detectors), https://arxiv.org/abs/1705.07263.

    Attributes:
        confidence: the smallest probability of the predicted class that is not rejected, in [0, 1].
    """

    confidence: float = 0.5

    def answer(self, logits: Tensor) -> Tensor:
        sure = logits.softmax(1).amax(1, keepdim=True) >= self.confidence
        return torch.where(sure, logits, 0.0)


@register("defence", "trap")
@dataclass(frozen=True, kw_only=True)
class Trap(Defence):
    """Gives the gradient of the logits the wrong sign, so that it leads back to the label.

    After Shan et al., 2020 (trapdoors), https://arxiv.org/abs/1904.08554.
    """

    def answer(self, logits: Tensor) -> Tensor:
        return 2 * logits.detach() - logits
