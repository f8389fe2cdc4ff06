"""The universal perturbation: the closed form of affine classifiers of two classes, and one perturbation for all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rlbench.attacks import uap
from rlbench.attacks.uap import UAP
from rlbench.core import Ball, Norm
from rlbench.core.errors import AttackError, FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.engine.attack.meter import Meter

SHAPE, N = (2, 3, 4), 40


def _classifier() -> tuple[nn.Module, Tensor]:
    """An affine classifier of two classes, and w_1 - w_0 (*SHAPE)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 2).requires_grad_(False))
    net[1].weight.copy_(torch.randn(2, 24, generator=torch.Generator().manual_seed(3)))
    net[1].bias.copy_(-net[1].weight.sum(1) / 2)  # both classes occur in [0, 1]
    return net, (net[1].weight[1] - net[1].weight[0]).view(SHAPE)


def _points(net: nn.Module, ones: int, zeros: int) -> tuple[Tensor, Tensor]:
    """Points in [.4, .6] of both classes, correct: (ones + zeros, *SHAPE) and their labels."""
    x = 0.4 + 0.2 * torch.rand(400, *SHAPE, generator=torch.Generator().manual_seed(4))
    y = net(x).argmax(1)
    rows = torch.cat([(y == 1).nonzero()[:ones, 0], (y == 0).nonzero()[:zeros, 0]])
    assert len(rows) == ones + zeros
    return x[rows], y[rows]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("label", [0, 1])
def test_of_one_class_it_is_eps_times_the_dual_direction(norm: Norm, label: int) -> None:
    net, w = _classifier()
    x, y = _points(net, N * label, N * (1 - label))
    ball = Ball(norm, 0.05 if norm == "linf" else 0.2, 0.0, 1.0)
    delta = UAP(steps=8).make(Meter(net, N), x, y, ball)
    away = w if label == 0 else -w
    exact = ball.radius * (away.sign() if norm == "linf" else away / away.norm())
    torch.testing.assert_close(delta, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("ones", "zeros"), [(30, 10), (10, 30)])
def test_of_two_classes_it_is_the_better_of_both_signs(ones: int, zeros: int) -> None:
    net, w = _classifier()
    x, y = _points(net, ones, zeros)
    ball = Ball("linf", 0.03, 0.0, 1.0)
    found = UAP(steps=20)(Meter(net, len(x)), x, y, ball, ExampleStreams(0, tuple(map(str, range(len(x))))))
    broken = [int((margin(net(x + sign * ball.radius * w.sign()), y) <= 0).sum()) for sign in (1, -1)]
    assert min(broken) < max(broken) < len(x)
    assert int((margin(net(found), y) <= 0).sum()) == max(broken)


def test_the_step_that_breaks_the_most_counts_whatever_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, seen = iter([(0, 1.0), (5, 2.0), (5, 3.0), (3, 9.0)]), list[Tensor]()

    def sum_up(classifier: object, x: Tensor, y: Tensor, points: Tensor, *rest: object) -> tuple[int, float, Tensor]:
        seen.append(points - x)
        return *next(sums), torch.full_like(x[:1], 1.0 if len(seen) == 1 else -1.0)

    monkeypatch.setattr(uap, "_sum_up", sum_up)
    net, _ = _classifier()
    delta = UAP(steps=3).make(Meter(net, N), *_points(net, 20, 20), Ball("linf", 0.05, 0.0, 1.0))
    assert [round(float(one.mean()), 4) for one in seen] == [0.0, 0.05, 0.0125, 0.0]
    torch.testing.assert_close(delta, seen[2][0], rtol=0, atol=1e-6)


def test_the_perturbation_is_the_same_for_all_but_for_the_box() -> None:
    net, _ = _classifier()
    x, y = _points(net, 20, 20)
    x[0] = 0.99
    y[0] = net(x[:1]).argmax(1)
    ball = Ball("linf", 0.05, 0.0, 1.0)
    x_adv = UAP(steps=5)(Meter(net, N), x, y, ball, ExampleStreams(0, tuple(map(str, range(N)))))
    deltas = x_adv - x
    torch.testing.assert_close(deltas[1:], deltas[1:2].expand_as(deltas[1:]), rtol=0, atol=1e-6)
    torch.testing.assert_close(deltas[0], deltas[1].clamp(max=0.01), rtol=0, atol=1e-6)


def test_its_passes_are_those_that_it_states() -> None:
    net, _ = _classifier()
    x, y = _points(net, 20, 20)
    meter = Meter(net, N, batch_size=7)
    UAP(steps=6).make(meter, x, y, Ball("linf", 0.01, 0.0, 1.0))
    assert meter.forwards.tolist() == [8] * N and meter.backwards.tolist() == [6] * N == [UAP(steps=6).passes(2)[1]] * N


def test_gradients_that_are_not_finite_are_an_error() -> None:
    def classify(x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1), (x.flatten(1) - 2).sum(1).sqrt()], 1)

    x, y = torch.rand(3, *SHAPE), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(AttackError, match="gradient is not finite"):
        UAP(steps=2).make(Meter(classify, 3), x, y, Ball("linf", 0.1, 0.0, 1.0))


@pytest.mark.parametrize("fields", [{"examples": 0}, {"steps": 0}])
def test_fields_must_be_positive(fields: dict[str, int]) -> None:
    with pytest.raises(FieldError, match="must be at least 1"):
        UAP(**fields)
