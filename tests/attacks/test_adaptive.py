"""The adaptive attack: short runs at targets that it chooses by itself, and examples that it gives up."""

from dataclasses import dataclass, field

import pytest
import torch

from rlbench.core.errors import FieldError
from rlbench.engine.attack.api import attack

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

    def slope(scale: float):
        def classify(x: torch.Tensor) -> torch.Tensor:
            moved = (x.flatten(1) - 0.5).sum(1) * scale
            return torch.stack([1.0 - moved, moved * 0, moved * 0 - 1, moved * 0 - 2, moved * 0 - 3], dim=1)

        return classify

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
