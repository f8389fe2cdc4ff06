"""Attacks through a fusion: on one sensor whose logits may move in a box, they find what its corners show."""

from itertools import product

import pytest
import torch
from torch import Tensor

from rlbench.core import Ball, registry
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import project

RULES = ("sum", "mean", "median", "majority", "trimmed", "max", "entropy")
CLASSES, RADIUS, N = 4, 1.5, 120


class OneSensor:
    """A classifier of x (B, C) in [0, 1]: the logits of one sensor of three move by 10 (x - 1/2)."""

    batch_size = N

    def __init__(self, name: str, logits: Tensor, sensor: int) -> None:
        self.fusion, self.logits, self.sensor = registry.make("fusion", name), logits, sensor

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        moved = list(self.logits if rows is None else self.logits[:, rows])
        moved[self.sensor] = moved[self.sensor] + 10 * (x - 0.5)
        return self.fusion.fuse(torch.stack(moved))


def _examples() -> tuple[Tensor, Tensor]:
    """(3, N, C) logits of sensors that are mostly right, and (N,) labels."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(N) % CLASSES
    z = torch.randn(3, N, CLASSES, generator=g) + 2.0 * torch.nn.functional.one_hot(y, CLASSES)
    return z, y


@pytest.mark.parametrize("sensor", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RULES)
def test_an_attack_on_one_sensor_finds_what_its_corners_show(name: str, sensor: int) -> None:
    z, y = _examples()
    classifier, x = OneSensor(name, z, sensor), torch.full((N, CLASSES), 0.5)
    ball = Ball("linf", RADIUS / 10, 0.0, 1.0)
    right = margin(classifier(x), y) > 0
    corners = torch.zeros(N, dtype=torch.bool)
    for signs in product((-1.0, 1.0), repeat=CLASSES):
        corners |= margin(classifier(project(x + torch.tensor(signs), x, ball)), y) <= 0
    streams, broken = ExampleStreams(0, tuple(map(str, range(N))), "attack"), torch.zeros(N, dtype=torch.bool)
    for attack, fields in (("apgd-ce", {"steps": 30}), ("apgd-t", {"steps": 30, "targets": 3})):
        x_adv = registry.make("attack", attack, fields)(classifier, x.clone(), y, ball, streams)
        broken |= margin(classifier(x_adv), y) <= 0
    found = right & corners
    assert 0 < int(found.sum()) < int(right.sum())
    assert int((found & ~broken).sum()) <= 0.08 * int(found.sum())  # without the soft gradients, 0.15 for max
