"""The normal of a decision boundary, estimated from labels."""

from __future__ import annotations

from collections.abc import Generator
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.decisions import CHUNK
from rlbench.core import Ball

Steps = Generator[Tensor, Tensor, Tensor]  # a part of a search that returns a point or a direction


def estimate_normal(
    x_t: Tensor, delta: float, b: int, *, ball: Ball, numbers: np.random.Generator, across: Tensor | None = None
) -> Steps:
    """Estimates the unit normal at x_t: the mean of phi_b u_b with the mean phi as baseline.

    Chen et al., 2020, https://arxiv.org/abs/1904.02144, eq. 9 and 16.

    Args:
        x_t: (*shape) a point near the boundary.
        delta: distance of the queries from it, in box units.
        b: how many queries.
        ball: whose box holds every query.
        numbers: of the directions u_b.
        across: (*shape) a vector to which the directions are orthogonal; None: they are isotropic.

    Returns: (*shape) towards the misclassified side.
    """
    delta = max(delta, 1e-12)  # 0 where x_t is the example itself
    axis = None if across is None else across / across.norm().clamp_min(1e-20)
    phi, u_sum, phi_u = 0.0, torch.zeros_like(x_t), torch.zeros_like(x_t)
    for first in range(0, b, CHUNK):
        shape = (min(CHUNK, b - first), *x_t.shape)
        u = torch.from_numpy(numbers.standard_normal(shape, dtype=np.float32)).to(x_t)
        u = u if axis is None else _remove(u, axis)
        u = u / u.flatten(1).norm(dim=1).view(-1, *[1] * x_t.dim())
        points = (x_t + delta * u).clamp(ball.low, ball.high)
        wrong = yield points
        sign = 2.0 * wrong.to(x_t) - 1
        u = (points[: len(sign)] - x_t) / delta  # what the box has left of it
        phi += float(sign.sum())
        u_sum, phi_u = u_sum + u.sum(0), phi_u + torch.tensordot(sign, u, 1)
    mean = phi / b
    v = phi_u - mean * u_sum if abs(mean) < 1 else phi_u
    v = v if axis is None else _remove(v[None], axis)[0]
    unit: Tensor = v / v.norm().clamp_min(1e-20)
    return unit


def _remove(u: Tensor, axis: Tensor) -> Tensor:
    """Vectors u (K, *shape) without their parts along a unit vector (*shape)."""
    along = u.flatten(1) @ axis.flatten()
    return u - along.view(-1, *[1] * axis.dim()) * axis


def expect_cosine(b: int, d: int) -> float:
    """The cosine of an estimate of b queries with the normal of a plane in d dimensions: (1 + pi d / 2 b)^(-1/2)."""
    return 1 / sqrt(1 + pi * d / (2 * b))
