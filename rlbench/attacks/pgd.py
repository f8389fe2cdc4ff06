"""Projected gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlbench.core import Ball
from rlbench.threat import per_row, project, rows_norm


def direction(gradient: Tensor, ball: Ball) -> Tensor:
    """The steepest unit step of the ball's norm: the sign (Linf), or the gradient over its L2 norm."""
    if ball.norm == "linf":
        return gradient.sign()
    return gradient / per_row(rows_norm(gradient, "l2"), gradient).clamp_min(1e-20)


def ascend(
    loss: Callable[[Tensor], Tensor], x: Tensor, ball: Ball, start: Tensor, *, steps: int, step: float
) -> Tensor:
    """Plain ascent of any loss per example, for adversarial training; the last iterate.

    Madry et al., 2018, https://arxiv.org/abs/1706.06083.

    Args:
        loss: (B, *shape) -> (B,), differentiable in its argument.
        x: (B, *shape) in the box, the centre of the balls.
        start: the first iterate, in the balls.
        steps: number of gradient steps.
        step: length of a step in the ball's norm, in box units.

    Returns:
        (B, *shape) in the balls, without a graph.
    """
    x_adv = start.detach()
    for _ in range(steps):
        x_adv = x_adv.requires_grad_()
        with torch.enable_grad():
            gradient = torch.autograd.grad(loss(x_adv).sum(), x_adv)[0]
        x_adv = project(x_adv.detach() + step * direction(gradient, ball), x, ball)
    return x_adv
