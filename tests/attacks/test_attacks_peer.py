"""apgd-ce, apgd-dlr and apgd-t against the original code (pyautoattack), from the same starting points."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from jobs import make_job
from torch import Tensor, nn

from rlbench.attacks.apgd import APGD, surface
from rlbench.core import Ball, Norm, Streams, Threat
from rlbench.core.errors import CheckpointError, ModalityError, UnknownName
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.core.threat import ball_of
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter

autopgd = pytest.importorskip("pyautoattack.autopgd_base")
Classify = Callable[[Tensor], Tensor]


def _matched(base: type, x: Tensor, ball: Ball, streams: Streams, name: str) -> type:
    """The original's class with our random starts: target t and restart r of each example get our point."""
    row = {point.numpy().tobytes(): i for i, point in enumerate(x)}

    class Matched(base):  # type: ignore[misc]
        turn = 0

        def attack_single_run(self, x: Tensor, y: Tensor, x_init: Tensor | None = None) -> object:
            rows = [row[point.numpy().tobytes()] for point in x]
            job = f"target {self.turn}/restart 0" if name == "apgd-t" else f"restart {self.turn}"
            self.turn += 1
            return super().attack_single_run(x, y, x_init=surface(x, ball, streams.child(job).take(rows)))

    return Matched


def peer(
    name: str,
    classify: Classify,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    streams: Streams | None,
    steps: int,
    targets: int = 9,
) -> Tensor:
    """(N,) bool, the examples that are correct under the original, from our starts (or, without streams, its own)."""
    base = autopgd.APGDAttack_targeted if name == "apgd-t" else autopgd.APGDAttack
    kind = base if streams is None else _matched(base, x, ball, streams, name)
    fields = (
        {"n_target_classes": min(targets, classify(x[:1]).shape[1] - 1)} if name == "apgd-t" else {"loss": name[5:]}
    )
    norm = {"linf": "Linf", "l2": "L2"}[ball.norm]
    attack = kind(classify, n_iter=steps, norm=norm, eps=ball.radius, seed=1, device="cpu", **fields)
    with torch.no_grad():
        return classify(attack.perturb(x, y)).argmax(1) == y


def own(
    name: str,
    classify: Classify,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    streams: Streams,
    steps: int,
    targets: int = 9,
    batch_size: int = 64,
) -> Tensor:
    """(N,) bool, the examples that are correct under ours."""
    meter = Meter(classify, len(x), batch_size=batch_size)
    x_adv = APGD(name=name, steps=steps, targets=targets)(meter, x, y, ball, streams)  # type: ignore[arg-type]
    return judge(meter, x_adv, x, y, ball).correct


def _net(seed: int, n_classes: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 32), nn.GELU())
        net.append(nn.Linear(32, n_classes))
    return net.requires_grad_(False).eval()


def _data(net: nn.Module, n: int) -> tuple[Tensor, Tensor, ExampleStreams]:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return x, net(x).argmax(1), ExampleStreams(0, tuple(map(str, range(n))), "peer")


CASES: list[tuple[str, Norm, float]] = [
    ("apgd-ce", "linf", 0.02),
    ("apgd-dlr", "linf", 0.02),
    ("apgd-t", "linf", 0.02),
    ("apgd-ce", "l2", 0.12),
    ("apgd-dlr", "l2", 0.12),
    ("apgd-t", "l2", 0.12),
]


@pytest.mark.parametrize(("name", "norm", "eps"), CASES)
def test_same_starts_give_the_same_flags(name: str, norm: Norm, eps: float) -> None:
    net = _net(0)
    x, y, streams = _data(net, 48)
    ball = Ball(norm, eps, 0.0, 1.0)
    theirs = peer(name, net, x, y, ball, streams, 25)
    ours = own(name, net, x, y, ball, streams, 25)
    assert 0.2 < theirs.float().mean() < 0.9
    assert torch.equal(ours, theirs)
    if name != "apgd-t":
        assert ours.sum() <= peer(name, net, x, y, ball, None, 25).sum() + 1


