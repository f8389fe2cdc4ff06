"""Every registered attack: stays in its ball in any box, at eps 0, on few classes, in any batch size and order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rlbench.core import Attack, Ball, Norm, registry
from rlbench.core.errors import AttackError, FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import norms_of, violation
from rlbench.engine.attack.judge import judge, run_attack
from rlbench.engine.attack.meter import Meter

LIGHT: dict[str, dict[str, object]] = {
    "adaptive-long": {"steps": 10, "long": 10, "again": 3},
    "autoattack": {"steps": 6, "queries": 40, "targets": 2},
    "hopskipjump": {"queries": 300},
    "noise": {"points": 30},
    "rays": {"queries": 200},
    "square": {"queries": 60},
    "torchattacks:DeepFool": {"steps": 3},
    "torchattacks:Square": {"n_queries": 20},
}
STRONG: dict[str, dict[str, object]] = {  # the libraries' defaults step for pictures and 8/255
    "rays": {"queries": 1000},  # one of the two classes has 1% of the corners
    "torchattacks:CW": {"c": 100.0, "lr": 0.05, "kappa": 2.0},
    "torchattacks:DeepFool": {"steps": 50, "overshoot": 0.5},  # less may stop short of the boundary by rounding
    "torchattacks:FFGSM": {"alpha": 1.0},
    "torchattacks:Jitter": {"alpha": 0.3, "std": 0.0},
    "torchattacks:Square": {"n_queries": 200},
}
WHOLE = ("aa-clip", "autoattack:reference", "torchattacks:AutoAttack")  # long, without a field to shorten them
BOXES = [(0.0, 1.0), (-1.0, 1.0), (-1.3, 1.5)]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l0")


def make(name: str) -> Attack:
    """The attack, with fewer steps where it has steps."""
    if name in LIGHT:
        return registry.make("attack", name, LIGHT[name])  # type: ignore[no-any-return]
    try:
        attack: Attack = registry.make("attack", name, {"steps": 10})
    except FieldError:
        attack = registry.make("attack", name)
    return attack


def strong(name: str) -> Attack:
    """A library's attack with steps that reach the ball's border; of rlbench's own, `make`."""
    if name in STRONG:
        return registry.make("attack", name, STRONG[name])  # type: ignore[no-any-return]
    try:
        attack: Attack = registry.make("attack", name, {"alpha": 0.3})
    except FieldError:
        attack = make(name)
    return attack


ATTACKS = registry.names("attack")
CASES = [(name, norm) for name in ATTACKS for norm in NORMS if norm in norms_of(make(name))]
EXACT = (
    "acg",
    "apgd-ce",
    "apgd-dlr",
    "apgd-pm",
    "apgd-t",
    "autoattack",
    "fab-t",
    "fmn",
    "hopskipjump",
    "malt",
    "noise",
    "rays",
    "sigma-zero",
    "square",
    "uap",
)  # stop early at success alone
OWN = [(name, norm) for name, norm in CASES if ":" not in name and name not in WHOLE]
LIBRARY: list[tuple[str, Norm]] = [
    ("torchattacks:PGD", "linf"),
    ("torchattacks:APGD", "l2"),
]  # one loop serves them all


def _net(shape: tuple[int, ...], n_classes: int = 5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 24), nn.Tanh(), nn.Linear(24, n_classes))
    return net.requires_grad_(False).eval()


def _inputs(n: int, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


def _ball(norm: Norm, eps: float, low: float = 0.0, high: float = 1.0) -> Ball:
    """The ball of this eps for a box of range 1; in L0, of one position, or of 16 for an eps above 1."""
    return Ball(norm, 1.0 + 15 * (eps > 1) if norm == "l0" else eps * (high - low), low, high)


def _streams(n: int) -> ExampleStreams:
    return ExampleStreams(0, tuple(f"example {i}" for i in range(n)), "test")


@pytest.mark.parametrize(
    ("name", "norm", "low", "high"),
    [(*case, *box) for case in CASES for box in BOXES if case in OWN or box == BOXES[-1]],
)
def test_every_attack_stays_in_its_ball_and_leaves_its_input(name: str, norm: Norm, low: float, high: float) -> None:
    n, shape = (7, (3, 2, 2)) if (name, norm) in OWN else (2, (1, 6, 6))
    x, net = _inputs(n, shape, low, high), _net(shape)
    x[0], x[1] = low, high
    eps = 2.0 if name in WHOLE else 0.07  # so far that the first of their attacks breaks all
    y, ball = net(x).argmax(1), _ball(norm, eps, low, high)
    before, state = x.clone(), torch.get_rng_state()
    x_adv = make(name)(Meter(net, n, batch_size=5), x, y, ball, _streams(n))
    assert violation(x_adv, x, ball) is None
    assert torch.equal(x, before)
    assert not x_adv.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(1, 36), (2, 3, 6, 6)], ids=["waveform", "video"])
