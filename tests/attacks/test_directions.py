"""The directions of conjugate gradients, and the order of MALT's targets, against closed forms."""

from __future__ import annotations

import pytest
import torch
from affine_points import affine
from jobs import make_job

from rlbench.attacks.acg import _Conjugate
from rlbench.attacks.fmn import FMN
from rlbench.attacks.malt import MALT
from rlbench.attacks.search.rules import direction
from rlbench.core import Ball, Norm
from rlbench.engine.attack.meter import Meter


def test_acg_takes_the_conjugate_gradient_steps_of_a_quadratic() -> None:
    """On -1/2 x'Ax, directions by Hestenes and Stiefel's beta, as in a plain loop in float64."""
    a = torch.tensor([1.0, 3.0, 9.0, 2.0])
    rule, x, ball = _Conjugate(), torch.tensor([[1.0, -2.0, 0.5, 3.0]]), Ball("l2", 0.5, -90.0, 90.0)
    job = make_job(rule, x, ball)
    job.low = job.high = None
    point, g_old, s = x[0].double(), None, None
    for i in range(8):
        g = -a.double() * point
        y = None if g_old is None else g_old - g
        s = g if y is None else g - (g @ y) / (s @ y) * s
        g_old, at = g, job.x_adv
        job.steps = torch.tensor([i])
        rule.advance(job, -0.5 * (a * at * at).sum(1), -a * at, ball)
        stepped = point + s / s.norm()
        delta = stepped - x[0].double()
        point = x[0].double() + delta * min(1.0, 0.5 / float(delta.norm()))
        torch.testing.assert_close(job.x_adv[0].double(), point, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_malt_ranks_the_classes_by_their_distance(norm: Norm) -> None:
    net, x, differences = affine(12, 0.0, 1.0)
    y, ball = net(x).argmax(1), Ball(norm, 0.1, 0.0, 1.0)
    z = net(x)
    reach = (z.gather(1, y[:, None]) - z) / differences.norm(p=1 if norm == "linf" else 2, dim=2)
    exact = reach.scatter(1, y[:, None], float("inf")).argsort(1)[:, :4]
    meter = Meter(net, 200, batch_size=64)
    found = MALT(targets=4).order(meter, x, y, ball)
    assert (found == exact).float().mean() > 0.99
    logits = z.scatter(1, y[:, None], float("-inf")).topk(4).indices
    assert (found[:, 0] != logits[:, 0]).any()
    assert meter.backwards.tolist() == [11] * 200


@pytest.mark.parametrize("size", [1e-25, 1e-38])
def test_a_faint_gradient_has_the_direction_of_a_strong_one(size: float) -> None:
    """A masked gradient of 1e-25 has an L2 norm of 0 in float32, so that steps along it would have no length."""
    strong = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    faint = strong * torch.tensor([[size], [1.0], [size]])
    for ball in (Ball("linf", 0.1, 0.0, 1.0), Ball("l2", 0.1, 0.0, 1.0)):
        torch.testing.assert_close(direction(faint, ball), direction(strong, ball), rtol=1e-4, atol=1e-4)
    assert torch.equal(direction(torch.zeros(2, 5), Ball("l2", 0.1, 0.0, 1.0)), torch.zeros(2, 5))


def test_a_minimal_norm_attack_steps_along_a_faint_gradient() -> None:
    rule, x, ball = FMN(), torch.full((1, 4), 0.5), Ball("l2", 0.5, 0.0, 1.0)
    job, g = make_job(rule, x, ball), torch.tensor([[3.0, 0.0, -4.0, 0.0]])
    rule.advance(job, torch.tensor([-1.0]), 1e-25 * g, ball)
    torch.testing.assert_close(job.x_adv, (x + g / 5).clamp(0.0, 1.0))
