"""Paired tests: does accuracy fall with severity, and is one model's mean above another's?

Flags are (n,) booleans, true for a correct example. The tests are exact (`metrics.sign_flip`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rlbench.core.stats.metrics import holm, sign_flip

Flags = NDArray[np.bool_]
CONTRAST = (-5, -3, -1, 1, 3, 5)  # of clean and severities 1 to 5; the least-squares slope is the weighted sum / 35
ALPHA = 0.05
MOST = 0.6  # severity 1 should lose less than this share of the way from clean to chance


@dataclass(frozen=True)
class Fall:
    """The trend of accuracy from clean to severity 5 under one corruption.

    Attributes:
        slope: of the least-squares line over 0 (clean) to 5, in accuracy per severity.
        p: two-sided, of a slope of 0, Holm-adjusted over corruptions.
        steps: whether accuracy falls at every step from clean to severity 5.
        first: the loss at severity 1 as a share of the way from clean to chance; NaN if clean is at chance.
    """

    slope: float
    p: float
    steps: bool
    first: float

    @property
    def falls(self) -> bool:
        """Whether the slope is negative and significant."""
        return self.slope < 0 and self.p < ALPHA

    @property
    def begins_well(self) -> bool:
        """Whether severity 1 costs something, but less than MOST."""
        return 0 < self.first < MOST


def measure_falls(clean: Flags, corrupted: Mapping[str, Sequence[Flags]], classes: int) -> dict[str, Fall]:
    """The trend under each corruption; the null: an example's six outcomes are as likely in the reverse order.

    Args:
        clean: (n,).
        corrupted: by name, five of (n,) in order of severity.
        classes: chance is 1 / classes.
    """
    sums = {name: np.tensordot(CONTRAST, np.stack([clean, *rows]).astype(int), 1) for name, rows in corrupted.items()}
    ps = holm([sign_flip(row.tolist()) for row in sums.values()])
    span = float(clean.mean()) - 1 / classes
    means = {name: [float(row.mean()) for row in (clean, *rows)] for name, rows in corrupted.items()}
    return {
        name: Fall(
            slope=float(sums[name].mean()) / 35,
            p=p,
            steps=all(b < a for a, b in pairwise(means[name])),
            first=(means[name][0] - means[name][1]) / span if span > 0 else float("nan"),
        )
        for name, p in zip(corrupted, ps, strict=True)
    }


def compare_means(reference: NDArray[np.int64], others: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """By model, the two-sided p-value of equal means of it and the reference, Holm-adjusted over models.

    Args:
        reference: (n,) in how many of the cells each example is correct.
        others: by model, the same for the same cells.
    """
    ps = holm([sign_flip((row - reference).tolist()) for row in others.values()])
    return dict(zip(others, ps, strict=True))
