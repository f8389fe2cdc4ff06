"""Square Attack against the original: windows, schedule and survivors; and a classifier that hides its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rlbench.attacks.pgd import PGD
from rlbench.attacks.search.square_windows import bump, place, sides, tiles, window
from rlbench.attacks.square import Square
from rlbench.core import Ball, Norm, registry
from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter

original = pytest.importorskip("pyautoattack.square").SquareAttack


class _ToTheEdge(original):  # type: ignore[misc]
    """The original's windows never reach the last row and column, so it is weaker on small pictures."""

    def random_int(self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)) -> Tensor:
        return super().random_int(low, high + 1, list(shape))


def _streams(n: int) -> ExampleStreams:
    return ExampleStreams(0, tuple(map(str, range(n))), "square")


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 12])
def test_bumps_equal_the_originals(side: int) -> None:
    peer = original(None, norm="L2", eps=1.0, device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [peer.eta(side) for _ in range(12)]
    at, long = torch.tensor([[1, 2]]), torch.tensor([[side, side]])
    own = [bump(at, long, torch.tensor([axis]), (side + 3, side + 3))[0, 0] for axis in (0, 1)]
    for field in own:
        inside = field[1 : 1 + side, 2 : 2 + side]
        assert any(torch.allclose(inside, one, atol=1e-6) for one in theirs)
        torch.testing.assert_close(inside.square().sum(), field.square().sum())
    assert all(any(torch.allclose(one, o[1 : 1 + side, 2 : 2 + side], atol=1e-6) for o in own) for one in theirs)


@pytest.mark.parametrize(("norm", "least"), [("Linf", 1), ("L2", 3)])
@pytest.mark.parametrize("rescale", [False, True])
def test_the_schedule_equals_the_originals(norm: str, least: int, rescale: bool) -> None:
    peer = original(None, norm=norm, eps=1.0, n_queries=5000, p_init=0.8, resc_schedule=rescale)
    queries = torch.arange(0, 5000, 7)
    p = Square(rescale=rescale).share(queries)
    assert p.tolist() == pytest.approx([peer.p_selection(i) for i in queries.tolist()])
    lengths = sides(p, (32, 32), least=least)
    theirs = [max(round((one * 32 * 32) ** 0.5), least) for one in p.tolist()]
    assert lengths[:, 0].tolist() == [min(s + (least == 3 and s % 2 == 0), 32) for s in theirs]
    assert torch.equal(lengths[:, 0], lengths[:, 1])


@pytest.mark.parametrize("sizes", [(50,), (16, 40), (6, 12, 12)], ids=["waveform", "log-mel", "video"])
def test_windows_have_the_boxs_proportions_and_cover_every_place(sizes: tuple[int, ...]) -> None:
    share = torch.full((3000,), 0.1)
    lengths = sides(share, sizes)
    assert [n * 0.1 ** (1 / len(sizes)) for n in sizes] == pytest.approx(lengths[0].tolist(), abs=0.5)
    u = torch.rand(3000, len(sizes), generator=torch.Generator().manual_seed(0))
    first = place(u, lengths, sizes)
    assert first.amin(0).tolist() == [0] * len(sizes)
    assert (first + lengths).amax(0).tolist() == list(sizes)
    inside = window(first[:5], lengths[:5], sizes)
    assert torch.equal(inside.flatten(1).sum(1), lengths[:5].prod(1))
    assert inside[0, 0][
        tuple(slice(f, f + n) for f, n in zip(first[0].tolist(), lengths[0].tolist(), strict=True))
    ].all()


def test_tiles_lie_side_by_side() -> None:
    starts, lengths = tiles((32, 20))
    assert lengths == (6, 4) and len(starts) == 25
    assert starts[0] == (1, 0) and starts[-1] == (25, 16)


def _net(features: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(features, 32), nn.Tanh(), nn.Linear(32, 6))
    return net.requires_grad_(False).eval()


def _survivors(classify: nn.Module, x: Tensor, y: Tensor, ball: Ball, queries: int) -> tuple[int, int, Tensor]:
    """The survivors of ours and of the original, and our passes."""
    meter, streams = Meter(classify, len(x)), _streams(len(x))
    x_adv = Square(queries=queries)(meter, x, y, ball, streams)
    passes = meter.forwards.clone()
    ours = judge(meter, x_adv, x, y, ball).correct
    norm = {"linf": "Linf", "l2": "L2"}[ball.norm]
    with torch.random.fork_rng(), torch.no_grad():
        peer = _ToTheEdge(classify, norm=norm, eps=ball.radius, n_queries=queries, resc_schedule=False, device="cpu")
        theirs = classify(peer.perturb(x, y)).argmax(1) == y
    return int(ours.sum()), int(theirs.sum()), passes


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.045), ("l2", 0.5)])
def test_as_many_survive_as_of_the_original(norm: Norm, eps: float) -> None:
    net, x = _net(3 * 100), torch.rand(80, 3, 10, 10, generator=torch.Generator().manual_seed(1))
    ours, theirs, passes = _survivors(net, x, net(x).argmax(1), Ball(norm, eps, 0.0, 1.0), 200)
    assert 10 < theirs < 70
    assert abs(ours - theirs) <= 6
    assert passes.max() == 201
    assert passes.min() <= 2


def test_as_many_survive_on_a_bundled_encoder() -> None:
    suite = load_suite("thermal")
    try:
        encoder = load_encoder("languagebind", "thermal")
    except (CheckpointError, ModalityError) as missing:
        pytest.skip(str(missing))
    found = suite.task.load(encoder.boxes["thermal"], 0, 24)
    classify = zero_shot(encoder, "thermal", suite.task.classes, suite.task.templates)
    right = (classify(found.x).argmax(1) == found.y).nonzero()[:, 0]
    ball = Ball("linf", 12 / 255, 0.0, 1.0)
    ours, theirs, _ = _survivors(classify, found.x[right], found.y[right], ball, 60)  # type: ignore[arg-type]
    assert 0 < theirs < len(right)
    assert abs(ours - theirs) <= 3


class _Staircase(nn.Module):
    """A classifier that rounds its input to 32 levels: the gradient is 0 everywhere, but the logits change."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.net = _net(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 32).round() / 32)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.0)])
def test_it_breaks_a_classifier_that_masks_its_gradient(norm: Norm, eps: float) -> None:
    net, x = _Staircase(100).eval(), torch.rand(20, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    y, ball = net(x).argmax(1), Ball(norm, eps, 0.0, 1.0)
    left = {}
    for attack in (PGD(steps=20), Square(queries=200)):
        meter = Meter(net, 20)
        left[type(attack)] = int(judge(meter, attack(meter, x, y, ball, _streams(20)), x, y, ball).correct.sum())
    assert left[PGD] > 10
    assert left[Square] < 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"queries": 0}, "queries is 0"), ({"p_init": 1.5}, "p_init is 1.5"), ({"query": 3}, "did you mean 'queries'")],
)
def test_wrong_fields_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        registry.make("attack", "square", fields)
