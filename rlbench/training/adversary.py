"""The inner maximisation: adversarial examples of a training batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlbench.attacks.pgd import ascend
from rlbench.core import Ball
from rlbench.core.threat import project


def attack_batch(
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    ball: Ball,
    *,
    noise: Tensor,
    steps: int,
    step: float,
    momentum: float = 0.0,
) -> Tensor:
    """Finds adversarial examples of a batch by PGD from a given start.

    Madry et al., 2018, https://arxiv.org/abs/1706.06083.

    Args:
        x: (B, *shape) in the box.
        loss: (B, *shape) -> (B,), the loss to maximise.
        ball: the perturbation set, Linf.
        noise: (B, *shape) in [-1, 1]; the start is x + radius * noise.
        steps: the number of steps.
        step: the step size, as a share of the radius.
        momentum: the momentum of the gradient's sign, in [0, 1].

    Returns:
        (B, *shape), inside the ball.
    """
    start = project(x + ball.radius * noise, x, ball)
    return ascend(loss, x, ball, start, steps=steps, step=step * ball.radius, momentum=momentum)
