"""Noise, FAB and the ensembles: the closed form of the linear encoder, which examples each sees, labels and losses."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from rlbench.attacks.noise import surface
from rlbench.attacks.search.ensemble import cascade
from rlbench.core import Ball, Classifier, Norm, Streams, Threat, registry
from rlbench.core.errors import FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.core.threat import ball_of, distance
from rlbench.encoders.heads import ZeroShot, zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter

N = 48


def _oracle() -> tuple[ZeroShot, Tensor, Tensor, ExampleStreams]:
    """The smoke suite's correct examples under the linear encoder."""
    suite, encoder = load_suite("smoke"), load_encoder("linear", "image")
    found = suite.task.load(encoder.boxes["image"], 0, N)
    classify = zero_shot(encoder, "image", suite.task.classes, suite.task.templates)
    right = (classify(found.x).argmax(1) == found.y).nonzero()[:, 0]
    streams = ExampleStreams(0, found.ids, "oracle").take(right.tolist())
    return classify, found.x[right], found.y[right], streams


def _least_eps(classify: ZeroShot, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """(N,) the smallest eps that breaks an affine classifier: min_j (z_y - z_j) / |grad (z_y - z_j)|, dual norm."""
    jacobian = torch.autograd.functional.jacobian(lambda p: classify(p[None])[0], x[0]).flatten(1)
    logits = classify(x)
    gap = logits.gather(1, y[:, None]) - logits
    slope = (jacobian[y][:, None] - jacobian[None]).norm(p=1 if norm == "linf" else 2, dim=2)
    return (gap / slope.clamp_min(1e-9)).scatter(1, y[:, None], float("inf")).amin(1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", "4/255"), ("l2", "0.1")])
@pytest.mark.parametrize(
    ("name", "fields"),
    [("autoattack", {"steps": 20, "queries": 20}), ("autoattack", {"attacks": "fab-t", "steps": 20}), ("fab-t", {})],
)
def test_the_survivors_are_those_of_the_closed_form(name: str, fields: dict[str, object], norm: Norm, eps: str) -> None:
    classify, x, y, streams = _oracle()
    ball = ball_of(Threat(norm, Fraction(eps)), load_encoder("linear", "image").boxes["image"])
    least = _least_eps(classify, x, y, norm)
    meter = Meter(classify, len(x), batch_size=20)
    verdict = judge(meter, registry.make("attack", name, fields)(meter, x, y, ball, streams), x, y, ball)
    clear = (least / ball.radius - 1).abs() > 0.02
    assert 0 < (least > ball.radius).sum() < len(x)
    assert torch.equal(verdict.correct[clear], (least > ball.radius)[clear])


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.2)])
def test_noise_is_weaker_than_the_optimum_and_more_points_are_stronger(norm: Norm, eps: float) -> None:
    classify, x, y, streams = _oracle()
    ball, margins = Ball(norm, eps, 0.0, 1.0), []
    for fields in ({"points": 1}, {"points": 20}, {"points": 20, "where": "surface"}):
        meter = Meter(classify, len(x))
        verdict = judge(meter, registry.make("attack", "noise", fields)(meter, x, y, ball, streams), x, y, ball)
        assert not (~verdict.correct & (_least_eps(classify, x, y, norm) > eps)).any()
        margins.append(verdict.margin)
    assert (margins[1] <= margins[0] + 1e-4).all()
    assert margins[2].mean() < margins[1].mean() + (0.0 if norm == "linf" else 0.2)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_of_the_surface_have_norm_eps(norm: Norm) -> None:
    x = torch.zeros(20, 3, 4, 4)
    point = surface(x, Ball(norm, 0.3, -1.0, 1.0), ExampleStreams(0, tuple(map(str, range(20)))))
    torch.testing.assert_close(distance(point, x, norm), torch.full((20,), 0.3).double(), rtol=1e-5, atol=0)
    if norm == "linf":
        torch.testing.assert_close(point.abs(), torch.full_like(x, 0.3))
        assert 0.4 < (point > 0).float().mean() < 0.6


class _Breaks:
    """An attack that breaks examples whose first coordinate is below `reach`, and records which examples it saw."""

    def __init__(self, reach: float) -> None:
        self.reach, self.saw = reach, list[str]()

    def passes(self, n_classes: int) -> tuple[int, int]:
        return 0, 0

    def loss_used(self, n_classes: int) -> str:
        return "none"

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        self.saw = list(streams.ids)
        classifier(x)
        return torch.where(x[:, :1] < self.reach, -x, x)


def test_each_attack_sees_only_unbroken_examples() -> None:
    x = torch.linspace(0.1, 0.6, 6)[:, None].expand(-1, 2).clone()
    meter = Meter(lambda x: torch.cat([x[:, :1], -x[:, :1]], 1), 6)
    attacks = {"a": _Breaks(0.25), "b": _Breaks(0.45), "c": _Breaks(0.0)}
    streams = ExampleStreams(0, tuple("012345"))
    x_adv = cascade(attacks, meter, x, torch.zeros(6, dtype=torch.int64), Ball("linf", 2.0, -1.0, 1.0), streams)
    assert [attack.saw for attack in attacks.values()] == [list("012345"), list("2345"), list("45")]
    assert (x_adv[:, 0] < 0).tolist() == [True] * 4 + [False] * 2
    assert meter.forwards.tolist() == [2, 2, 4, 4, 6, 6]


def test_only_the_standard_version_has_the_standard_label() -> None:
    def label(n_classes: int = 10, **fields: object) -> str:
        return str(registry.make("attack", "autoattack", fields).label(n_classes))

    assert label() == label(4) == label(queries=5000) == "aa-standard"
    others = [label(3), label(steps=99), label(queries=4999), label(targets=8), label(restarts=5)]
    others += [label(attacks="apgd-ce+apgd-t"), label(attacks="apgd-t+apgd-ce+fab-t+square")]
    assert len(set(others)) == len(others)
    assert all(one.startswith("custom:") for one in others)
    assert registry.make("attack", "aa-clip").label(10) == "aa-clip"
    assert registry.make("attack", "autoattack:reference").label(3) != "aa-standard"


def test_the_losses_of_an_ensemble() -> None:
    standard, clip = registry.make("attack", "autoattack"), registry.make("attack", "aa-clip")
    assert standard.loss_used(4) == "ce+dlr-targeted+margin-targeted+margin"
    assert standard.loss_used(3) == "ce+margin-targeted+margin-targeted+margin"
    assert [clip.loss_used(c) for c in (2, 3, 4)] == ["ce", "ce+margin-targeted", "ce+dlr-targeted"]
    assert list(standard.members) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    members = clip.members(10)
    assert (members["apgd-ce"].restarts, members["apgd-t"].restarts, members["apgd-t"].targets) == (5, 1, 9)
    assert standard.passes(10) == (101 + 910 + 1828 + 5001 + 4, 100 + 900 + 900)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("autoattack", {"attacks": "apgd-ce+apgdt"}, "attacks has 'apgdt'; join some of apgd-ce, apgd-dlr"),
        ("autoattack", {"attacks": "square+square"}, "name each attack at most once"),
        ("autoattack", {"steps": 0}, "steps is 0"),
        ("autoattack", {"querys": 3}, "did you mean 'queries'"),
        ("fab-t", {"targets": 0}, "fab-t: targets is 0"),
        ("noise", {"points": 0}, "noise: points is 0"),
        ("noise", {"where": "corner"}, "one of ball, surface"),
        ("aa-clip", {"steps": 3}, "no field 'steps'"),
    ],
)
def test_wrong_fields_are_named(name: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        registry.make("attack", name, fields)
