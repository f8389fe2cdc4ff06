"""Planted defences that act on the input: each hides its gradients in a known way, and declares no trait.

They test the audit: `rlbench audit --model languagebind+jpeg` must find them. See also `zoo_output` and `zoo_random`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi, sqrt

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.encoders.defences.defended import Defence

SIDE = 8  # pixels per side of a JPEG block


def _through(x: Tensor, value: Tensor, honest: bool) -> Tensor:
    """`value`, with the gradient of x if honest (BPDA), otherwise with gradient 0."""
    return x + (value - x).detach() if honest else value.detach() + 0 * x


def _cosines() -> Tensor:
    """(8, 8) the orthonormal discrete cosine transform, one row per frequency."""
    k, i = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    basis = torch.cos(pi * (i + 0.5) * k / SIDE) * sqrt(2 / SIDE)
    basis[0] /= sqrt(2)
    return basis


def _blocks(x: Tensor) -> Tensor:
    """(..., H, W), multiples of 8 -> (..., H/8, W/8, 8, 8), the coefficients of each block. Raises: FieldError."""
    h, w = x.shape[-2:]
    if h % SIDE or w % SIDE:
        raise FieldError(
            f"this defence works on blocks of {SIDE} x {SIDE} pixels; an input of {h} x {w} does not divide"
        )
    basis = _cosines().to(x)
    tiles: Tensor = x.reshape(*x.shape[:-2], h // SIDE, SIDE, w // SIDE, SIDE).transpose(-3, -2)
    return basis @ tiles @ basis.T


def _picture(blocks: Tensor) -> Tensor:
    """The inverse of `_blocks`."""
    basis = _cosines().to(blocks)
    return (basis.T @ blocks @ basis).transpose(-3, -2).flatten(-4, -3).flatten(-2)


@register("defence", "quantise")
@dataclass(frozen=True, kw_only=True)
class Quantise(Defence):
    """Rounds the input to few levels; its gradient is zero everywhere.

    Xu et al., 2018 (feature squeezing), https://arxiv.org/abs/1704.01155. Attack through: the identity (BPDA).
    """

    levels: int = 12
    straight: bool = False

    def front(self, x: Tensor) -> Tensor:
        return _through(x, (x * (self.levels - 1)).round() / (self.levels - 1), self.straight)

    def honest(self) -> Defence:
        return replace(self, straight=True)


@register("defence", "jpeg")
@dataclass(frozen=True, kw_only=True)
class Jpeg(Defence):
    """Rounds the coefficients of 8 x 8 blocks as JPEG does, coarser at high frequencies; its gradient is zero.

    Guo et al., 2018, https://arxiv.org/abs/1711.00117. Attack through: the identity (BPDA).
    """

    step: float = 0.06
    straight: bool = False

    def front(self, x: Tensor) -> Tensor:
        at = torch.arange(SIDE, dtype=x.dtype, device=x.device)
        table = self.step * (1 + at[:, None] + at)
        rounded = _picture((_blocks(x) / table).round() * table).clamp(0, 1)
        return _through(x, rounded, self.straight)

    def honest(self) -> Defence:
        return replace(self, straight=True)


@register("defence", "k-winners")
@dataclass(frozen=True, kw_only=True)
class KWinners(Defence):
    """Keeps the largest coefficients of each 8 x 8 block, rounded: piecewise constant, with zero gradients.

    After Xiao et al., 2020, https://arxiv.org/abs/1905.10510, at the input. Attack through: the identity (BPDA).
    """

    winners: int = 12
    straight: bool = False

    def front(self, x: Tensor) -> Tensor:
        blocks = _blocks(x)
        least = blocks.flatten(-2).abs().topk(self.winners, dim=-1).values[..., -1, None, None]
        won = torch.where(blocks.abs() >= least, (blocks * 64).round() / 64, 0.0)
        return _through(x, _picture(won).clamp(0, 1), self.straight)

    def honest(self) -> Defence:
        return replace(self, straight=True)


@register("defence", "blur")
@dataclass(frozen=True, kw_only=True)
class Blur(Defence):
    """Purifies the input by a Gaussian blur without gradient, as one from an image library.

    Attack through: the same blur with its gradient.
    """

    sigma: float = 0.8
    differentiable: bool = False

    def front(self, x: Tensor) -> Tensor:
        at = torch.arange(-3, 4, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-(at**2) / (2 * self.sigma**2))
        smooth = _along(_along(x, kernel / kernel.sum()).mT, kernel / kernel.sum()).mT
        return smooth if self.differentiable else _through(x, smooth, False)

    def honest(self) -> Defence:
        return replace(self, differentiable=True)


def _along(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolves the last axis with a kernel of odd length."""
    rows = x.reshape(-1, 1, x.shape[-1])
    half = len(kernel) // 2
    return conv1d(pad(rows, (half, half), mode="replicate"), kernel[None, None]).reshape(x.shape)


@register("defence", "shattered")
@dataclass(frozen=True, kw_only=True)
class Shattered(Defence):
    """A step function with a fine ripple on its steps: it has gradients, but they are useless.

    Athalye et al., 2018 (shattered gradients), https://arxiv.org/abs/1802.00420. Attack through: the identity (BPDA).
    """

    levels: int = 64
    ripple: float = 1e-4
    straight: bool = False

    def front(self, x: Tensor) -> Tensor:
        steps = (x * self.levels).round() / self.levels
        fine = self.ripple * torch.sin(x * 1e5)
        return _through(x, steps + fine, True) if self.straight else steps.detach() + fine

    def honest(self) -> Defence:
        return replace(self, straight=True)


@register("defence", "stop-gradient")
@dataclass(frozen=True, kw_only=True)
class StopGradient(Defence):
    """Detaches the input except for its mean, so every coordinate has the same gradient.

    Attack through: the encoder without it.
    """

    def front(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
        return x.detach() + mean - mean.detach()


@register("defence", "nan")
@dataclass(frozen=True, kw_only=True)
class Overflow(Defence):
    """Returns NaN if the mean square of the input's distance from grey is above a limit.

    Attack through: the encoder without it.
    """

    limit: float = 0.1

    def front(self, x: Tensor) -> Tensor:
        large = (x - 0.5).flatten(1).square().mean(1) > self.limit
        return torch.where(large.view(-1, *[1] * (x.dim() - 1)), float("nan"), x)
