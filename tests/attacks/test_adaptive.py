"""The adaptive attack: short runs at targets that it chooses by itself, and examples that it gives up."""

from dataclasses import dataclass, field

import pytest
import torch

from rlbench.attacks.adaptive_long import AdaptiveLong, LongSearch
from rlbench.attacks.apgd import checkpoints
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.core import Ball
from rlbench.core.errors import FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.engine.attack.api import attack
from rlbench.engine.attack.meter import Meter

pytestmark = pytest.mark.filterwarnings("ignore::rlbench.core.errors.SoundnessWarning")  # of planted gradients of zero


@dataclass
class Spy:
    """A classifier that records its batch sizes."""

    net: torch.nn.Module
    calls: list[int] = field(default_factory=list)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        return self.net(x)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 6)
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def points(net, n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, net(x).argmax(1)


def slope(scale: float):
    """A linear classifier of 4 values with margin 1 at .5: eps takes 4 * scale * eps of it, for every class alike."""

    def classify(x: torch.Tensor) -> torch.Tensor:
        moved = (x.flatten(1) - 0.5).sum(1) * scale
        return torch.stack([1.0 - moved, moved * 0, moved * 0 - 1, moved * 0 - 2, moved * 0 - 3], dim=1)

    return classify


def test_it_breaks_what_targeted_apgd_breaks_with_a_fraction_of_the_passes(net) -> None:
    x, y = points(net)
    long, short = (attack(net, x, y, name, eps="0.06") for name in ("apgd-t", "adaptive"))
    assert long.broken.any() and not long.broken.all()
    assert torch.equal(short.broken, long.broken)
    assert short.backwards.sum() < long.backwards.sum() / 5


def test_every_run_has_a_target_of_its_own(net) -> None:
    """A linear classifier where only one wrong class can be reached, whichever is nearest at the start."""
    weights = torch.eye(6)[:, :5].repeat_interleave(2, dim=1)[:, :4] * 0
    weights[3] = torch.tensor([1.0, 1.0, -1.0, -1.0])
    x = torch.full((1, 1, 2, 2), 0.5)
    bias = torch.tensor([1.0, 0.95, 0.94, 0.7, 0.93, 0.92])  # class 3 is fifth, and the only one that x can change

    def classify(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ weights.T + bias

    y = torch.tensor([0])
    assert attack(classify, x, y, "adaptive", eps="0.1", hopeless=1e9).broken.item()
    assert not attack(classify, x, y, "adaptive", eps="0.07", hopeless=1e9).broken.item()  # needs .075


def test_hopeless_examples_end_after_a_run_and_masked_ones_do_not() -> None:
    """A margin of 1 falls by 0.2 (hopeless), 0.6, 0.94 (near), or not at all (as with masked gradients)."""
    x = torch.full((2, 1, 2, 2), 0.5)
    y = torch.zeros(2, dtype=torch.int64)

    for scale, runs in ((0.5, 1), (1.5, 5), (2.35, 9), (0.0, 5)):  # at eps .1; near ones get every target twice
        found = attack(slope(scale), x, y, "adaptive", eps="0.1", steps=10)
        assert not found.broken.any()
        assert found.backwards.tolist() == [2 + 10 * runs] * 2, scale


def test_an_example_broken_by_the_first_step_costs_one_gradient() -> None:
    """A linear classifier whose examples lie at .5 and at 1.5 of eps from the boundary."""

    def classify(x: torch.Tensor) -> torch.Tensor:
        rest = torch.full((len(x), 4), -9.0)
        return torch.cat([x.flatten(1).sum(1, keepdim=True), rest], dim=1) + torch.tensor([0.0, 10.0, 0, 0, 0])

    x = torch.stack([torch.full((1, 2, 2), 0.25 + d) for d in (0.05, 0.15)])
    found = attack(classify, x, torch.zeros(2, dtype=torch.int64), "adaptive", eps="0.1", steps=10, hopeless=0.1)
    assert found.broken.tolist() == [True, False]
    assert found.backwards.tolist() == [1, 2 + 10]


def test_batch_size_does_not_change_the_result(net) -> None:
    x, y = points(net)
    whole, small = (attack(net, x, y, "adaptive", eps="0.06", batch_size=b) for b in (64, 5))
    assert torch.equal(whole.broken, small.broken)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"targeted": 0}, {"targets": 0}, {"hopeless": 0.0}, {"hopeless": float("nan")}, {"near": -1.0}],
)
def test_fields_are_checked(net, wrong) -> None:
    x, y = points(net, 2)
    with pytest.raises(FieldError, match=f"adaptive.*: {next(iter(wrong))} is"):
        attack(net, x, y, "adaptive", **wrong)


WIDE = {"hopeless": 4.0, "near": 0.5}


