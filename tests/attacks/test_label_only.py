"""RayS and HopSkipJump: the closed-form minimal norm, exact budgets, and the same numbers in any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from label_boxes import AffineScores, CountingBox
from torch import Tensor

from rlbench.attacks.hopskipjump import HopSkipJump
from rlbench.attacks.rays import RayS, _blocks
from rlbench.core import Ball, Norm, registry
from rlbench.core.errors import FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import violation
from rlbench.engine.attack.judge import judge

NORMS: dict[str, Norm] = {"rays": "linf", "hopskipjump": "l2"}
TINY = 1e-9  # a radius that no search reaches, so that all its queries are spent


def _streams(n: int) -> ExampleStreams:
    return ExampleStreams(0, tuple(f"example {i}" for i in range(n)), "test")


def _distances(name: str, box: Any, case: AffineScores, queries: int, rows: Tensor | None = None) -> Tensor:
    rows = torch.arange(case.n) if rows is None else rows
    x, y, ball = case.x[rows], case.y[rows], Ball(NORMS[name], TINY, 0.0, 1.0)
    if name == "rays":
        found = RayS(queries=queries).nearest(box, x, y, ball)
    else:
        found = HopSkipJump(queries=queries).nearest(box, x, y, ball, _streams(case.n).take(rows.tolist()))
    return torch.tensor([one.distance for one in found], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize(("d", "classes"), [(64, 2), (256, 10)])
def test_ten_thousand_queries_reach_the_minimal_norm_within_five_percent(name: str, d: int, classes: int) -> None:
    case = AffineScores(d=d, classes=classes, n=6)
    box = CountingBox(case.one_hot, case.n, 64)
    ratio = _distances(name, box, case, 10_000) / case.minimal_norm(NORMS[name])
    assert ratio.min() > 1 - 1e-6
    assert ratio.max() < 1.05
    assert box.count.max() == 10_000


@pytest.mark.parametrize(("name", "share"), [("rays", 1.02), ("hopskipjump", 1.25)])
def test_a_thousand_queries_come_near(name: str, share: float) -> None:
    case = AffineScores(d=24, n=6, seed=1)
    ratio = _distances(name, CountingBox(case.one_hot, 6, 64), case, 1000) / case.minimal_norm(NORMS[name])
    assert ratio.min() > 1 - 1e-6 and ratio.max() < share


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("queries", [1, 2, 17, 150])
def test_no_example_is_asked_once_more_than_its_budget(name: str, batch_size: int, queries: int) -> None:
    case = AffineScores(d=16, n=7)
    box = CountingBox(case.one_hot, case.n, batch_size)
    _distances(name, box, case, queries)
    assert box.count.tolist() == [queries] * case.n
    assert box.largest <= max(batch_size, 16)


@pytest.mark.parametrize("name", NORMS)
def test_distances_depend_on_neither_batch_size_nor_order(name: str) -> None:
    case, rows = AffineScores(d=16, n=9, classes=3), torch.tensor([4, 0, 8, 2, 1, 7, 6, 3, 5])
    whole = _distances(name, CountingBox(case.one_hot, 9, 64), case, 200)
    assert torch.equal(_distances(name, CountingBox(case.one_hot, 9, 2), case, 200), whole)
    assert torch.equal(_distances(name, CountingBox(case.one_hot, 9, 5), case, 200, rows), whole[rows])


@pytest.mark.parametrize("name", NORMS)
def test_the_point_is_in_the_ball_or_the_example_counts_as_robust(name: str) -> None:
    case, norm = AffineScores(d=24, n=16), NORMS[name]
    reach = case.minimal_norm(norm)
    ball = Ball(norm, float(reach.median()) * 1.1, 0.0, 1.0)
    box = CountingBox(case.one_hot, case.n, 64)
    attack = registry.make("attack", name, {"queries": 2000})
    x_adv = attack(box, case.x, case.y, ball, _streams(case.n))
    assert violation(x_adv, case.x, ball) is None
    assert (box.count[reach < ball.radius / 2] < 2000).all()  # a search ends in the ball
    correct = judge(box, x_adv, case.x, case.y, ball).correct
    assert correct[reach > ball.radius].all()
    assert not correct[reach < 0.9 * ball.radius].any()


def test_labels_and_scores_give_rays_the_same_path() -> None:
    case = AffineScores(d=16, n=5)
    by_label = _distances("rays", CountingBox(case.one_hot, 5, 64), case, 300)
    assert torch.allclose(_distances("rays", CountingBox(case, 5, 64), case, 300), by_label, rtol=0.02)


def test_blocks_halve_until_single_coordinates() -> None:
    blocks = _blocks(5)
    found = [next(blocks) for _ in range(12)]
    assert [(b.start, b.stop) for b in found[:8]] == [
        *((0, 5), (0, 3), (3, 5)),
        *((0, 2), (2, 4), (4, 5), (0, 1), (1, 2)),
    ]


@pytest.mark.parametrize("name", NORMS)
def test_wrong_fields_are_named(name: str) -> None:
    with pytest.raises(FieldError, match="queries is 0"):
        registry.make("attack", name, {"queries": 0})
    with pytest.raises(FieldError, match="tol is 1"):
        RayS(tol=1.0)
    with pytest.raises(FieldError, match="b_0 is 0"):
        HopSkipJump(b_0=0)
