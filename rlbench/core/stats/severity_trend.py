"""Tests on flags of the same examples: does accuracy fall with severity, and is one model's mean above another's?

Flags are (n,) booleans: which examples are correct. The tests are exact paired randomisation tests (`metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rlbench.core.stats.metrics import holm, sign_flip

Flags = NDArray[np.bool_]
CONTRAST = (-5, -3, -1, 1, 3, 5)  # of clean and severities 1 to 5: by it, the least-squares slope is the sum over 35
ALPHA = 0.05
MOST = 0.6  # of what is between clean and chance may be lost at severity 1


@dataclass(frozen=True)
class Fall:
    """How accuracy goes from clean to severity 5 under one corruption.

    Attributes:
        slope: of the least-squares line over 0 (clean) to 5, in accuracy a severity.
        p: that the slope is 0, two-sided, adjusted for the number of corruptions (Holm).
        steps: every severity is below the one before it, and severity 1 below clean.
        first: the loss at severity 1, as a part of what is between clean and chance; NaN where that is nothing.
    """

    slope: float
    p: float
    steps: bool
    first: float

    @property
    def falls(self) -> bool:
        return self.slope < 0 and self.p < ALPHA

    @property
    def begins_well(self) -> bool:
        """Severity 1 costs something, and not most of it."""
        return 0 < self.first < MOST


def falls(clean: Flags, corrupted: Mapping[str, Sequence[Flags]], classes: int) -> dict[str, Fall]:
    """By corruption. If severity does not matter, an example's six outcomes are as likely in reverse: the test's null.

    Args:
        clean: (n,); corrupted: by name five of (n,), in order of severity; classes: chance is one over it.
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


def gains(reference: NDArray[np.int64], others: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
    """p that a model's mean is the reference's, by model, adjusted for their number (Holm).

    Args:
        reference, others: (n,) under how many of the same cells each example is correct.
    """
    ps = holm([sign_flip((row - reference).tolist()) for row in others.values()])
    return dict(zip(others, ps, strict=True))
