"""Paired statistics of two results on the same examples: drops, their bounds, and what a test can detect."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt
from statistics import NormalDist

import numpy as np

from rlbench.core.stats.metrics import mcnemar

_Z = NormalDist().inv_cdf


@dataclass(frozen=True)
class Pairs:
    """The correctness of n examples before and after a change.

    Attributes:
        n: examples.
        lost: examples that are correct only before.
        gained: examples that are correct only after.
    """

    n: int
    lost: int
    gained: int

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> Pairs:
        """From two (n,) bool arrays of the same examples."""
        return cls(len(before), int((before & ~after).sum()), int((after & ~before).sum()))

    @property
    def discordant(self) -> int:
        """Examples that flip."""
        return self.lost + self.gained

    @property
    def drop(self) -> float:
        """100 (lost - gained) / n, in points."""
        return 100 * (self.lost - self.gained) / self.n

    @property
    def p(self) -> float:
        """The two-sided p-value of McNemar's exact test."""
        return mcnemar(self.lost, self.gained)

    @property
    def p_drop(self) -> float:
        """The one-sided p-value: P(at least `lost` of the flips are losses), if both directions are equally likely."""
        return _tail(self.lost, self.discordant)

    def upper(self, confidence: float = 0.95) -> float:
        """The one-sided upper bound of the drop, in points (see `score_bound`)."""
        return 100 * score_bound(self.lost, self.gained, self.n, confidence)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided interval of the drop, in points."""
        side = (1 + confidence) / 2
        return -100 * score_bound(self.gained, self.lost, self.n, side), self.upper(side)

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float:
        """The smallest drop, in points, that the one-sided test detects with this power, given the number of flips.

        (z_alpha + z_power) sqrt(discordant) / n, by default 2.486 sqrt(discordant) / n (Lachin, 1992,
        https://doi.org/10.1002/sim.4780110909), but at least the fewest flips, all losses, that are significant.
        """
        fewest = ceil(log2(1 / alpha))
        return 100 * max((_Z(1 - alpha) + _Z(power)) * sqrt(self.discordant), fewest) / self.n


def _tail(k: int, n: int) -> float:
    """P(X >= k) of X ~ Binomial(n, 1/2)."""
    from scipy.special import bdtrc

    return float(bdtrc(k - 1, n, 0.5)) if k > 0 else 1.0


def score_bound(lost: int, gained: int, n: int, confidence: float) -> float:
    """The one-sided upper bound of P(lost) - P(gained), in [-1, 1], by inverting the score test.

    Tango, 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B, equations 11 and 15.
    Unlike Wald's interval, it keeps its level with few or no flips (Fagerland et al., 2014,
    https://doi.org/10.1002/sim.6148).
    """
    z = _Z(confidence)

    def beyond(delta: float) -> bool:
        b, c = -lost - gained + (2 * n - lost + gained) * delta, -gained * delta * (1 - delta)
        q = max(0.0, (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n))  # maximum likelihood of P(gained) given delta
        variance = n * (2 * q + delta * (1 - delta))
        return lost - gained - n * delta < -z * sqrt(max(0.0, variance))

    low, high = (lost - gained) / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def power(n: int, drop: float, flips: float, *, alpha: float = 0.05, cells: int = 1, margin: float = 0.0) -> float:
    """The exact probability that one cell of `cells` fails: one-sided McNemar at alpha / cells, and a drop > margin.

    This is Holm's first step; if other cells drop too, the probability is higher.

    Args:
        n: examples.
        drop: the true drop, in points.
        flips: the share of examples that flip, in points.
        alpha: the family-wise level.
        cells: how many are tested.
        margin: in points.
    """
    from scipy.stats import binom

    share = flips / 100
    m = np.arange(n + 1)
    weight = binom.pmf(m, n, share)
    fewest = binom.isf(alpha / cells, m, 0.5) + 1  # the smallest k with P(X >= k) <= alpha / cells
    over = np.floor((margin * n / 100 + m) / 2) + 1  # 2 k - m > margin n
    towards = min(1.0, (share + drop / 100) / 2 / share) if share else 0.0
    return float(weight @ binom.sf(np.maximum(fewest, over) - 1, m, towards))
