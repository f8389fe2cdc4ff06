"""Planted defences whose outputs are random or depend on the batch; they declare no trait."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from rlbench.core.registry import register
from rlbench.encoders.defences.defended import Defence


@dataclass(frozen=True, kw_only=True)
class Random(Defence):
    """A defence that draws new random numbers at every call, from torch's global generator.

    Attack through: its expectation.
    """

    def honest(self) -> Defence:
        return self


@register("defence", "noise")
@dataclass(frozen=True, kw_only=True)
class Noise(Random):
    """Adds fresh Gaussian noise to the input at every call.

    Cohen et al., 2019, without their certificate, https://arxiv.org/abs/1902.02918. Attack through: its expectation.
    """

    sigma: float = 0.05

    def front(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape).to(x)
        return (x + self.sigma * noise).clamp(0, 1)


@register("defence", "random-resize")
@dataclass(frozen=True, kw_only=True)
class RandomResize(Random):
    """Resizes the last two axes by a random factor at every call, and pads at random.

    Xie et al., 2018, https://arxiv.org/abs/1711.01991. Attack through: its expectation.
    """

    smallest: float = 0.85

    def front(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        u = torch.rand(3)
        factor = float(self.smallest + (1 - self.smallest) * u[0])
        new_h, new_w = round(h * factor), round(w * factor)
        frames = x.reshape(len(x), -1, h, w)
        small = interpolate(frames, size=(new_h, new_w), mode="bilinear", align_corners=False)
        top, left = int(u[1] * (h - new_h + 1)), int(u[2] * (w - new_w + 1))
        placed = pad(small, (left, w - new_w - left, top, h - new_h - top), mode="replicate")
        return placed.reshape(x.shape)


@register("defence", "dropout")
@dataclass(frozen=True, kw_only=True)
class Dropout(Random):
    """Drops a share of the embedding's coordinates at every call, even in evaluation mode.

    Dhillon et al., 2018 (stochastic pruning), https://arxiv.org/abs/1803.01442. Attack through: its expectation.
    """

    share: float = 0.3

    def middle(self, embedded: Tensor) -> Tensor:
        mask = torch.rand(embedded.shape) >= self.share
        return embedded * mask.to(embedded)


@register("defence", "batch-statistics")
@dataclass(frozen=True, kw_only=True)
class BatchStatistics(Defence):
    """Subtracts the mean embedding of the batch, as a normalisation layer in training mode does.

    So an example's output depends on its batch. Attack through: the encoder without it.
    """

    share: float = 0.7

    def middle(self, embedded: Tensor) -> Tensor:
        return embedded - self.share * embedded.mean(0, keepdim=True)
