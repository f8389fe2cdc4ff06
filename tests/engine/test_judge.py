"""The judge trusts no attack; the meter's counts equal those of a counting model; `attack` attacks any classifier."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from affine_bench import Crash
from torch import Tensor, nn

from rlbench.core import Adversarial, Ball, Box, Classifier, Streams, Threat, registry
from rlbench.core.errors import AttackError, FieldError, RLBenchError, UnknownName
from rlbench.core.registry import make
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import ball_of, violation
from rlbench.engine.attack.api import Attacked, attack
from rlbench.engine.attack.judge import judge, run_attack
from rlbench.engine.attack.meter import Meter

BALL = Ball("linf", 0.1, 0.0, 1.0)


def _net(n_classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, n_classes))
    return net.requires_grad_(False).eval()


def _inputs(n: int) -> tuple[Tensor, Tensor, ExampleStreams]:
    x = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(5))
    return x, _net()(x).argmax(1), ExampleStreams(0, tuple(map(str, range(n))))


def _nan(x: Tensor) -> Tensor:
    return torch.where(torch.arange(len(x))[:, None, None, None] == 2, float("nan"), x)


def test_an_attack_leaves_no_setting_to_the_next_one() -> None:
    def careless(classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        torch.set_grad_enabled(False)
        return x

    x, y, streams = _inputs(2)
    run_attack(careless, _net(), x, y, BALL, streams)
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[:-1], "x_adv is"),
        (lambda x: x.double(), "float64"),
        (_nan, "not finite"),
        (lambda x: (x + 0.05).clamp(max=1.05), "leaves the box"),
        (lambda x: (x - 0.11).clamp(0, 1), "the linf norm is"),
        (lambda x: x.numpy(), "ndarray; it must return a tensor"),
        (lambda x: 1 / 0, "crashed: ZeroDivisionError"),
        (lambda x: sys.exit(3), "crashed: SystemExit: 3"),
        (lambda x: torch.set_default_dtype(torch.float64), "sets torch's default dtype to torch.float64"),
    ],
)
def test_a_result_that_breaks_the_contract_fails(answer: Callable[[Tensor], Tensor], message: str) -> None:
    x, y, streams = _inputs(6)
    x[0] = 1.0
    meter = Meter(_net(), 6)

    def bad(classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        return answer(x)

    with pytest.raises(AttackError, match=message):
        judge(meter, run_attack(bad, meter, x, y, BALL, streams), x, y, BALL)


def test_a_nan_gradient_fails_the_attack_and_never_passes_as_robust() -> None:
    x, y, streams = _inputs(6)
    net = _net()

    def broken(x: Tensor) -> Tensor:  # the value is fine, and the gradient is 0 * inf
        return net(x) + 0 * (x.flatten(1).sum(1, keepdim=True) * 0).sqrt()

    for norm in ("linf", "l2"):
        with pytest.raises(AttackError, match="gradient is not finite for 6 of 6"):
            run_attack(make("attack", "pgd"), Meter(broken, 6), x, y, replace(BALL, norm=norm), streams)


def test_an_attack_cannot_change_the_harness_input() -> None:
    x, y, streams = _inputs(6)
    before = x.clone()

    def vandal(classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        y.zero_()
        return x.fill_(0.5)

    assert violation(run_attack(vandal, Meter(_net(), 6), x, y, BALL, streams), x, BALL) is not None
    assert torch.equal(x, before)
    assert torch.equal(y, _inputs(6)[1])


def test_a_judgement_with_known_values() -> None:
    logits = torch.tensor([[2.0, 0.5], [0.5, 2.0], [1.0, 1.0], [float("nan"), 0.0]])
    x = torch.zeros(4, 2)
    x_adv = x.clone()
    x_adv[0, 1] = 0.05
    verdict = judge(Meter(lambda x: logits, 4), x_adv, x, torch.zeros(4, dtype=torch.int64), BALL)
    assert verdict.correct.tolist() == [True, False, False, False]  # a tie and a NaN are errors
    assert verdict.margin[:3].tolist() == [1.5, -1.5, 0.0]
    assert verdict.prediction[:2].tolist() == [0, 1]
    assert verdict.distance.tolist() == pytest.approx([0.05, 0, 0, 0])


class Counting(nn.Module):
    """Counts the rows that go through it, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.forwards, self.backwards, self.largest = _net(), 0, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        self.forwards += len(x)
        self.largest = max(self.largest, len(x))
        if logits.requires_grad:
            logits.register_hook(self.count)
        return logits

    def count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-t"])
def test_the_meter_counts_what_a_counting_model_counts(name: str) -> None:
    net, seen = Counting().eval(), list[int]()
    x, y, streams = _inputs(40)
    meter = Meter(net, 40, batch_size=7, on_pass=seen.append)
    ball = replace(BALL, radius=0.04)
    judge(meter, run_attack(make("attack", name), meter, x, y, ball, streams), x, y, ball)
    assert meter.forwards.sum() == net.forwards == sum(seen)
    assert meter.backwards.sum() == net.backwards
    assert net.largest <= 7


