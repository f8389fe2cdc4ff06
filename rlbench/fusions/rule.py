"""What fusion rules share: their protocol, the count of sensors, and gradients of rules that select.

A rule that selects, votes or weighs is flat in a sensor over whole regions, or leads away from what an attacked sensor
can do, so that its own gradient would make attacks weak. Such a rule keeps its exact values and takes the gradient of
the mean of the logits, `sum`'s, in which each sensor always counts: BPDA (Athalye et al., 2018,
https://arxiv.org/abs/1802.00420), as a defence's `honest()` has it. So an attack sees what the rule answers, and still
a direction to search in.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from rlbench.core import Fusion
from rlbench.core.errors import FieldError

ROUNDING = 1e-5  # certificates leave this much of the terms of a comparison to float32


@runtime_checkable
class Certified(Protocol):
    """What a fusion adds if it can prove that no change of one sensor alters an answer."""

    def certify(self, logits: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        """Which examples stay correct whatever any one sensor says.

        Args:
            logits: (M, N, C) clean answers.
            y: (N,) int64 labels.
            reach: (C, C), see `find_reach`.

        Returns:
            (N,) bool; False also within rounding.
        """


def check_sensors(fusion: Fusion, name: str, count: int) -> None:
    """Raises: FieldError: a fusion of this name needs more than `count` sensors."""
    if count < fusion.least:
        raise FieldError(
            f"fusion {name!r} needs {fusion.least} sensors or more, and there {'is' if count == 1 else 'are'} {count}; "
            "give more sensors, or choose another fusion such as 'sum'",
            "fusion",
        )


def replace_gradient(value: Tensor, logits: Tensor) -> Tensor:
    """The value of a rule, exactly, with the gradient of the mean of the logits.

    Args:
        value: (N, C).
        logits: (M, N, C).
    """
    mean = logits.mean(0)
    return value.detach() + (mean - mean.detach())


def find_reach(anchors: Tensor, scale: float) -> Tensor:
    """By how much the logit of class t can exceed that of class y, at most: scale * |A_y - A_t|.

    An embedding is a unit vector u, so scale * u . (A_t - A_y) is at most this, for u along A_t - A_y.

    Args:
        anchors: (C, D) unit rows.
        scale: of the logits.

    Returns:
        (C, C) float64, symmetric.
    """
    rows = anchors.double()
    reach: Tensor = scale * (rows[:, None] - rows).norm(dim=2)
    return reach


def leave_one_out(values: Tensor) -> Tensor:
    """(M, ...) -> (M, ...): for each sensor, the sum over the others."""
    return values.sum(0) - values


def beat_rivals(gap: Tensor, least: Tensor, y: Tensor) -> Tensor:
    """Whether gaps exceed their bounds for every sensor and rival class.

    Args:
        gap: (M, N, C), how far the other sensors put y above each class.
        least: broadcastable to (M, N, C).
        y: (N,) int64 labels.

    Returns:
        (N,) bool.
    """
    rounding = ROUNDING * (gap.abs() + least.abs() + 1)
    return (gap > least + rounding).scatter(2, y.expand(len(gap), -1)[..., None], True).all(2).all(0)
