"""Lp balls in a box: project, sample, measure, check; and eps and norms as users write them.

An Lp ball intersected with a box is the perturbation set of every norm-bounded attack (Madry et al., 2018,
https://arxiv.org/abs/1706.06083). Distances are measured in float64, since float32 overshoots eps by about
2e-6 relative. The L0 norm counts positions: pixels, bins or samples, each with all its channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, get_args

from rlbench.core import Adversarial, Ball, Box, Composed, Edited, Norm, Perturbation, Span, Streams, Threat, Worst
from rlbench.core.errors import FieldError, quote
from rlbench.core.positions import change, count_positions, largest, spread
from rlbench.core.precision import Precision
from rlbench.core.sensors import JointBox

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-6  # relative: the norm may exceed eps by this much before it is a violation
USUAL: frozenset[Norm] = frozenset({"linf", "l2"})


def ball_of(threat: Threat, box: Box) -> Ball:
    """The threat model's ball in a box; eps, quoted for [0, 1], is scaled by high - low; in l0 it counts positions.

    In a joint box it is a product of balls, of radius 0 for sensors that are not attacked.
    """
    if isinstance(box, JointBox):
        eps = eps_by_sensor(threat)
        spans = tuple(
            Span(sensor, *box.spans[sensor], float(eps.get(sensor, 0)), own.shape) for sensor, own in box.parts
        )
        return Ball(threat.norm, max(span.radius for span in spans), box.low, box.high, spans)
    scale = 1.0 if threat.norm == "l0" else box.high - box.low
    return Ball(threat.norm, float(threat.eps) * scale, box.low, box.high)


def norms_of(attack: object) -> frozenset[Norm]:
    """The norms that an attack is for: its `norms`, or Linf and L2."""
    norms: frozenset[Norm] = getattr(attack, "norms", USUAL)
    return norms


def eps_by_sensor(threat: Threat) -> dict[str, Fraction]:
    """The eps of every attacked sensor."""
    return dict(zip(threat.sensors, threat.by_sensor or [threat.eps] * len(threat.sensors), strict=True))


def scale_threat(threat: Threat, times: Fraction) -> Threat:
    """The threat model with every eps multiplied by `times`."""
    return replace(threat, eps=threat.eps * times, by_sensor=tuple(eps * times for eps in threat.by_sensor))


def single_sensors(threat: Threat) -> list[Threat]:
    """The threat models of an attack on one of the sensors alone; none for a task with one sensor."""
    return [
        replace(threat, sensors=(sensor,), eps=eps, by_sensor=(), reach="")
        for sensor, eps in eps_by_sensor(threat).items()
    ]


def threat_of(perturbation: Perturbation) -> Threat | None:
    """The threat model of an attack or worst case, else None."""
    if isinstance(perturbation, Composed):
        return perturbation.adversarial.threat
    return perturbation.threat if isinstance(perturbation, Adversarial | Worst) else None


def text_of(perturbation: Perturbation) -> Edited | None:
    """The texts that an attacker chooses, alone or with an attack on the input; None if they stay as they are."""
    one = perturbation.corrupted if isinstance(perturbation, Composed) else perturbation
    return one.text if isinstance(one, Worst) else one if isinstance(one, Edited) else None


def search_in(perturbation: Perturbation, precision: Precision) -> Perturbation:
    """The perturbation, with attacks that search in this precision."""
    if isinstance(perturbation, Composed):
        attack = search_in(perturbation.adversarial, precision)
        return replace(perturbation, adversarial=attack)  # type: ignore[arg-type]
    if not isinstance(perturbation, Adversarial | Worst):
        return perturbation
    found = replace(perturbation, threat=replace(perturbation.threat, precision=precision))
    if isinstance(found, Worst):
        return replace(found, attacks=tuple(search_in(one, precision) for one in found.attacks))  # type: ignore[misc]
    return found


def rows_norm(delta: Tensor, norm: Norm) -> Tensor:
    """(B, ...) -> (B,) norm of each row, in the dtype of delta."""
    if norm == "l0":
        return (change(delta) != 0).sum(1).to(delta.dtype)
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def distance(x_adv: Tensor, x: Tensor, norm: Norm, spans: Sequence[Span] = ()) -> Tensor:
    """(B,) float64 norm of x_adv - x, in box units or positions; of a product of balls, the largest of its `spans`."""
    delta = x_adv.double() - x.double()
    if not spans:
        return rows_norm(delta, norm)
    from torch import stack

    return stack([rows_norm(delta[:, span.start : span.stop], norm) for span in spans]).amax(0)


def _factors(ball: Ball) -> Iterator[tuple[Span, Ball]]:
    """The balls of a product."""
    for span in ball.spans:
        yield span, replace(ball, radius=span.radius, spans=())


def by_factor(apply: Callable[..., Tensor], ball: Ball, *points: Tensor) -> Tensor:
    """(B, D) of a product of balls, computed for each ball by itself: apply(ball, *points in its coordinates)."""
    from torch import cat

    return cat([apply(own, *[x[:, at.start : at.stop] for x in points]) for at, own in _factors(ball)], dim=1)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))


def project(x_adv: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """Projects x_adv onto the ball around x; (B, ...) -> (B, ...).

    Linf: the nearest point. L2: scaled to the radius, then clamped to the box, which only brings it nearer. The radius
    is one float32 rounding error below eps, so that x_adv - x stays inside. L0: keeps the positions that change most.
    """
    import torch  # here, since `rlbench list` reads suites without it

    if ball.spans:
        return by_factor(lambda own, x_adv, x: project(x_adv, x, own), ball, x_adv, x)
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
        return _bring_inside((x + delta).clamp(ball.low, ball.high), delta, x, ball)
    return (x + delta).clamp(ball.low, ball.high)


def _bring_inside(x_adv: Tensor, delta: Tensor, x: Tensor, ball: Ball) -> Tensor:
    """x_adv = x + delta, with a smaller step in the rows that rounding to float32 has put outside their L2 ball.

    Each coordinate is off by half a rounding error at most, but a clip has a million of them.
    """
    import torch

    share = x.new_ones(len(x), dtype=torch.float64)
    for _ in range(20):  # two or three are enough where x lies in the box
        far = distance(x_adv, x, "l2")
        outside = far > ball.radius * (1 + TOLERANCE)
        if not outside.any():
            break
        share = (share * 0.9999 * ball.radius / far).where(outside, share)
        nearer = (x + per_row(share, x).to(x) * delta).clamp(ball.low, ball.high)
        x_adv = nearer.where(per_row(outside, x), x_adv)
    return x_adv


def contains(outer: Ball, inner: Ball, size: int) -> bool:
    """Whether the inner ball lies in the outer one around the same point, for `size` coordinates."""
    if outer.spans:
        pairs = zip(_factors(outer), _factors(inner), strict=True)
        return all(contains(one, other, at.stop - at.start) for (at, one), (_, other) in pairs)
    if "l0" in (outer.norm, inner.norm) and outer.norm != inner.norm:
        return inner.radius == 0
    reach = inner.radius * math.sqrt(size) if (inner.norm, outer.norm) == ("linf", "l2") else inner.radius
    return reach <= outer.radius


def sample(x: Tensor, ball: Ball, streams: Streams) -> Tensor:
    """A random point of the ball around x, uniform in volume but for the clamp to the box; L0: random positions."""
    if ball.spans:
        from torch import cat

        parts = [(x[:, at.start : at.stop], own, at.sensor) for at, own in _factors(ball)]
        return cat([sample(part, own, streams.child(name)) if own.radius else part for part, own, name in parts], 1)
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
    for at in ball.spans or (Span("", 0, 0, ball.radius, ()),):
        far = distance(x_adv, x, ball.norm, [at] if ball.spans else ())
        if far.numel() and far.max() > at.radius * (1 + TOLERANCE):
            where = f" on {at.sensor}" if at.sensor else ""
            return f"the {ball.norm} norm{where} is {far.max():.8g}; eps is {at.radius:.8g}"
    return None


def check_threat(threat: Threat, box: Box, what: str) -> None:
    """Checks that a threat model's eps is at most the diameter of its box. Raises: FieldError."""
    if isinstance(box, JointBox):
        for sensor, eps in eps_by_sensor(threat).items():
            start, stop = box.spans[sensor]  # type: ignore[index]
            check_eps(eps, threat.norm, (stop - start,), f"{what} on {sensor}")
    else:
        check_eps(threat.eps, threat.norm, box.shape, what)


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
