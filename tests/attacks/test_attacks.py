"""Gradient attacks: the closed form of affine classifiers, their losses, costs and fields."""

from __future__ import annotations

import pytest
import torch
from affine_points import affine
from jobs import make_job
from torch import Tensor, nn

from rlbench.attacks.apgd import APGD, checkpoints
from rlbench.attacks.pgd import PGD, ascend
from rlbench.attacks.search.losses import LOSSES, ce, dlr, dlr_targeted, pm
from rlbench.core import Ball, Norm, registry
from rlbench.core.errors import FieldError, UnknownName
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import sample
from rlbench.engine.attack.judge import judge, run_attack
from rlbench.engine.attack.meter import Meter

GRADIENT = ["apgd-ce", "apgd-dlr", "apgd-t", "fgsm", "pgd"]


def _net(seed: int = 0, n_classes: int = 5, features: int = 12) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(features, 24), nn.Tanh(), nn.Linear(24, n_classes))
    return net.requires_grad_(False).eval()


def _inputs(n: int, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = (3, 2, 2)) -> Tensor:
    unit = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))
    return low + (high - low) * unit


def _streams(n: int) -> ExampleStreams:
    return ExampleStreams(0, tuple(f"example {i}" for i in range(n)), "test")


def test_the_loss_for_each_number_of_classes() -> None:
    used = {(name, c): registry.make("attack", name).loss_used(c) for name in GRADIENT for c in (2, 3, 4)}
    assert [used["apgd-dlr", c] for c in (2, 3, 4)] == ["margin", "dlr", "dlr"]
    assert [used["apgd-t", c] for c in (2, 3, 4)] == ["margin-targeted", "margin-targeted", "dlr-targeted"]
    assert {used[name, c] for name in ("fgsm", "pgd", "apgd-ce") for c in (2, 3, 4)} == {"ce"}
    assert [registry.make("attack", name).min_classes for name in GRADIENT] == [2, 3, 4, 2, 2]


def least_margin(net: nn.Linear, x: Tensor, gap: Tensor, ball: Ball) -> Tensor:
    """(N,) min over the ball and the other classes of z_y - z_j in closed form; float64. L2: where the box is wide."""
    net_bias, y = net.bias.double(), net(x).argmax(1)
    gap, point = gap.double(), x.double()[:, None].expand_as(gap)
    if ball.norm == "linf":
        lowest = (point - ball.radius * gap.sign()).clamp(ball.low, ball.high)
        margin = (gap * lowest).sum(2)
    else:
        margin = (gap * point).sum(2) - ball.radius * gap.norm(dim=2)
    margin += net_bias[y][:, None] - net_bias[None]
    return margin.scatter(1, y[:, None], float("inf")).amin(1)


ORACLE: list[tuple[str, dict[str, object], int, float]] = [
    ("pgd", {}, 2, 0.03),  # 2.5 eps of L2 path turn a random start to within 10 degrees: 1.4% short of the optimum
    ("pgd", {"rel_step": 0.5}, 2, 1e-3),
    ("pgd", {"rel_step": 0.5, "loss": "margin"}, 2, 1e-3),
    ("apgd-ce", {}, 2, 1e-3),
    ("apgd-dlr", {}, 2, 1e-3),
    ("apgd-pm", {}, 2, 1e-3),
    ("acg", {}, 2, 1e-3),
    ("malt", {"targets": 1}, 6, 1e-3),
    ("apgd-t", {}, 2, 1e-3),
    ("apgd-t", {}, 3, 1e-3),
    ("apgd-t", {}, 6, 1e-3),
]


@pytest.mark.parametrize(("norm", "ladder"), [("linf", (0.05, 0.1, 0.2)), ("l2", (0.2, 0.4, 0.8))])
@pytest.mark.parametrize(("name", "fields", "n_classes", "gap"), ORACLE)
def test_affine_robust_accuracy_is_the_closed_form(
    name: str, fields: dict[str, object], n_classes: int, gap: float, norm: Norm, ladder: tuple[float, ...]
) -> None:
    net, x, differences = affine(n_classes, 0.0, 1.0)
    robust = []
    for eps in ladder:
        # Linf: a box that binds. L2: a box so wide that it never does.
        ball = Ball(norm, eps, *((0.0, 1.0) if norm == "linf" else (-50.0, 50.0)))
        least = least_margin(net, x, differences, ball)
        clear = least.abs() > gap * least_margin(net, x, differences, Ball(norm, 0.0, -50.0, 50.0)).abs()
        rows = clear.nonzero()[:, 0]
        points, y = x[rows], net(x[rows]).argmax(1)
        meter = Meter(net, len(rows))
        attack = registry.make("attack", name, fields)
        verdict = judge(meter, attack(meter, points, y, ball, _streams(len(rows))), points, y, ball)
        assert len(rows) > 150
        assert torch.equal(verdict.correct, least[rows] > 0)
        robust.append(int((least > 0).sum()))
    assert 200 > robust[0] > robust[1] > robust[2] >= 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", GRADIENT)
