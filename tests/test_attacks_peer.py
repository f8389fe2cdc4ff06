"""apgd-ce, apgd-dlr and apgd-t against the original code (pyautoattack), from the same starting points."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from rlbench.attacks.apgd import APGD, surface
from rlbench.core import Ball, Norm, Streams
from rlbench.judge import Meter, judge
from rlbench.seeds import ExampleStreams

autopgd = pytest.importorskip("pyautoattack.autopgd_base")
Classify = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _matched(base: type, x: Tensor, ball: Ball, streams: Streams, name: str) -> type:
    """The original's class with our random starts: target t and restart r of each example get our stream's point."""
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
    name: str, classify: Classify, x: Tensor, y: Tensor, ball: Ball, streams: Streams | None, steps: int
) -> Tensor:
    """(N,) correct under the original, from our starts (or, without streams, from its own)."""
    base = autopgd.APGDAttack_targeted if name == "apgd-t" else autopgd.APGDAttack
    kind = base if streams is None else _matched(base, x, ball, streams, name)
    fields = {"n_target_classes": min(9, classify(x[:1]).shape[1] - 1)} if name == "apgd-t" else {"loss": name[5:]}
    norm = {"linf": "Linf", "l2": "L2"}[ball.norm]
    attack = kind(classify, n_iter=steps, norm=norm, eps=ball.radius, seed=1, device="cpu", **fields)
    with torch.no_grad():
        return classify(attack.perturb(x, y)).argmax(1) == y


def own(name: str, classify: Classify, x: Tensor, y: Tensor, ball: Ball, streams: Streams, steps: int) -> Tensor:
    """(N,) correct under ours."""
    meter = Meter(classify, len(x))
    x_adv = APGD(name=name, steps=steps)(meter, x, y, ball, streams)  # type: ignore[arg-type]
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


class _Path:
    """A classifier that keeps the points it is asked about while gradients are on."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.points = net, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.points.append(x.detach().clone())
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "norm", "eps"), [(name, norm, eps / 8) for name, norm, eps in CASES])
def test_same_starts_take_the_same_path(name: str, norm: Norm, eps: float) -> None:
    net = _net(0)
    x, y, streams = _data(net, 60)
    safest = net(x).topk(2).values.diff()[:, 0].argsort()[:20]
    x, y, streams = x[safest], y[safest], streams.take(safest.tolist())
    ball = Ball(norm, eps, 0.0, 1.0)
    ours, theirs = _Path(net), _Path(net)
    assert own(name, ours, x, y, ball, streams, 60).all()
    peer(name, theirs, x, y, ball, streams, 60)
    pairs = zip(ours.points[:60], theirs.points, strict=False)
    gaps = torch.stack([(a - b).abs().flatten(1).amax(1) for a, b in pairs])
    assert gaps.shape == (60, 20)
    assert (gaps < 1e-2 * eps).float().mean() > 0.95
