"""The windows of Square Attack in boxes of any shape, and the bumps that fill them in L2.

A box (C, n_1, ..., n_k) has k axes besides channels: 2 for pictures and spectrograms, 3 for clips, 1 for waveforms. In
this module `sizes` is (n_1, ..., n_k). Each of R examples has its own window, given by its first coordinates and its
lengths, both (R, k) int64.

Andriushchenko et al., 2020, https://arxiv.org/abs/1912.00049.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlbench.core.threat import per_row, rows_norm


def sides(share: Tensor, sizes: tuple[int, ...], *, least: int = 1) -> Tensor:
    """The lengths of windows with the proportions of the box; in a square picture, the square of the paper.

    Args:
        share: (R,) share of a channel that each window covers, in (0, 1].
        sizes: the axes of the box.
        least: the smallest length, 1 or 3; with 3, lengths are odd where there is room.

    Returns:
        (R, k) int64.
    """
    n = torch.tensor(sizes, device=share.device)
    lengths = (share[:, None] ** (1 / len(sizes)) * n).round().long().clamp_min(least)
    return torch.minimum(lengths + (lengths % 2 == 0) if least == 3 else lengths, n)


def place(u: Tensor, lengths: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Places windows uniformly at random inside the box.

    Args:
        u: (R, k) uniform numbers in [0, 1).
        lengths: (R, k) int64 lengths of the windows.
        sizes: the axes of the box.

    Returns:
        (R, k) int64 first coordinates.
    """
    free = torch.tensor(sizes, device=u.device) - lengths + 1
    return torch.minimum((u * free).long(), free - 1)


def window(first: Tensor, lengths: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The coordinates inside windows.

    Args:
        first: (R, k) int64 first coordinates.
        lengths: (R, k) int64 lengths.
        sizes: the axes of the box.

    Returns:
        (R, 1, *sizes) bool.
    """
    inside = torch.ones(len(first), *[1] * (len(sizes) + 1), dtype=torch.bool, device=first.device)
    for axis, r in enumerate(_offsets(first, sizes)):
        inside = inside & _along((r >= 0) & (r < lengths[:, axis, None]), axis, len(sizes))
    return inside


def bump(first: Tensor, lengths: Tensor, split: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Bumps in windows: each half of a window has a pyramid, of opposite signs and equal norms.

    Equation 2 of the paper: at distance d from its centre, a pyramid has the height sum_{i >= d} 1 / (i + 1)^2. The
    distance is the largest of the distances along the axes.

    Args:
        first: (R, k) int64 first coordinates of the windows.
        lengths: (R, k) int64 lengths.
        split: (R,) int64, the axis along which each window is halved.
        sizes: the axes of the box.

    Returns:
        (R, 1, *sizes) of unit L2 norm, 0 outside the windows.
    """
    k, device = len(sizes), first.device
    top, d, sign = (torch.zeros(1, device=device) for _ in range(3))
    for axis, r in enumerate(_offsets(first, sizes)):
        length, here = lengths[:, axis, None], (split == axis)[:, None]
        half = length // 2
        second = here & (r >= half)
        size = torch.where(second, length - half, torch.where(here, half, length))
        r = torch.where(second, r - half, r)
        d = torch.maximum(d, _along((r - size // 2).abs(), axis, k))
        top = torch.maximum(top, _along(size // 2 + 1, axis, k))
        sign = sign + _along(here * torch.where(second, -1.0, 1.0), axis, k)
    squares = torch.arange(2 * max(sizes) + 2, device=device).clamp_min(1) ** 2
    sums = torch.cumsum(1 / squares, 0) - 1  # of 1 / i^2 for i = 1..., from 0 on
    height = (sums[top.long()] - sums[d.long()]).clamp_min(0.0)
    filled = height * sign * window(first, lengths, sizes)
    return _unit(_unit(filled.clamp_min(0.0)) - _unit(filled.clamp_max(0.0).abs()))


def tiles(sizes: tuple[int, ...]) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """The tiles of the start in L2: five along each axis, or as many as fit.

    Args:
        sizes: the axes of the box.

    Returns:
        The first coordinates of every tile, and the lengths that all tiles have.
    """
    lengths = tuple(max(n // 5, 1) for n in sizes)
    starts = [range(max(n - 5 * t, 0) // 2, n - t + 1, t) for n, t in zip(sizes, lengths, strict=True)]
    grid = torch.cartesian_prod(*[torch.tensor(list(axis)) for axis in starts]).view(-1, len(sizes))
    return [tuple(row) for row in grid.tolist()], lengths


def _unit(rows: Tensor) -> Tensor:
    """Divides every row by its L2 norm; a row of zeros does not change."""
    return rows / per_row(rows_norm(rows, "l2"), rows).clamp_min(1e-20)


def _offsets(first: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """For each axis of n coordinates, (R, n) int64: the coordinates counted from the first one of the window."""
    return [torch.arange(n, device=first.device) - first[:, axis, None] for axis, n in enumerate(sizes)]


def _along(values: Tensor, axis: int, k: int) -> Tensor:
    """Views (R, n) values along one of the k axes: (R, 1, 1, ..., n, ..., 1)."""
    return values.view(len(values), *[1] * (axis + 1), values.shape[1], *[1] * (k - 1 - axis))
