"""Lp balls in a box: project, sample, measure, check; and eps and norms as users write them.

An Lp ball intersected with a box is the perturbation set of every norm-bounded attack (Madry et al., 2018,
https://arxiv.org/abs/1706.06083). Distances are measured in float64, since float32 overshoots eps by about
2e-6 relative. The L0 norm counts positions: pixels, bins or samples, each with all its channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, get_args

from rlbench.core import Adversarial, Ball, Box, Composed, Norm, Perturbation, Streams, Threat, Worst
from rlbench.core.errors import FieldError, quote

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-6  # relative: the norm may exceed eps by this much before it is a violation
USUAL: frozenset[Norm] = frozenset({"linf", "l2"})


def ball_of(threat: Threat, box: Box) -> Ball:
    """The threat model's ball in a box; eps, quoted for [0, 1], is scaled by high - low, unless it counts positions."""
    scale = 1.0 if threat.norm == "l0" else box.high - box.low
    return Ball(threat.norm, float(threat.eps) * scale, box.low, box.high)


def norms_of(attack: object) -> frozenset[Norm]:
    """The norms that an attack is for: its `norms`, or Linf and L2."""
    norms: frozenset[Norm] = getattr(attack, "norms", USUAL)
    return norms


def count_positions(shape: Sequence[int]) -> int:
    """The positions of a box (C, ...): all coordinates but the channels; of a box (n,): n."""
    return math.prod(shape[1:] if len(shape) > 1 else shape)


def change(delta: Tensor) -> Tensor:
    """(B, C, ...) or (B, n) -> (B, positions), the largest absolute change of each position's channels."""
    size = delta.abs()
    return (size.amax(1) if delta.dim() > 2 else size).flatten(1)


def threat_of(perturbation: Perturbation) -> Threat | None:
    """The threat model of an attack or worst case, else None."""
    if isinstance(perturbation, Composed):
        return perturbation.adversarial.threat
    return perturbation.threat if isinstance(perturbation, Adversarial | Worst) else None


def rows_norm(delta: Tensor, norm: Norm) -> Tensor:
    """(B, ...) -> (B,) norm of each row, in the dtype of delta."""
    if norm == "l0":
        return (change(delta) != 0).sum(1).to(delta.dtype)
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def distance(x_adv: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """(B,) float64 norm of x_adv - x, in box units; L0: the number of positions that differ."""
    return rows_norm(x_adv.double() - x.double(), norm)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))


