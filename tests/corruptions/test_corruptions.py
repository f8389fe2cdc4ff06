"""The contract of a corruption, and agreement with the package that the common ones come from."""

import imagecorruptions
import numpy as np
import pytest
import torch

from rlbench.core import registry
from rlbench.core.errors import DataError, FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.corruptions.batched import BATCHED

NAMES = imagecorruptions.get_corruption_names("all")
DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "snow", "frost"}
DRAWN |= {"fog", "spatter", "elastic_transform"}


def _pictures(n: int, rows: int = 32, columns: int = 32) -> torch.Tensor:
    """Smooth coloured pictures with an edge and slight noise, 8-bit."""
    g = torch.Generator().manual_seed(0)
    r, c = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    disc = ((r - 0.5) ** 2 + (c - 0.5) ** 2 < 0.1).float()
    base = torch.stack([0.4 + 0.3 * torch.sin(6 * c + 3 * r), 0.2 + 0.5 * disc, 0.7 - 0.4 * r])
    noisy = base + 0.05 * torch.randn(n, 3, rows, columns, generator=g)
    return (noisy.clamp(0, 1) * 255).round() / 255


def _streams(n: int, scope: str = "", seed: int = 0) -> ExampleStreams:
    return ExampleStreams(seed, tuple(f"picture {i}" for i in range(n)), scope)


def test_all_nineteen_are_registered() -> None:
    assert len(NAMES) == 19 and set(NAMES) <= set(registry.names("corruption"))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name) -> None:
    corruption = registry.make("corruption", name)
    for severity, size in ((1, (32, 32)), (2, (40, 72)), (3, (64, 64)), (4, (33, 32)), (5, (32, 32))):
        x = _pictures(3, *size)
        before, state = x.clone(), np.random.get_state()[1].copy()
        whole = corruption(x, severity, _streams(3))
        alone = torch.cat([corruption(x[i : i + 1], severity, _streams(3).take([i])) for i in (2, 1, 0)]).flip(0)
        assert torch.equal(x, before) and (np.random.get_state()[1] == state).all()
        assert torch.equal(whole, alone), f"severity {severity}: the batch matters"
        assert whole.shape == x.shape and whole.dtype == x.dtype
        assert whole.min() >= 0 and whole.max() <= 1 and not torch.equal(whole, x)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_matter_only_where_there_is_chance(name) -> None:
    corruption, x = registry.make("corruption", name), _pictures(1).expand(4, -1, -1, -1)
    a, b = (corruption(x, 3, _streams(4, seed=seed)) for seed in (0, 1))
    assert torch.equal(a, b) == (name not in DRAWN)
    assert torch.equal(a[0], a[1]) == (name not in DRAWN), "pictures of one batch must not share their draw"


@pytest.mark.parametrize("name", sorted(set(NAMES) - DRAWN))
def test_equal_to_the_package(name) -> None:
    x = _pictures(1, 48, 40)
    picture = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
    for severity in range(1, 6):
        theirs = imagecorruptions.corrupt(picture, severity, name)
        ours = registry.make("corruption", name)(x, severity, _streams(1))
        levels = (ours[0].permute(1, 2, 0) * 255).round().numpy()
        off = np.abs(levels - theirs.astype(np.float64))
        assert off.max() <= (name in BATCHED) and (off > 0).mean() < 0.1


@pytest.mark.parametrize(("name", "deviation"), [("gaussian_noise", 0.08), ("speckle_noise", 0.15 * 0.5)])
def test_noise_has_its_published_deviation(name, deviation) -> None:
    grey = torch.full((4, 3, 64, 64), 128 / 255)
    noise = registry.make("corruption", name)(grey, 1, _streams(4)) - grey
    assert noise.std().item() == pytest.approx(deviation, rel=0.03)
    assert noise.mean().item() == pytest.approx(-0.5 / 255, abs=0.002), "the package cuts off, so half a step is lost"


def test_spatter_never_turns_a_picture_black() -> None:
    x = _pictures(1).expand(150, -1, -1, -1)  # about three of these draw no drop at first
    out = registry.make("corruption", "spatter")(x, 1, _streams(150))
    assert out.flatten(1).mean(1).min() > 0.8 * x.mean()


def test_one_channel_and_an_empty_batch() -> None:
    fog = registry.make("corruption", "fog")
    assert fog(_pictures(2)[:, :1], 1, _streams(2)).shape == (2, 1, 32, 32)
    assert fog(_pictures(1)[:0], 1, _streams(0)).shape == (0, 3, 32, 32)


def test_bad_input() -> None:
    fog = registry.make("corruption", "fog")
    for severity in (0, 6):
        with pytest.raises(FieldError, match=f"severity is {severity}; it must be 1 to 5"):
            fog(_pictures(1), severity, _streams(1))
    for shape in ((1, 3, 31, 32), (1, 2, 32, 32), (3, 32, 32), (1, 2, 4, 32, 32)):
        with pytest.raises(DataError, match="32 x 32 or more"):
            fog(torch.zeros(shape), 1, _streams(1))