def test_saturated_logits_are_still_broken(name: str, norm: Norm) -> None:
    net, x, differences = affine(2, -1.0, 1.0)
    ball = Ball(norm, 0.3 if norm == "linf" else 1.2, -50.0, 50.0)
    least = least_margin(net, x, differences, ball)
    rows = (least.abs() > 0.1).nonzero()[:, 0]
    points, y = x[rows], net(x[rows]).argmax(1)
    steep = Meter(lambda x: 1000 * net(x), len(rows))
    start = 1000 * net(points)
    assert (nn.functional.cross_entropy(start, y, reduction="none") == 0).float().mean() > 0.9
    x_adv = registry.make("attack", name)(steep, points, y, ball, _streams(len(rows)))
    assert torch.equal(judge(steep, x_adv, points, y, ball).correct, least[rows] > 0)


def test_ce_has_the_direction_and_order_of_cross_entropy() -> None:
    logits = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul_(3)
    y = torch.arange(40) % 7
    logits.requires_grad_()
    exact = nn.functional.cross_entropy(logits, y, reduction="none")
    ours = ce(logits, y, y)
    torch.testing.assert_close(torch.log1p(ours.exp()), exact)
    a, b = (torch.autograd.grad(loss.sum(), logits)[0] for loss in (exact, ours))
    torch.testing.assert_close(a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True))


def test_dlr_on_a_worked_example() -> None:
    logits, y = torch.tensor([[3.0, 1.0, 2.0, -1.0]]), torch.tensor([0])
    assert dlr(logits, y, y).item() == pytest.approx(-(3 - 2) / (3 - 1))
    assert dlr_targeted(logits, y, torch.tensor([3])).item() == pytest.approx(-(3 + 1) / (3 - (1 - 1) / 2))


