"""Measures as pure functions: accuracy with its interval, margins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{j != y} z_j; (B, C), (B,) -> (B,). An example is correct iff it is > 0: a tie or a NaN is an error."""
    others = logits.scatter(1, y[:, None], float("-inf"))
    return logits.gather(1, y[:, None])[:, 0] - others.amax(1)


def wilson(n_correct: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a share, in [0, 1]; 95% by default (Wilson, 1927).

    https://doi.org/10.1080/01621459.1927.10502953
    """
    if n <= 0:
        return 0.0, 1.0
    share, w = n_correct / n, z * z / n
    centre = (share + w / 2) / (1 + w)
    half = z / (1 + w) * (share * (1 - share) / n + w / (4 * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def worst_case(correct: Sequence[Tensor]) -> Tensor:
    """Per example: correct under every attack; k x (B,) bool -> (B,) bool. Mean of min, never min of means."""
    return reduce(and_, correct)
