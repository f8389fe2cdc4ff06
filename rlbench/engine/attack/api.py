"""Attacks on any classifier, outside suites: `rlbench.attack`.

Arguments are checked first, so a mistake gives a one-line error. The classifier gets copies, and may return a tuple,
dict or output object that holds its logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlbench.attacks.search.pool import run_alone
from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Adversarial, Attack, Ball, Box, Field, Norm, Streams, Threat, registry
from rlbench.core.badges import Badge, Finding, badge, is_wrong
from rlbench.core.errors import AttackError, RLBenchError, SoundnessWarning
from rlbench.core.knowledge import Knowledge, explain_lack
from rlbench.core.machine import full_float32, search_float32
from rlbench.core.precision import Precision, check_precision
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import ball_of, check_eps, norms_of, parse_eps, parse_norm, violation
from rlbench.encoders.black_box.classes import scores_of_labels
from rlbench.encoders.outputs import describe, labels_of, logits_of
from rlbench.engine.attack.exact import Confirmed, begin_again, is_searched_again, lower
from rlbench.engine.attack.judge import check_effort, judge, run_attack
from rlbench.engine.attack.meter import Meter
from rlbench.engine.soundness.consistency import count_inconsistent
from rlbench.engine.soundness.rules import findings
from rlbench.engine.soundness.watch import Watch


@dataclass(frozen=True)
class Attacked:
    """The result of `attack`, per example.

    Attributes:
        x_adv: (B, *shape) in the balls; x itself where the clean prediction is wrong.
        broken: (B,) bool, misclassified at x_adv.
        distance: (B,) float64 norm of x_adv - x, in box units.
        forwards: (B,) int64 forward passes, including the clean one and the judge's.
        backwards: (B,) int64 backward passes.
        findings: the cheap soundness checks, as in a run.
    """

    x_adv: Tensor
    broken: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    findings: tuple[Finding, ...] = ()

    @property
    def badge(self) -> Badge:
        """`sound`, `warn`, `needs adaptive` or `unreliable`: whether `broken` may miss examples."""
        return badge(self.findings)


@full_float32()
def attack(
    classifier: Callable[[Tensor], object],
    x: Tensor,
    y: Tensor,
    name: str,
    *,
    norm: Norm = "linf",
    eps: object = "4/255",
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    batch_size: int = 64,
    precision: Precision = "fp32",
    **fields: Field,
) -> Attacked:
    """Runs a named attack on any classifier and judges it. Clean errors count as broken and are not attacked.

    Args:
        classifier: maps (B, *shape) to logits (B, C), differentiable, in evaluation mode; or to a tuple, dict or object
            that holds one such tensor, or `logits`. square needs no gradient; rays, hopskipjump and noise take labels.
        x: (B, *shape) float32 in [low, high]; not changed.
        y: (B,) integer labels.
        name: a registered attack, such as "apgd-ce"; `fields` are its fields.
        norm: "linf", "l2" or "l0", of those that the attack is for.
        eps: a number or a fraction such as "4/255", times high - low; in "l0" the number of pixels or bins that change.
        low: the smallest value of the classifier's input.
        high: the largest value of the classifier's input.
        seed: the seed of the attack's random numbers.
        ids: the ids of the B examples (default: their indices). Random numbers depend on seed and id, not on the batch.
        batch_size: the most examples of a forward pass, at least 1.
        precision: of the search, "fp32", "tf32" or "bf16"; `exact` says how float32 confirms it and searches again.

    Raises:
        UnknownName, FieldError: the attack or one of its fields; eps, norm, precision.
        RLBenchError: x or y does not fit, or the classifier trains, or its outputs are no logits or depend on a batch.
        AttackError: the attack broke its contract or crashed.
        SoundnessWarning: as a warning, where a soundness check fails, so `broken` may miss examples.
    """
    method: Attack = registry.make("attack", name, fields)
    threat = replace(_threat(name, method, norm, eps), precision=_check_precision(precision, x))
    _check_mode(classifier)
    x, y = _inputs(x, low, high), _labels(y, x)
    check_eps(threat.eps, threat.norm, x.shape[1:])
    box = Box(shape=tuple(x.shape[1:]), low=low, high=high)
    exact = Adversarial(name, replace(threat, precision="fp32"), tuple(sorted(fields.items())))
    streams = ExampleStreams(seed, _names(ids, len(x)), str(exact))
    result = _attack(method, _wrap(classifier, name, method, x, y), x, y, threat, box, streams, batch_size)
    _warn(result.findings)
    return result


def _check_mode(classifier: object) -> None:
    if getattr(classifier, "training", False):
        raise RLBenchError("the classifier is in training mode, where its outputs may be random; call its eval() first")


def _check_precision(precision: object, x: object) -> Precision:
    return check_precision(precision, str(x.device) if isinstance(x, Tensor) else None)


def _threat(name: str, method: Attack, norm: object, eps: object) -> Threat:
    """The threat model. Raises: FieldError: norm or eps; RLBenchError: the attack is not for this norm."""
    threat, able = Threat(parse_norm(norm), parse_eps(eps)), sorted(norms_of(method))
    if threat.norm not in able:
        raise RLBenchError(f"norm is {threat.norm!r}; attack {name!r} is for {', '.join(able)}: choose one of them")
    return threat


def _attack(
    method: Attack,
    own: _Own,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    box: Box,
    streams: ExampleStreams,
    batch_size: int,
) -> Attacked:
    ball = ball_of(threat, box)
    sums = _ask_twice(own, x, y, box, batch_size)
    watch = Watch(y)
    meter = Meter(own, len(x), batch_size=batch_size, watch=watch)
    clean = judge(meter, x, x, y, ball).correct
    rows = clean.nonzero()[:, 0]
    at = rows.to(x.device)
    x_adv, far, broken = x.clone(), torch.zeros(len(x), dtype=torch.float64), ~clean
    if len(rows):
        own_streams = streams.take(rows.tolist())
        around = rows, x[at], y[at], ball, own_streams, threat.precision
        asked = meter.forwards.clone()
        x_adv[at] = meter.attempt(lambda: _search(method, meter, *around))
        check_effort(method, x_adv, x, ball, meter.forwards - asked)
        judgement = judge(ClassifierView(meter, rows), x_adv[at], x[at], y[at], ball)
        far[rows], broken[rows] = judgement.distance, ~judgement.correct
    checked = tuple(findings(watch.sums_of(method, ~broken) | sums, own.knowledge))
    return Attacked(x_adv, broken, far, meter.forwards, meter.backwards, checked)


@dataclass(eq=False)
class _Own:
    """The caller's classifier: it gets copies, and its output becomes logits.

    Attributes:
        classify: the callable.
        labels: one more than the largest label in use; larger outputs count as one more class.
        knowledge: what its last output gave.
    """

    classify: Callable[[Tensor], object]
    labels: int = 1
    knowledge: Knowledge = "white-box"

    def __call__(self, x: Tensor) -> Tensor:
        answer = self.classify(x.clone())
        labels = labels_of(answer, len(x))
        if labels is not None:
            self.knowledge = "label"
            return scores_of_labels(labels.clamp_max(self.labels), self.labels + 1).to(x.device)
        logits = logits_of(answer, len(x))
        if x.requires_grad:
            self.knowledge = "white-box" if logits.requires_grad else "score"
        return logits


def _search(
    method: Attack, meter: Meter, rows: Tensor, x: Tensor, y: Tensor, ball: Ball, streams: Streams, precision: Precision
) -> Tensor:
    """(R, *shape) the points that the attack found around x, of the examples `rows` of the meter."""
    exact = ClassifierView(meter, rows)
    if precision == "fp32":
        return _run(method, exact, x, y, ball, streams)
    low = meter.twin(lower(meter.classify, precision))
    labels = torch.zeros(len(meter.forwards), dtype=torch.int64, device=y.device).index_copy(0, rows.to(y.device), y)
    with search_float32(precision):
        found = _run(method, ClassifierView(Confirmed(low, meter, labels), rows), x, y, ball, streams)
    if violation(found, x, ball) is not None or not is_searched_again(method, ball.norm) or ball.radius == 0:
        return found  # the judge says what is wrong
    left = judge(exact, found, x, y, ball).correct.nonzero()[:, 0]
    at = left.to(x.device)
    view, names = ClassifierView(exact, left), streams.take(left.tolist())
    found[at] = run_alone(view, begin_again(view, found[at], x[at], y[at], ball, names))
    return found


def _run(method: Attack, view: ClassifierView, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
    try:
        return run_attack(method, view, x, y, ball, streams)
    except AttackError as error:
        if "does not require grad" not in str(error):
            raise
        raise AttackError(
            f"the classifier's logits have no gradient in x, which {type(method).__name__} needs: no torch.no_grad, "
            "detach or numpy inside; the attack square needs none"
        ) from error


def _wrap(classifier: Callable[[Tensor], object], name: str, method: Attack, x: Tensor, y: Tensor) -> _Own:
    """The caller's classifier, after one example. Raises: RLBenchError: the attack needs more than its labels."""
    own = _Own(classifier, max(1, int(y.max()) + 1) if len(y) else 1)
    if not len(x):
        return own
    with torch.enable_grad():
        own(x[:1].clone().requires_grad_())
    if own.knowledge == "label" and (lack := explain_lack(name, method, own.knowledge)):
        raise RLBenchError(f"{lack.replace('encoder', 'classifier')}: use rays (linf), hopskipjump (l2) or noise")
    return own


