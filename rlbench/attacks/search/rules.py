"""How the points of jobs start, move and stay in their balls: what the rules of gradient attacks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from rlbench.attacks.search.state import Jobs, M
from rlbench.core import Ball, Streams
from rlbench.core.threat import by_factor, per_row, project, rows_norm

Start = Callable[[Tensor, Ball, Streams], Tensor]  # examples (K, *shape), ball, streams -> first points (K, *shape)


class Rule(Protocol[M]):
    """How a job moves its point; `steps` is the number of gradients that a job takes."""

    @property
    def steps(self) -> int: ...

    def begin(self, x: Tensor, x_adv: Tensor, ball: Ball) -> M:
        """The rule's memory of new jobs that start at x_adv."""

    def advance(self, jobs: Jobs[M], loss: Tensor, gradient: Tensor, ball: Ball) -> None:
        """Moves the jobs: replaces `jobs.x_adv` and `jobs.memory`.

        Args:
            jobs: B running jobs.
            loss: (B,) at `jobs.x_adv`.
            gradient: (B, *shape) of the loss.
            ball: the ball around each example.
        """


FAINT = 1e-12  # the squares of shorter gradients are lost in float32


def amplify(gradient: Tensor) -> Tensor:
    """Gradients (B, *shape), those of rows with only tiny values divided by the largest, so that they have an L2 norm.

    A defence that scales gradients down would otherwise shorten the steps of attacks in L2.
    """
    largest = gradient.flatten(1).abs().amax(1)
    faint = (largest > 0) & (largest < FAINT)
    return gradient / per_row(largest.where(faint, 1.0), gradient) if faint.any() else gradient


def direction(gradient: Tensor, ball: Ball) -> Tensor:
    """The steepest step of unit length: the gradient's sign (Linf), or the gradient over its L2 norm.

    In a product of balls, the steps on different sensors are in proportion to the radii.
    """
    if ball.spans:
        return by_factor(lambda own, g: own.radius / ball.radius * direction(g, own), ball, gradient)
    if ball.norm == "linf":
        return gradient.sign()
    gradient = amplify(gradient)
    return gradient / per_row(rows_norm(gradient, "l2"), gradient).clamp_min(1e-20)


def project_jobs(point: Tensor, jobs: Jobs[Any], ball: Ball) -> Tensor:
    """Projects points (B, *shape) to the balls of the jobs, possibly in place."""
    if jobs.low is not None and jobs.high is not None:
        return torch.clamp(point, jobs.low, jobs.high, out=point)
    return project(point, jobs.x, ball)
