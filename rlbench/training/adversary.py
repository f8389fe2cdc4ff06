"""The inner maximisation: adversarial examples of a training batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rlbench.attacks.pgd import ascend
from rlbench.core import Ball
from rlbench.core.threat import project

NOISE = 2.0  # N-FGSM's noise, in radii; the paper's choice for all data sets


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


class OneStep(NamedTuple):
    """The result of an adversary of one step.

    Attributes:
        x_adv: (B, *shape) in the box, without a graph.
        gradient: (B, *shape), the gradient of the loss at the start.
    """

    x_adv: Tensor
    gradient: Tensor


def attack_once(x: Tensor, loss: Callable[[Tensor], Tensor], ball: Ball, *, noise: Tensor) -> OneStep:
    """Finds augmented examples of a batch by one step from strong noise (N-FGSM).

    x_adv = x + eta + radius sign(gradient at x + eta), eta uniform in +-2 radius. Both points are clipped to the box;
    x_adv is not clipped to the ball, so that it is up to 3 radii from x. de Jorge et al., 2022,
    https://arxiv.org/abs/2202.01181, as in their code.

    Args:
        x: (B, *shape) in the box.
        loss: (B, *shape) -> (B,), the loss to maximise.
        ball: gives the radius and the box, Linf.
        noise: (B, *shape) in [-1, 1].
    """
    start = (x + NOISE * ball.radius * noise).clamp(ball.low, ball.high).requires_grad_()
    with torch.enable_grad():
        gradient = torch.autograd.grad(loss(start).sum(), start)[0]
    return OneStep((start.detach() + ball.radius * gradient.sign()).clamp(ball.low, ball.high), gradient)