def _bundled(model: str, n: int) -> tuple[Classify, Tensor, Tensor, ExampleStreams, Ball]:
    """Clean-correct examples of the thermal world under a bundled encoder, in its suite's ball."""
    suite = load_suite("thermal")
    try:
        encoder = load_encoder(model, suite.modality)
    except (CheckpointError, ModalityError, UnknownName) as missing:
        pytest.skip(str(missing))
    box = encoder.boxes[suite.modality]
    found = suite.task.load(box, 0, n)
    classify = zero_shot(encoder, suite.modality, suite.task.classes, suite.task.templates)
    right = (classify(found.x).argmax(1) == found.y).nonzero()[:, 0]
    streams = ExampleStreams(0, found.ids, "bundled").take(right.tolist())
    return classify, found.x[right], found.y[right], streams, ball_of(Threat("linf", Fraction(4, 255)), box)


@pytest.mark.parametrize("model", ["languagebind", "rlbind"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t"])
def test_same_flags_on_bundled_encoders(model: str, name: str) -> None:
    """A short form of compare_autoattack.py, which has 200 examples and 100 iterations."""
    classify, x, y, streams, ball = _bundled(model, 24)
    theirs = peer(name, classify, x, y, ball, streams, 15, 3)
    assert 0 < theirs.sum() < len(x)
    assert torch.equal(own(name, classify, x, y, ball, streams, 15, 3), theirs)


@pytest.mark.parametrize("model", ["languagebind", "rlbind"])
def test_flags_on_bundled_encoders_depend_on_neither_batch_size_nor_order(model: str) -> None:
    classify, x, y, streams, ball = _bundled(model, 20)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    expected = own("apgd-ce", classify, x, y, ball, streams, 10)
    for batch_size in (1, 7):
        assert torch.equal(own("apgd-ce", classify, x, y, ball, streams, 10, batch_size=batch_size), expected)
    shuffled = own("apgd-ce", classify, x[order], y[order], ball, streams.take(order.tolist()), 10, batch_size=7)
    assert torch.equal(shuffled, expected[order])


class _Path:
    """A classifier that records the points that it classifies while gradients are on."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.points = net, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.points.append(x.detach().clone())
        return self.net(x)  # type: ignore[no-any-return]


class _Wave(nn.Module):
    """A rough surface on which steps oscillate, and class 0 so far ahead that no attack ends early."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.a, self.b = torch.randn(64, 32, generator=g), 0.1 * torch.randn(32, 10, generator=g)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.a).sin() @ self.b + 4 * torch.eye(10)[0]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 0.5)])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
def test_same_starts_take_the_same_path(name: str, norm: Norm, eps: float) -> None:
    """Every rule of the step: momentum, both reasons to halve, the return to the best point with its gradient."""
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    y, streams, ball = torch.zeros(20, dtype=torch.int64), _data(_net(0), 20)[2], Ball(norm, eps, 0.0, 1.0)
    ours, theirs = _Path(_Wave()), _Path(_Wave())
    assert own(name, ours, x, y, ball, streams, 100, 1).all()
    peer(name, theirs, x, y, ball, streams, 100, 1)
    # Later on coordinates have converged, and rounding decides the sign of their gradient.
    pairs = zip(ours.points[:80], theirs.points, strict=False)
    gaps = torch.stack([(a - b).abs().flatten(1).amax(1) for a, b in pairs])
    assert gaps.shape == (80, 20)
    assert (gaps < 1e-2 * eps).all(0).float().mean() > 0.9


def test_an_unhalved_step_is_halved_where_no_point_was_better() -> None:
    """Condition 2 of Croce & Hein, 2020, alone: after a fall, all steps ascend, but none reaches the best loss."""
    attack, ball, x = APGD(), Ball("linf", 0.1, 0.0, 1.0), torch.full((1, 1, 2, 2), 0.5)
    job, steps = make_job(attack, x, ball), []
    for i in range(42):
        job.steps = torch.tensor([i])
        attack.advance(job, torch.tensor([float(i if i <= 22 else i - 60)]), torch.ones_like(x), ball)
        steps.append(float(job.memory.step))
    assert steps == pytest.approx([0.2] * 41 + [0.1])  # checkpoints of 100 iterations: 22, 41, ...
