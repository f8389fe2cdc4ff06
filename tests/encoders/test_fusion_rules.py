"""Fusion rules against closed forms on few sensors and classes, and the contract of every registered rule."""

import math

import pytest
import torch
from torch import Tensor

from rlbench.core import registry
from rlbench.core.errors import UnknownName

NAMES = registry.names("fusion")


def _fuse(name: str, *sensors: list[float]) -> Tensor:
    """The answer of a rule to one example, from one list of logits per sensor."""
    return registry.make("fusion", name).fuse(torch.tensor(sensors, dtype=torch.float64)[:, None])[0]


def _logits(sensors: int, *, seed: int = 0, examples: int = 64, classes: int = 5, scale: float = 4.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(sensors, examples, classes, generator=generator, dtype=torch.float64)


def test_the_rules_are_registered() -> None:
    assert {"sum", "mean", "median", "majority", "trimmed", "max", "entropy"} <= set(NAMES)
    with pytest.raises(UnknownName, match="did you mean 'trimmed'"):
        registry.make("fusion", "trimed")


def test_sum_is_the_product_of_the_softmaxes() -> None:
    z = _logits(3)
    fused = registry.make("fusion", "sum").fuse(z)
    product = z.softmax(2).prod(0)
    assert torch.allclose((3 * fused).softmax(1), product / product.sum(1, keepdim=True))


def test_sum_is_the_logit_of_the_mean_embedding() -> None:
    generator = torch.Generator().manual_seed(1)
    f, anchors = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (4, 5))
    z = 20 * f[:, None] @ anchors.T
    assert torch.allclose(registry.make("fusion", "sum").fuse(z)[0], 20 * f.mean(0) @ anchors.T)


def test_mean_is_the_mean_of_probabilities() -> None:
    z = _logits(3)
    assert torch.allclose(registry.make("fusion", "mean").fuse(z).exp(), z.softmax(2).mean(0))


def test_median_is_per_class() -> None:
    three = [1.0, 9.0, 0.0], [2.0, 5.0, 0.0], [6.0, 7.0, 3.0]
    assert _fuse("median", *three).tolist() == [2.0, 7.0, 0.0]
    assert _fuse("median", *three, [4.0, 8.0, 1.0]).tolist() == [3.0, 7.5, 0.5]


def test_majority_counts_votes_before_confidence() -> None:
    weak, strong = [1.1, 1.0, 0.0], [0.0, 50.0, 0.0]
    votes = _fuse("majority", weak, weak, strong)
    assert votes.argmax() == 0 and votes.floor().tolist() == [2.0, 1.0, 0.0]
    assert _fuse("majority", weak, strong).argmax() == 1  # one vote each: the more confident sensor decides
    shared = _fuse("majority", [1.0, 1.0, 0.0])
    assert shared[0] == shared[1] == pytest.approx(0.5 + math.e / (2 * math.e + 1))


def test_trimmed_drops_the_odd_one_out() -> None:
    a, b, odd = [3.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 90.0]
    assert torch.allclose(_fuse("trimmed", a, odd, b), torch.tensor([2.5, 0.5, 0.0], dtype=torch.float64))
    assert _fuse("sum", a, odd, b).argmax() == 2


def test_trimmed_drops_a_share_of_each_of_equally_odd_sensors() -> None:
    one_each = [5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]
    assert torch.allclose(_fuse("trimmed", *one_each), torch.full((3,), 5 / 3, dtype=torch.float64))


def test_max_takes_the_most_confident_sensor() -> None:
    assert _fuse("max", [9.0, 8.0, 0.0], [0.0, 3.0, 0.0]).tolist() == [0.0, 3.0, 0.0]
    # In float32 both softmaxes are exactly 1, and the log-odds still differ.
    sure, surer = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 120.0]])
    assert registry.make("fusion", "max").fuse(torch.stack([sure, surer])).tolist() == [[0.0, 120.0]]


def test_entropy_ignores_a_sensor_that_knows_nothing() -> None:
    sure = [60.0, 0.0, 0.0]
    assert torch.allclose(
        _fuse("entropy", sure, [0.0, 0.0, 0.0])[:1], torch.tensor([60.0], dtype=torch.float64), rtol=1e-5
    )
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    half = (p + 1e-30).log()
    weight = 1 - math.log(2) / math.log(3)
    expected = (torch.tensor(sure, dtype=torch.float64) + weight * half) / (1 + weight)
    assert torch.allclose(_fuse("entropy", sure, half.tolist()), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sensors", [1, 2, 3, 4])
def test_the_order_of_sensors_does_not_matter(name: str, sensors: int) -> None:
    fusion = registry.make("fusion", name)
    z = _logits(max(sensors, fusion.least))
    z[:, :8] = z[:1, :8]  # sensors that agree exactly
    assert torch.allclose(fusion.fuse(z.flip(0)), fusion.fuse(z))
    assert torch.allclose(fusion.fuse(z.roll(1, 0)), fusion.fuse(z))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_classes_does_not_matter(name: str) -> None:
    fusion, z = registry.make("fusion", name), _logits(3)
    z[:, :8, 1] = z[:, :8, 0]
    assert torch.allclose(fusion.fuse(z.flip(2)), fusion.fuse(z).flip(1))


@pytest.mark.parametrize("name", NAMES)
def test_sensors_that_agree_are_answered_as_one(name: str) -> None:
    fusion, z = registry.make("fusion", name), _logits(1)
    for sensors in (fusion.least, 4):
        fused = fusion.fuse(z.expand(sensors, -1, -1))
        assert torch.equal(fused.argmax(1), z[0].argmax(1))
        if name != "majority":  # its scores are votes
            assert torch.allclose(fused.log_softmax(1), z[0].log_softmax(1))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_answered_alone(name: str) -> None:
    fusion, z = registry.make("fusion", name), _logits(3)
    assert torch.equal(torch.cat([fusion.fuse(row) for row in z.split(1, dim=1)]), fusion.fuse(z))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_every_sensor_has_a_finite_gradient(name: str, dtype: torch.dtype, scale: float) -> None:
    """Also where all sensors are certain and agree, and where they tie."""
    fusion = registry.make("fusion", name)
    z = _logits(3, scale=scale / 4).to(dtype)
    z[:, 0], z[:, 1] = 0.0, torch.tensor([scale, 0, 0, 0, 0], dtype=dtype)
    z.requires_grad_()
    fused = fusion.fuse(z)
    assert fused.dtype == dtype and fused.isfinite().all()
    top = fused.topk(2, dim=1).indices
    (gradient,) = torch.autograd.grad((fused.gather(1, top[:, 1:]) - fused.gather(1, top[:, :1])).sum(), z)
    assert gradient.isfinite().all() and (gradient != 0).any(2).all()