def test_a_class_gets_its_kth_long_run_only_near_the_boundary() -> None:
    """Margins of 1 fall by 0.16, 0.3, 0.6, 0.7, 0.94 and not at all: the shares r are 21/4, 7/3, 2/3, 3/7 and 3/47."""
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    for scale, short, long in ((0.4, 2, 0), (0.75, 3, 0), (1.5, 5, 0), (1.75, 5, 1), (2.35, 5, 3), (0.0, 5, 0)):
        found = attack(slope(scale), x, y, "adaptive-long", eps="0.1", steps=10, long=30, **WIDE)
        assert not found.broken.any()
        assert found.backwards.tolist() == [2 + 10 * short + 30 * long] * 2, scale
    few = attack(slope(2.35), x, y, "adaptive-long", eps="0.1", steps=10, long=30, **WIDE, again=1)
    assert few.backwards.tolist() == [2 + 10 * 5 + 30] * 2


def long_search(net, x, y, **fields) -> LongSearch:
    streams = ExampleStreams(0, tuple(map(str, range(len(x)))), "long")
    return AdaptiveLong(**fields).search(x, y, Ball("linf", 0.06, 0.0, 1.0), streams, lambda: clean_logits(net, x))


def test_long_runs_start_anew_and_have_checkpoints_of_their_own(net) -> None:
    x, y = points(net, 3)
    search, rows = long_search(net, x, y, steps=10, long=40), torch.arange(3)
    run_alone(Meter(net, 3), search)
    one, other = (search.draw_start(rows, search.last + k) for k in (1, 2))
    assert not torch.equal(one, other) and not torch.equal(one, search.best)
    assert torch.equal(search.draw_start(rows, search.last), search.best)
    for turn, lengths in ((search.last, checkpoints(10)), (search.last + 1, checkpoints(40))):
        search.slots = None
        search.begin(rows, turn)
        found = []
        for _ in range(len(lengths)):
            found.append(search.rule.intervals(search.slots)[0].item())
            search.slots.steps = search.slots.steps + 1
        assert found == lengths.tolist()


def test_a_long_run_goes_to_the_class_with_the_least_share_of_its_fall(net) -> None:
    """Class 2 has the larger logit, but class 1 has lost more of its difference."""
    x, y = points(net, 1)
    search, row = long_search(net, x, y, **WIDE), torch.tensor([0])
    search.clean_gap = torch.tensor([[float("inf"), 4.0, 1.0, 4.0, 4.0, 4.0]])
    search.gap = torch.tensor([[float("inf"), 0.4, 0.3, 4.0, 3.0, 3.0]])  # shares 1/9 and 3/7
    chosen = [search.choose_targets(row, search.last + k).item() for k in (1, 2, 3)]
    assert chosen == [1, 1, 2], "2^1.5 / 9 is less than 3/7, and 3^1.5 / 9 is more"
    assert search.planned.tolist() == [search.last + 4], "3^1.5 / 9 and 2^1.5 3/7 are above 1/2"


@pytest.mark.parametrize(("again", "plans"), [(20, [5, 5, 5, 5]), (7, [5, 2])])
def test_a_plan_has_at_most_five_runs_and_those_that_are_left(net, again: int, plans: list[int]) -> None:
    x, y = points(net, 1)
    search = long_search(net, x, y, again=again)
    search.gap = search.clean_gap * 1e-4  # so near that 20 runs are allowed
    ends = []
    for turn in range(search.last + 1, len(search.jobs)):
        search.choose_targets(torch.tensor([0]), turn)
        ends.append(search.planned.item())
    assert ends == [end for k, n in enumerate(plans) for end in n * [search.last + 1 + sum(plans[: k + 1])]]


def test_long_runs_of_a_plan_are_side_by_side() -> None:
    """3 long runs of 30 steps follow 2 + 5 * 10 steps, as the shares of the test above say."""
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    calls = {}
    for size in (64, 1):
        spy = Spy(slope(2.35))
        found = attack(spy, x, y, "adaptive-long", eps="0.1", steps=10, long=30, **WIDE, batch_size=size)
        assert found.backwards.tolist() == [2 + 5 * 10 + 3 * 30] * 2
        calls[size] = spy.calls
    assert max(calls[64]) == 6 and len(calls[64]) < 2 + 5 * 10 + 2 * 30
    assert len(calls[1]) > 2 * (2 + 5 * 10 + 3 * 30)


def test_long_runs_break_no_less_than_short_ones_and_no_more_than_is_there(net) -> None:
    x, y = points(net)
    short, long = (attack(net, x, y, name, eps="0.06") for name in ("adaptive", "adaptive-long"))
    assert not (short.broken & ~long.broken).any()
    assert torch.equal(long.broken, attack(net, x, y, "adaptive-long", eps="0.06", batch_size=5).broken)


def test_a_long_run_is_not_shorter_than_a_short_one(net) -> None:
    x, y = points(net, 2)
    with pytest.raises(FieldError, match="adaptive-long: long is 20; it must be at least steps, 25"):
        attack(net, x, y, "adaptive-long", long=20)
