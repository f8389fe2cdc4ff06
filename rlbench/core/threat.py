"""Lp balls in a box: project, sample, measure, verify.

An Lp ball intersected with a box is the perturbation set of every norm-bounded attack (Madry et al., 2018,
https://arxiv.org/abs/1706.06083). Distances are measured in float64, since float32 overshoots eps by about
2e-6 relative.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlbench.core import Adversarial, Ball, Box, Composed, Norm, Perturbation, Streams, Threat, Worst

TOLERANCE = 1e-6  # relative: the norm may exceed eps by this much before it is a violation


def ball_of(threat: Threat, box: Box) -> Ball:
    """The threat model's ball in a box: an eps quoted for [0, 1] scales by high - low."""
    return Ball(threat.norm, float(threat.eps) * (box.high - box.low), box.low, box.high)


def threat_of(perturbation: Perturbation) -> Threat | None:
    """The threat model of an attack or a worst case; None where nothing is attacked."""
    if isinstance(perturbation, Composed):
        return perturbation.adversarial.threat
    return perturbation.threat if isinstance(perturbation, Adversarial | Worst) else None


def rows_norm(delta: Tensor, norm: Norm) -> Tensor:
    """(B, ...) -> (B,) norm of every row, in the dtype of delta."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def distance(x_adv: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """(B,) float64 norm of x_adv - x, in box units."""
    return rows_norm(x_adv.double() - x.double(), norm)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))


def project(x_adv: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """The point of the ball about x that x_adv is taken to; (B, ...) -> (B, ...).

    Linf: the nearest point. L2: scaled to the radius, then clamped to the box, which only brings it nearer.
    The radius is under eps by one rounding error of float32 in the box, so that x_adv - x stays inside.
    """
    ulp = torch.finfo(x.dtype).eps * max(abs(ball.low), abs(ball.high), 1e-30)
    radius = max(ball.radius - ulp, 0.0)
    delta = x_adv - x
    if ball.norm == "linf":
        delta = delta.clamp(-radius, radius)
    else:
        length = per_row(rows_norm(delta, "l2"), delta).clamp_min(1e-20)
        delta = delta * (radius / length).clamp_max(1.0)
    return (x + delta).clamp(ball.low, ball.high)


def contains(outer: Ball, inner: Ball, size: int) -> bool:
    """Whether the inner ball lies in the outer one about the same point, for `size` coordinates."""
    reach = inner.radius * math.sqrt(size) if (inner.norm, outer.norm) == ("linf", "l2") else inner.radius
    return reach <= outer.radius


def sample(x: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """A random point of the ball: uniform for Linf; for L2 a uniform direction and the radius's volume law."""
    if ball.norm == "linf":
        return project(x + ball.radius * streams.uniform(x.shape[1:]).to(x), x, ball)
    direction = streams.normal(x.shape[1:]).to(x)
    share = (streams.child("radius").uniform(()).to(x) + 1) / 2
    reach = ball.radius * share ** (1 / x[0].numel())
    delta = direction * per_row(reach / rows_norm(direction, "l2").clamp_min(1e-20), x)
    return project(x + delta, x, ball)


def violation(x_adv: Tensor, x: Tensor, ball: Ball) -> str | None:
    """Why x_adv is not a set of points of the ball about x (shape, dtype, finite, box, norm), or None."""
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        return f"x_adv is {tuple(x_adv.shape)} {x_adv.dtype}; x is {tuple(x.shape)} {x.dtype}"
    if not torch.isfinite(x_adv).all():
        return "x_adv is not finite"
    if x_adv.numel() and (x_adv.min() < ball.low or x_adv.max() > ball.high):
        return f"x_adv leaves the box [{ball.low}, {ball.high}]: {x_adv.min():.6g} to {x_adv.max():.6g}"
    far = distance(x_adv, x, ball.norm)
    if far.numel() and far.max() > ball.radius * (1 + TOLERANCE):
        return f"the {ball.norm} norm is {far.max():.8g}; eps is {ball.radius:.8g}"
    return None