def _ask_twice(own: _Own, x: Tensor, y: Tensor, box: Box, batch_size: int) -> dict[str, int]:
    """Classifies a first example, then all of them in two batch sizes. Raises: RLBenchError."""
    if not len(x):
        return {}
    with torch.no_grad():
        classes = own(x[:1]).shape[1]
        if own.knowledge != "label" and int(y.max()) >= classes:
            raise RLBenchError(f"label {int(y.max())} is not among the classifier's {classes} classes, 0 on")
        logits = Meter(own, len(x), batch_size=batch_size)(x)
    found = count_inconsistent(
        lambda size: Meter(own, len(x), batch_size=size), x, logits, box, batch_size, graph=False, apart=True
    )
    wrong = next((one for one in findings(found) if one.id == "H4" and one.status == "fail"), None)
    if wrong is not None:
        raise RLBenchError(f"the classifier's outputs depend on the batch: {wrong.said}; {wrong.check.advice}")
    return found


def _warn(checked: Sequence[Finding]) -> None:
    bad = [f"{one.id}: {one.said}; {one.check.advice}" for one in checked if is_wrong(one)]
    if bad:
        warnings.warn(f"the result is {badge(checked)!r}. {'. '.join(bad)}", SoundnessWarning, stacklevel=4)


def _names(ids: Sequence[str] | None, n: int) -> tuple[str, ...]:
    names = tuple(map(str, range(n))) if ids is None else tuple(ids)
    if len(names) != n:
        raise RLBenchError(f"ids are {len(names)}; x has {n} examples, which need one each")
    return names


