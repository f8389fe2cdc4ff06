"""The inner maximisation: adversarial examples of a training batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlbench.attacks.pgd import ascend
from rlbench.core import Ball
from rlbench.threat import project


def adversarial(
    x: Tensor, loss: Callable[[Tensor], Tensor], ball: Ball, *, steps: int, step: float, g: torch.Generator
) -> Tensor:
    """x' of a batch by PGD (Madry et al., 2018, https://arxiv.org/abs/1706.06083) from a uniform start.

    Args:
        x: (B, *shape) in the box.
        loss: (B, *shape) -> (B,), ascended.
        ball: Linf.
        steps: number of steps.
        step: their length, as a share of the radius.
        g: of the start.
    """
    start = project(x + ball.radius * (2 * torch.rand(x.shape, generator=g) - 1), x, ball)
    return ascend(loss, x, ball, start, steps=steps, step=step * ball.radius)