@pytest.mark.parametrize(("name", "norm"), [*OWN, *LIBRARY])
def test_every_attack_works_on_every_shape(name: str, norm: Norm, shape: tuple[int, ...]) -> None:
    x, net = _inputs(2, shape, -1.0, 1.0), _net(shape)
    ball = _ball(norm, 0.05, -1.0, 1.0)
    assert violation(make(name)(Meter(net, 2), x, net(x).argmax(1), ball, _streams(2)), x, ball) is None


@pytest.mark.parametrize(("name", "norm"), [*OWN, *LIBRARY])
def test_eps_zero_gives_the_input(name: str, norm: Norm) -> None:
    x, net = _inputs(4, (1, 6, 6)), _net((1, 6, 6))
    x_adv = make(name)(Meter(net, 4), x, net(x).argmax(1), Ball(norm, 0.0, 0.0, 1.0), _streams(4))
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_works_on_few_classes_or_raises_an_error(name: str, n_classes: int) -> None:
    shape, n = (1, 6, 6), 1 if ":" in name or name in WHOLE else 12
    x, net, attack = _inputs(n, shape), _net(shape, n_classes), strong(name)
    norm: Norm = "linf" if "linf" in norms_of(attack) else min(norms_of(attack))
    y, ball = net(x).argmax(1), _ball(norm, 0.7 if norm == "linf" else 4.2)
    meter = Meter(net, n)
    if name.startswith("torchattacks:") and n_classes < attack.min_classes:  # type: ignore[attr-defined]
        with pytest.raises(AttackError, match=f"needs 4 classes, not {n_classes}"):
            run_attack(attack, meter, x, y, ball, _streams(n))
        return
    verdict = judge(meter, run_attack(attack, meter, x, y, ball, _streams(n)), x, y, ball)
    assert not verdict.correct.all()
    assert attack.loss_used(n_classes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "norm"), [*OWN, *LIBRARY])
def test_flags_depend_on_neither_batch_size_nor_order(name: str, norm: Norm) -> None:
    n, shape = 20, (1, 6, 6) if norm == "l0" else (3, 2, 2)
    x, streams, net = _inputs(n, shape), _streams(n), _net(shape)
    y, ball = net(x).argmax(1), _ball(norm, 0.05 if norm == "linf" else 0.12)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(2))

    def flags(batch_size: int, rows: Tensor) -> Tensor:
        meter = Meter(net, n, batch_size=batch_size)
        x_adv = make(name)(meter, x[rows], y[rows], ball, streams.take(rows.tolist()))
        out = torch.empty(n, dtype=torch.bool)
        out[rows] = judge(meter, x_adv, x[rows], y[rows], ball).correct
        return out

    expected = flags(64, torch.arange(n))
    assert 0 < expected.sum() < n
    assert torch.equal(flags(7, torch.arange(n)), expected)
    assert torch.equal(flags(7, order), expected)


class _Far:
    """A classifier that always predicts class 0, so that every example costs the most passes of an attack."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def __call__(self, x: Tensor) -> Tensor:
        rest = 0.01 * x.flatten(1)[:, : self.n_classes - 1].sin()
        return torch.cat([1 + 0 * rest[:, :1], rest], dim=1)


@pytest.mark.parametrize("n_classes", [2, 12])
@pytest.mark.parametrize("name", [name for name in ATTACKS if hasattr(make(name), "passes") and name not in WHOLE])
def test_no_attack_takes_more_passes_than_it_states(name: str, n_classes: int) -> None:
    n, attack = 1 if ":" in name else 3, make(name)
    x, meter = _inputs(n, (1, 6, 6)), Meter(_Far(n_classes), n, batch_size=2)
    norm: Norm = "linf" if "linf" in norms_of(attack) else min(norms_of(attack))
    if name.startswith("torchattacks:") and n_classes < attack.min_classes:  # type: ignore[attr-defined]
        pytest.skip("not defined")
    run_attack(attack, meter, x, torch.zeros(n, dtype=torch.int64), _ball(norm, 0.01), _streams(n))
    forwards, backwards = attack.passes(n_classes)  # type: ignore[attr-defined]
    least = 0.8 if name in EXACT else 0.0
    assert least * forwards <= meter.forwards.max() <= forwards
    assert least * backwards <= meter.backwards.max() <= backwards