def project(x_adv: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """Projects x_adv onto the ball around x; (B, ...) -> (B, ...).

    Linf: the nearest point. L2: scaled to the radius, then clamped to the box, which only brings it nearer. The radius
    is one float32 rounding error below eps, so that x_adv - x stays inside. L0: keeps the positions that change most.
    """
    import torch  # here, since `rlbench list` reads suites without it

    if ball.norm == "l0":
        kept = largest(change(x_adv - x), int(ball.radius))
        return x_adv.clamp(ball.low, ball.high).where(spread(kept, x), x)
    ulp = torch.finfo(x.dtype).eps * max(abs(ball.low), abs(ball.high), 1e-30)
    radius = max(ball.radius - ulp, 0.0)
    delta = x_adv - x
    if ball.norm == "linf":
        delta = delta.clamp(-radius, radius)
    else:
        length = per_row(rows_norm(delta, "l2"), delta).clamp_min(1e-20)
        delta = delta * (radius / length).clamp_max(1.0)
    return (x + delta).clamp(ball.low, ball.high)


def largest(values: Tensor, k: int) -> Tensor:
    """(B, P) -> (B, P) bool, the k largest of each row; of equal ones, the first."""
    import torch

    order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(values, dtype=torch.bool).scatter(1, order, True)


def spread(mask: Tensor, like: Tensor) -> Tensor:
    """(B, positions) -> the mask of their coordinates, which broadcasts to `like` (B, C, ...) or (B, n)."""
    return mask.view(len(like), 1, *like.shape[2:]) if like.dim() > 2 else mask


def contains(outer: Ball, inner: Ball, size: int) -> bool:
    """Whether the inner ball lies in the outer one around the same point, for `size` coordinates."""
    if "l0" in (outer.norm, inner.norm) and outer.norm != inner.norm:
        return inner.radius == 0
    reach = inner.radius * math.sqrt(size) if (inner.norm, outer.norm) == ("linf", "l2") else inner.radius
    return reach <= outer.radius


def sample(x: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """A random point of the ball around x, uniform in volume but for the clamp to the box; L0: random positions."""
    if ball.norm == "linf":
        return project(x + ball.radius * streams.uniform(x.shape[1:]).to(x), x, ball)
    if ball.norm == "l0":
        order = streams.child("positions").uniform((count_positions(x.shape[1:]),)).to(x)
        value = ball.low + (ball.high - ball.low) * (streams.uniform(x.shape[1:]).to(x) + 1) / 2
        return value.clamp(ball.low, ball.high).where(spread(largest(order, int(ball.radius)), x), x)
    direction = streams.normal(x.shape[1:]).to(x)
    share = (streams.child("radius").uniform(()).to(x) + 1) / 2
    reach = ball.radius * share ** (1 / x[0].numel())
    delta = direction * per_row(reach / rows_norm(direction, "l2").clamp_min(1e-20), x)
    return project(x + delta, x, ball)


def violation(x_adv: Tensor, x: Tensor, ball: Ball) -> str | None:
    """Why x_adv (B, ...) is not in the ball around x (shape, dtype, finite, box, norm), or None if it is."""

    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        return f"x_adv is {tuple(x_adv.shape)} {x_adv.dtype}; x is {tuple(x.shape)} {x.dtype}"
    if not x_adv.isfinite().all():
        return "x_adv is not finite"
    if x_adv.numel() and (x_adv.min() < ball.low or x_adv.max() > ball.high):
        return f"x_adv leaves the box [{ball.low}, {ball.high}]: {x_adv.min():.6g} to {x_adv.max():.6g}"
    far = distance(x_adv, x, ball.norm)
    if far.numel() and far.max() > ball.radius * (1 + TOLERANCE):
        return f"the {ball.norm} norm is {far.max():.8g}; eps is {ball.radius:.8g}"
    return None


_FRACTION = re.compile(r"([+-]?[0-9]{1,9}) */ *([0-9]{1,9})")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?")
_NORMS: dict[str, Norm] = {"linf": "linf", "l2": "l2", "2": "l2", "2.0": "l2", "l0": "l0", "0": "l0"}
_NORMS |= dict.fromkeys(("inf", "linfinity", "infinity", "l∞", "∞"), "linf")


def parse_eps(text: object, what: str = "eps") -> Fraction:
    """Parses an eps exactly: a fraction or decimal such as "4/255", "0.5" or 1, at least 0.

    Raises:
        FieldError: anything else, such as "4/0", "-1", "abc", nan or "1e99999".
    """
    given = str(text).strip() if isinstance(text, str | float | int) else ""
    fraction = _FRACTION.fullmatch(given)
    if (fraction and not int(fraction[2])) or not (fraction or _DECIMAL.fullmatch(given)):
        raise FieldError(f"{what} is {quote(text)}; it must be a fraction or number such as 4/255 or 0.5", what)
    eps = Fraction(int(fraction[1]), int(fraction[2])) if fraction else Fraction(given)
    if eps < 0:
        raise FieldError(f"{what} is {quote(text)}; it must not be negative", what)
    return eps


def parse_norm(text: object, what: str = "norm") -> Norm:
    """Parses a norm in its usual spellings, such as Linf, L_inf, inf or 2.

    Raises:
        FieldError: any other norm.
    """
    found = _NORMS.get(re.sub(r"[\s_.-]*", "", str(text).lower()) if not _is_number(text) else str(text))
    if found is None:
        raise FieldError(f"{what} is {quote(text)}; it must be one of {', '.join(get_args(Norm))}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_eps(eps: Fraction, norm: Norm, shape: Sequence[int] | None = None, what: str = "eps") -> None:
    """Checks that an eps is at most the diameter of a box of range 1; above, the unit is wrong, such as 8 for 8/255.

    Args:
        eps: quoted for a box of range 1; for l0, a number of positions.
        norm: of the ball.
        shape: of the box, for l2 and l0; if it is not known, the limit is 1000 for l2, and none for l0.
        what: how messages call eps.

    Raises:
        FieldError: eps is too large, or in l0 no whole number.
    """
    if norm == "l0":
        _check_count(eps, shape, what)
        return
    most = 1.0 if norm == "linf" else 1000.0 if shape is None else math.sqrt(math.prod(shape))
    if eps > most:
        shown = f"{float(eps):g}" if eps.denominator in (1, 2, 4, 5, 10) else str(eps)
        such = f"{eps}/255" if eps.denominator == 1 and eps <= 255 else "4/255" if norm == "linf" else "0.5"
        upto = "0 and 1" if norm == "linf" else f"0 and {most:.4g}"
        raise FieldError(f"{what} is {shown}; for a box of range 1 an {norm} eps lies between {upto}, such as {such}")


def _check_count(eps: Fraction, shape: Sequence[int] | None, what: str) -> None:
    if eps.denominator != 1:
        raise FieldError(f"{what} is {float(eps):g}; for l0 it is a whole number of pixels or bins, such as 5")
    if shape is not None and eps > count_positions(shape):
        most = count_positions(shape)
        raise FieldError(f"{what} is {eps}; for l0 it is a number of pixels or bins, of which the box has {most}")