def _inputs(x: object, low: float, high: float) -> Tensor:
    """A copy of x without a graph. Raises: RLBenchError."""
    if not isinstance(x, Tensor):
        how = "; torch.from_numpy(x) makes one" if isinstance(x, np.ndarray) else ""
        raise RLBenchError(f"x is {describe(x)}; it must be a torch.Tensor (B, *shape), float32{how}")
    if x.dtype != torch.float32:
        how = "x.float() / 255 is in [0, 1]" if x.dtype == torch.uint8 else "give x.float()"
        raise RLBenchError(f"x is {describe(x)}; it must be float32: {how}")
    if x.dim() < 2:
        raise RLBenchError(f"x is {describe(x)}; it must be a batch (B, *shape): a single example is x[None]")
    if not torch.isfinite(x).all():
        raise RLBenchError("x has values that are not finite")
    if x.numel() and (x.min() < low or x.max() > high):
        spans = f"{float(x.min()):.6g} to {float(x.max()):.6g}"
        how = "divide by 255, or give high=255" if 1 < float(x.max()) <= 255 and float(x.min()) >= 0 else ""
        how = how or "give low and high of the classifier's input; where it is normalised, normalise in the classifier"
        raise RLBenchError(f"x spans {spans}; it must lie in the box [{low:g}, {high:g}]: {how}")
    return x.detach().clone()


def _labels(y: object, x: Tensor) -> Tensor:
    """(B,) int64 on x's device, a copy. Raises: RLBenchError."""
    whole = isinstance(y, Tensor) and not y.is_floating_point() and not y.is_complex() and y.dtype != torch.bool
    if not isinstance(y, Tensor) or not whole or y.shape != x.shape[:1] or (y < 0).any():
        one_hot = isinstance(y, Tensor) and y.dim() == 2 and len(y) == len(x)
        how = "; of one-hot rows, y.argmax(1) makes them" if one_hot else ""
        below = f" with {int(y.min())} in it" if isinstance(y, Tensor) and whole and y.numel() and y.min() < 0 else ""
        raise RLBenchError(f"y is {describe(y)}{below}; it must be a tensor of {len(x)} int64 labels from 0 on{how}")
    return y.to(x.device, torch.int64, copy=True)
