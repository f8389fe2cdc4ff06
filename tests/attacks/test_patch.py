"""The patch: one window of at most eps positions, with the values of the closed form of affine classifiers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rlbench.attacks.patch import Patch, put_patch, sides
from rlbench.core import Ball
from rlbench.core.positions import change
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import distance
from rlbench.engine.attack.meter import Meter

N = 40


def streams(n: int = N) -> ExampleStreams:
    return ExampleStreams(0, tuple(map(str, range(n))), "test")


@pytest.mark.parametrize(
    ("k", "sizes", "lengths"),
    [
        (9, (8, 8), [3, 3]),
        (82, (64, 64), [9, 9]),
        (1, (8, 8), [1, 1]),
        (20, (100,), [20]),
        (32, (4, 8, 8), [2, 4, 4]),
        (4, (2, 30), [1, 4]),
        (64, (8, 8), [8, 8]),
    ],
)
def test_a_window_has_the_proportions_of_the_box(k: int, sizes: tuple[int, ...], lengths: list[int]) -> None:
    assert sides(k, sizes) == lengths


@pytest.mark.parametrize("shape", [(3, 8, 10), (1, 50), (2, 4, 6, 6), (30,)])
@pytest.mark.parametrize("k", [1, 5, 12])
def test_patches_are_windows_at_many_places(shape: tuple[int, ...], k: int) -> None:
    x = torch.rand(N, *shape, generator=torch.Generator().manual_seed(0))
    ball = Ball("l0", float(k), 0.0, 1.0)
    patched = put_patch(x, ball, streams())
    assert 0 < distance(patched, x, "l0").max() <= k
    sizes = shape[1:] if len(shape) > 1 else shape
    changed = (change(patched - x) != 0).view(N, *sizes)
    places = set[tuple[int, ...]]()
    for one in changed:
        where = one.nonzero()
        spans = where.amax(0) - where.amin(0) + 1
        assert spans.tolist() == sides(k, tuple(sizes)) and len(where) == spans.prod()
        places.add(tuple(where.amin(0).tolist()))
    assert len(places) > 5


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.3, 1.5)])
def test_a_patch_reaches_the_closed_form_at_its_place(low: float, high: float) -> None:
    g, shape = torch.Generator().manual_seed(0), (2, 6, 6)
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 2, bias=False).requires_grad_(False))
    net[1].weight.copy_(torch.randn(2, 72, generator=g))
    x = low + (high - low) * torch.rand(N, *shape, generator=g)
    y, ball = net(x).argmax(1), Ball("l0", 4.0, low, high)

    def far(x: Tensor) -> Tensor:  # class y stays ahead, so that no example ends early
        return net(x) + 1000 * nn.functional.one_hot(y, 2)

    x_adv = Patch(steps=10, places=1)(Meter(far, N, batch_size=N), x, y, ball, streams())
    slope = (net[1].weight[y] - net[1].weight[1 - y]).view(N, *shape)
    corner = torch.where(slope > 0, low, high)
    changed = (change(x_adv - x) != 0).view(N, 1, 6, 6)
    assert changed.flatten(1).sum(1).eq(4).all()
    torch.testing.assert_close(x_adv, corner.where(changed, x))
