"""Positions of a box, which the L0 norm counts: pixels, bins or samples, each with all its channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def count_positions(shape: Sequence[int]) -> int:
    """The positions of a box (C, ...): all coordinates but the channels; of a box (n,): n."""
    return prod(shape[1:] if len(shape) > 1 else shape)


def change(delta: Tensor) -> Tensor:
    """(B, C, ...) or (B, n) -> (B, positions), the largest absolute change of each position's channels."""
    size = delta.abs()
    return (size.amax(1) if delta.dim() > 2 else size).flatten(1)


def largest(values: Tensor, k: int) -> Tensor:
    """(B, P) -> (B, P) bool, the k largest of each row; of equal ones, the first."""
    import torch  # here, since `rlbench list` reads suites without it

    order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(values, dtype=torch.bool).scatter(1, order, True)


def spread(mask: Tensor, like: Tensor) -> Tensor:
    """(B, positions) -> the mask of their coordinates, which broadcasts to `like` (B, C, ...) or (B, n)."""
    return mask.view(len(like), 1, *like.shape[2:]) if like.dim() > 2 else mask