def test_the_meter_counts_by_example() -> None:
    meter = Meter(_net(), 5, batch_size=2)
    x = torch.rand(3, 3, 2, 2, requires_grad=True)
    meter(x, torch.tensor([4, 0, 4])).sum().backward()
    assert meter.forwards.tolist() == meter.backwards.tolist() == [1, 0, 0, 0, 2]
    torch.testing.assert_close(meter(x), _net()(x))


def test_the_meter_makes_float32_of_half_logits() -> None:
    assert Meter(lambda x: x.half(), 3)(torch.ones(3, 4)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 4)])
def test_outputs_that_are_not_logits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RLBenchError, match="logits are"):
        Meter(lambda x: torch.zeros(shape), 3)(torch.ones(3, 4))


def _attack(name: str = "pgd", n: int = 20, **keywords: object) -> Attacked:
    x, y, _ = _inputs(n)
    return attack(_net(), x, y, name, **{"eps": 0.03, **keywords})  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attack_returns_what_another_forward_pass_confirms(norm: str) -> None:
    x, y, _ = _inputs(50)
    y[::5] = (y[::5] + 1) % 4
    threat = Threat(norm, Fraction("0.04"))  # type: ignore[arg-type]
    found = attack(_net(), x, y, "apgd-ce", norm=threat.norm, eps="0.04", steps=10)
    assert torch.equal(found.broken, _net()(found.x_adv).argmax(1) != y)
    assert found.broken[::5].all() and not found.broken.all()
    assert torch.equal(found.x_adv[::5], x[::5])
    assert (found.distance[::5] == 0).all() and (found.distance > 0).any()
    assert (found.forwards[::5] == 1).all() and (found.backwards[::5] == 0).all()
    assert violation(found.x_adv, x, ball_of(threat, Box(shape=(3, 2, 2)))) is None


def test_eps_scales_with_the_box() -> None:
    x, y, _ = _inputs(20)
    net = _net()
    unit = attack(net, x, y, "apgd-ce", eps="8/255")
    wide = attack(lambda z: net((z + 1) / 2), 2 * x - 1, y, "apgd-ce", eps="8/255", low=-1.0, high=1.0)
    assert wide.distance.max() == pytest.approx(2 * 8 / 255, rel=1e-5)
    assert torch.equal(wide.broken, unit.broken)


def test_attack_depends_on_seed_and_ids_alone() -> None:
    x, y, _ = _inputs(20)
    whole = attack(_net(), x, y, "pgd", eps=1e-4, seed=3)
    part = attack(_net(), x[10:], y[10:], "pgd", eps=1e-4, seed=3, ids=[str(i) for i in range(10, 20)], batch_size=3)
    torch.testing.assert_close(part.x_adv, whole.x_adv[10:], atol=1e-5, rtol=0)
    assert not torch.equal(attack(_net(), x, y, "pgd", eps=1e-4, seed=4).x_adv, whole.x_adv)


def test_attack_draws_the_numbers_of_the_cell() -> None:
    x, y, _ = _inputs(8)
    threat = Threat("linf", Fraction(1, 255))
    cell = ExampleStreams(0, tuple(map(str, range(8))), str(Adversarial("pgd", threat, (("steps", 3),))))
    ball = ball_of(threat, Box(shape=(3, 2, 2)))
    expected = make("attack", "pgd", {"steps": 3})(Meter(_net(), 8), x, y, ball, cell)
    assert torch.equal(attack(_net(), x, y, "pgd", eps="1/255", steps=3).x_adv, expected)


def test_an_attack_that_did_not_try_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that tried and found nothing is a result: the clean accuracy."""
    entry = registry.PluginInfo("attack", "crash", Crash.__module__, "Crash", "")
    table = {**registry.entries(), ("attack", "crash"): entry}
    monkeypatch.setattr(registry, "entries", lambda: table)
    with pytest.raises(AttackError, match="Crash returned its inputs, and asked the classifier nothing"):
        _attack("crash", how="idle")
    assert not _attack("crash", how="tries").broken.any() and not _attack("crash", eps=0, how="idle").broken.any()


def test_attack_of_an_empty_batch_is_empty() -> None:
    assert _attack(n=0).broken.shape == (0,)


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        ({"name": "pdg"}, UnknownName, "did you mean 'pgd'"),
        ({"eps": "4/0"}, FieldError, "4/0"),
        ({"eps": -1}, FieldError, "must not be negative"),
        ({"norm": "l1"}, FieldError, "norm is 'l1'; it must be one of linf, l2"),
        ({"batch_size": 0}, FieldError, "batch_size is 0; it must be at least 1"),
        ({"low": 0.5}, RLBenchError, "it must lie in the box"),
        ({"ids": ["a"]}, RLBenchError, "ids"),
        ({"step": 3}, FieldError, "did you mean 'steps'"),
    ],
)
def test_wrong_arguments_are_named(keywords: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        _attack(**keywords)  # type: ignore[arg-type]


def test_a_label_beyond_the_classes_and_training_mode_are_refused() -> None:
    x, y, _ = _inputs(4)
    with pytest.raises(RLBenchError, match="training mode"):
        attack(_net().train(), x, y, "pgd")
    with pytest.raises(RLBenchError, match="label"):
        attack(_net(), x, y + 4, "pgd")
