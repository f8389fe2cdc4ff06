"""When a job ends and where it starts, for every gradient attack, against closed forms."""

from __future__ import annotations

from math import pi

import pytest
import torch
from torch import Tensor

from rlbench.attacks.apgd import surface
from rlbench.attacks.pgd import PGD
from rlbench.attacks.search.incumbents import Incumbents
from rlbench.attacks.search.jobs import BROKEN, Search
from rlbench.core import Ball
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import distance

SCALE = 30.0  # of the logits


def _streams(n: int) -> ExampleStreams:
    return ExampleStreams(0, tuple(f"example {i}" for i in range(n)), "test")


def _search(n: int) -> Search:
    x, y = torch.full((n, 1, 2, 2), 0.5), torch.zeros(n, dtype=torch.int64)
    return Search(
        x=x,
        y=y,
        ball=Ball("linf", 0.1, 0.0, 1.0),
        streams=_streams(n),
        rule=PGD(steps=1),
        loss="ce",
        start=lambda x, ball, streams: x,
        jobs=("run",),
        targets=torch.ones(n, 1, dtype=torch.int64),
    )


def _logits(margins: list[float]) -> Tensor:
    """(B, 2) logits of these margins for class 0, whose largest magnitude is SCALE."""
    return torch.tensor([[SCALE - max(0.0, -m), SCALE - max(0.0, m)] for m in margins], dtype=torch.float64)


MARGINS = [share * BROKEN * SCALE for share in (1.0, 0.0, -0.01, -0.5, -2.0, -1e4)]
ALIVE = [True, True, True, True, False, False]


def test_an_example_ends_only_if_no_batch_can_make_it_correct_again() -> None:
    """A judge in another batch may move logits by about 1e-6 of their size: a smaller error must not end the search."""
    search = _search(len(MARGINS))
    search.admit(len(MARGINS), alongside=False)
    assert search.observe(_logits(MARGINS))
    assert search.alive.tolist() == ALIVE
    assert search.best_margin.tolist() == pytest.approx(MARGINS, abs=1e-6)


def test_margins_far_from_zero_are_told_apart() -> None:
    """An audit raises the true logit by 1e4, where float32 margins are steps of 1e-3, so that an attack goes on."""
    search = _search(1)
    search.admit(1, alongside=False)
    jobs = search._jobs()
    for value, m in ((0.55, 3e-4), (0.6, 1e-4), (0.45, 2e-4)):
        jobs.x_adv = torch.full_like(jobs.x, value)
        search.record(jobs, torch.tensor([[1e4 + m, 0.0]], dtype=torch.float64))
    assert torch.equal(search.best, torch.full_like(search.x, 0.6))


def test_a_candidate_ends_an_example_only_by_the_same_rule() -> None:
    x, y = torch.full((len(MARGINS), 1), 0.5), torch.zeros(len(MARGINS), dtype=torch.int64)
    best = Incumbents(lambda x, rows: _logits(MARGINS).float(), x, y)  # type: ignore[arg-type]
    best.offer(torch.arange(len(x)), x + 0.1)
    assert best.alive.tolist() == ALIVE and best.rows.tolist() == [0, 1, 2, 3]


def test_a_search_continues_until_the_judge_agrees() -> None:
    """After one step, the search sees an error, by 1e-6 of the logits, that the judge does not see."""
    ball, step = Ball("linf", 0.4, 0.0, 1.0), 0.1
    weight, just = 40.0, 1e-6 * SCALE

    def classifier(x: Tensor, rows: Tensor | None = None) -> Tensor:
        m = just / 2 + weight * (x.flatten(1).mean(1) - 0.5 + step)  # after a step of -0.1: just / 2
        seen = m - just if torch.is_grad_enabled() else m
        return torch.stack([SCALE + seen / 2, SCALE - seen / 2], 1)

    classifier.batch_size = 8  # type: ignore[attr-defined]
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    attack = PGD(steps=4, rel_step=step / ball.radius)
    x_adv = attack(classifier, x, y, ball, _streams(3), start=lambda x, ball, streams: x)  # type: ignore[arg-type]
    with torch.no_grad():
        assert (classifier(x_adv).argmax(1) == 1).all()


def test_an_l2_start_has_no_preferred_direction() -> None:
    """E cos(4 angle) is 0 for a normal start in the plane, and 3 - pi = -.14 for a uniform one scaled to the sphere."""
    n = 4000
    x = torch.zeros(n, 2)
    start = surface(x, Ball("l2", 0.25, -9.0, 9.0), _streams(n))
    assert distance(start, x, "l2").tolist() == pytest.approx([0.25] * n, rel=1e-5)
    mean = torch.cos(4 * torch.atan2(start[:, 1], start[:, 0])).mean()
    assert abs(mean) < 4 / (2 * n) ** 0.5 < (pi - 3) / 3


def test_an_linf_start_has_the_norm_of_the_ball() -> None:
    x = torch.zeros(50, 7)
    start = surface(x, Ball("linf", 0.25, -9.0, 9.0), _streams(50))
    assert distance(start, x, "linf").tolist() == pytest.approx([0.25] * 50, rel=1e-5)
    assert (start.abs() < 0.25 * 0.99).float().mean() > 0.5