def test_the_probability_margin_is_scale_free_on_a_worked_example() -> None:
    logits, y = torch.tensor([[3.0, 1.0, 2.0, -1.0]]), torch.tensor([0])
    p = (logits / (3 - 1)).softmax(1)[0]
    expected = (p[2] - p[0]).item()
    for scale in (0.01, 1.0, 1000.0):  # of which 1000 saturates a softmax
        z = (scale * logits).requires_grad_()
        loss = pm(z, y, y)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        assert scale * gradient[0, 0].item() == pytest.approx(-(p[0] * (1 - p[0]) + p[0] * p[2]).item() / 2, rel=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_rise_towards_an_error(name: str) -> None:
    loss = LOSSES[name]  # type: ignore[index]
    right, wrong = torch.tensor([[2.0, 1.0, 0.5, 0.0]]), torch.tensor([[1.0, 2.0, 0.5, 0.0]])
    y, target = torch.tensor([0]), torch.tensor([1])
    assert loss(wrong, y, target) > loss(right, y, target)


def test_checkpoints_are_the_published_ones() -> None:
    at = checkpoints(100).nonzero()[:, 0].tolist()
    assert at == [22, 41, 57, 70, 80, 87, 93, 99]  # 100 p_j of Croce & Hein, 2020, section 3: p_1 = .22, p_2 = .41 ...


def _halvings(name: str, rises: list[bool]) -> float:
    """log2 of the first step over the step after losses that rise or fall, from -1000 on."""
    attack, x = APGD(name=name), torch.zeros(1, 4)  # type: ignore[arg-type]
    ball, loss = Ball("linf", 1.0, -9.0, 9.0), torch.tensor([-1000.0])
    job = make_job(attack, x, ball)
    for i, rise in enumerate([True, *rises]):
        loss = loss + (1.0 if rise else -0.01)
        job.steps = torch.tensor([i])
        attack.advance(job, loss, x, ball)
    return float(torch.log2(2.0 / job.memory.step).item())


@pytest.mark.parametrize(
    ("name", "rises", "halved"), [("apgd-dlr", 16, 1), ("apgd-dlr", 17, 0), ("apgd-ce", 15, 1), ("apgd-ce", 16, 0)]
)
def test_the_first_checkpoint_needs_three_in_four_ascents(name: str, rises: int, halved: int) -> None:
    # 16.5 of 22; the first step is an ascent for cross-entropy, which is above 0, and none for a negative DLR
    assert _halvings(name, [True] * (rises + 1) + [False] * (21 - rises)) == halved


@pytest.mark.parametrize(("rises", "halved"), [(12, 1), (13, 0)])
def test_exactly_three_in_four_ascents_are_too_few(rises: int, halved: int) -> None:
    assert _halvings("apgd-dlr", [True] * 41 + [True] * rises + [False] * (16 - rises)) == halved


def test_an_unhalved_step_is_halved_where_no_point_was_better() -> None:
    fall_and_rise = [False] + [True] * 18  # 18 ascents of .0001 each would be enough, but the best point stays
    attack, x = APGD(name="apgd-dlr"), torch.zeros(1, 4)
    ball = Ball("linf", 1.0, -9.0, 9.0)
    job = make_job(attack, x, ball)
    loss = -1000.0
    for i, rise in enumerate([True] * 23 + fall_and_rise):
        loss += (1.0 if i < 23 else 0.01) if rise else -5.0
        job.steps = torch.tensor([i])
        attack.advance(job, torch.tensor([loss]), x, ball)
    assert job.memory.step.item() == 1.0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_have_norm_eps(norm: Norm) -> None:
    from rlbench.attacks.apgd import surface
    from rlbench.core.threat import distance

    x, ball = torch.zeros(50, 3, 4, 4), Ball(norm, 0.3, -1.0, 1.0)
    start = surface(x, ball, _streams(50))
    torch.testing.assert_close(distance(start, x, norm), torch.full((50,), 0.3).double(), rtol=1e-5, atol=0)
    assert start.std() > 0.01


def test_more_restarts_break_no_fewer() -> None:
    net, x, streams = _net(), _inputs(64), _streams(64)
    y, ball = net(x).argmax(1), Ball("linf", 0.05, 0.0, 1.0)
    for one, many in ((PGD(steps=3), PGD(steps=3, restarts=4)), (APGD(steps=5), APGD(steps=5, restarts=4))):
        a, b = (judge(Meter(net, 64), k(Meter(net, 64), x, y, ball, streams), x, y, ball) for k in (one, many))
        assert not (b.correct & ~a.correct).any()
        assert (b.margin[a.correct] <= a.margin[a.correct]).all()


@pytest.mark.parametrize("name", ["pgd", "apgd-ce"])
def test_a_survivor_costs_all_passes_of_the_protocol(name: str) -> None:
    net, x = _net(), _inputs(30)
    y, ball = net(x).argmax(1), Ball("linf", 1e-6, 0.0, 1.0)
    meter = Meter(net, 30, batch_size=7)
    attack = registry.make("attack", name, {"steps": 12, "restarts": 2})
    run_attack(attack, meter, x, y, ball, _streams(30))
    assert meter.forwards.tolist() == [2 * 13] * 30
    assert meter.backwards.tolist() == [2 * 12] * 30


def test_a_broken_example_leaves_at_once() -> None:
    net, x, _ = affine(2, 0.0, 1.0)
    y, ball = net(x).argmax(1), Ball("linf", 3.0, 0.0, 1.0)
    meter = Meter(net, 200)
    run_attack(APGD(), meter, x, y, ball, _streams(200))
    assert meter.forwards.max() <= 3


def test_ascend_reaches_the_corner_of_a_linear_loss() -> None:
    x, w, ball = torch.full((4, 6), 0.5), torch.tensor([1.0, -1.0, 2.0, -3.0, 0.5, 1.0]), Ball("linf", 0.2, 0.0, 1.0)
    x_adv = ascend(lambda x: x @ w, x, ball, sample(x, ball, _streams(4)), steps=10, step=0.05)
    torch.testing.assert_close(x_adv, x + 0.2 * w.sign(), atol=1e-6, rtol=0)
    assert not x_adv.requires_grad


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("pgd", {"steps": 0}, "pgd: steps is 0; it must be at least 1"),
        ("pgd", {"rel_step": -1.0}, "rel_step"),
        ("pgd", {"loss": "dlr"}, "loss is 'dlr'; it must be one of ce, margin"),
        ("pgd", {"stpes": 3}, "did you mean 'steps'"),
        ("apgd-t", {"targets": 0}, "apgd-t: targets is 0; it must be at least 1"),
        ("apgd-ce", {"rho": 1.0}, "apgd-ce: rho is 1.0; it must be between 0 and 1"),
        ("apgd-ce", {"name": "apgd-t"}, "no field 'name'"),
        ("fgsm", {"steps": 3}, "no field 'steps'"),
    ],
)
def test_wrong_fields_are_named(name: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        registry.make("attack", name, fields)


def test_an_unknown_attack_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean 'apgd-ce'"):
        registry.make("attack", "apgdce")
