"""Planted defences of the output: each breaks a loss in a known way, and declares nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.core.registry import register
from rlbench.encoders.defences.defended import Defence


@register("defence", "saturated")
@dataclass(frozen=True, kw_only=True)
class Saturated(Defence):
    """Logits times 50: a scale of 1000, where float32 cross-entropy is exactly zero.

    Carlini & Wagner, 2016 (on defensive distillation), https://arxiv.org/abs/1607.04311. Attack through: no factor.
    """

    factor: float = 50.0

    def answer(self, logits: Tensor) -> Tensor:
        return self.factor * logits


@register("defence", "temperature")
@dataclass(frozen=True, kw_only=True)
class Temperature(Defence):
    """Logarithms of a softmax at temperature .01, which is one-hot in float32: no gradient is left.

    Attack through: the encoder without it.
    """

    temperature: float = 0.01

    def answer(self, logits: Tensor) -> Tensor:
        return torch.log((logits / self.temperature).softmax(1) + 1e-30)


@register("defence", "softmax")
@dataclass(frozen=True, kw_only=True)
class Softmax(Defence):
    """Probabilities in the place of logits.

    Attack through: the encoder without it.
    """

    def answer(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)


@register("defence", "float16")
@dataclass(frozen=True, kw_only=True)
class HalfPrecision(Defence):
    """Log-probabilities at CLIP's scale of 100, computed in half precision: zero loss from a cosine gap of 0.1 on.

    Attack through: the encoder without it.
    """

    factor: float = 5.0

    def answer(self, logits: Tensor) -> Tensor:
        return torch.log((self.factor * logits).half().softmax(1).float() + 1e-4)


@register("defence", "rejection")
@dataclass(frozen=True, kw_only=True)
class Rejection(Defence):
    """Detects what it is unsure of, and answers nothing: all logits are zero.

    Carlini & Wagner, 2017 (on detectors), https://arxiv.org/abs/1705.07263. Attack through: no detector. A rejected
    input counts as an error here.
    """

    confidence: float = 0.5

    def answer(self, logits: Tensor) -> Tensor:
        sure = logits.softmax(1).amax(1, keepdim=True) >= self.confidence
        return torch.where(sure, logits, 0.0)


@register("defence", "trap")
@dataclass(frozen=True, kw_only=True)
class Trap(Defence):
    """A backward pass that leaks the label and leads back to it: the gradient of the logits has the wrong sign.

    After Shan et al., 2020 (trapdoors), https://arxiv.org/abs/1904.08554. Attack through: the encoder without it.
    """

    def answer(self, logits: Tensor) -> Tensor:
        return 2 * logits.detach() - logits
