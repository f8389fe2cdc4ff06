"""Statistics of a sample against a claim about the whole, as pure functions: exact tests, what they would refute."""

from __future__ import annotations

import numpy as np

SURE = 0.95  # probability that defines what would have been refuted


def p_lost(lost: int, drawn: int, claimed: int, allowed: int) -> float:
    """P(L >= lost): of `claimed` examples that are said to be correct `allowed` are not; `drawn` of them were checked.

    L is hypergeometric, as in acceptance sampling (Dodge and Romig, 1929,
    https://doi.org/10.1002/j.1538-7305.1929.tb01240.x).
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(lost - 1, claimed, allowed, drawn))


def least_lost(drawn: int, claimed: int, allowed: int, level: float) -> int:
    """The fewest unfounded examples among `claimed` that are refuted at this level with probability SURE.

    claimed + 1 where even all of them would not be.
    """
    from scipy.stats import hypergeom

    lost = np.arange(drawn + 2)
    enough = int(lost[hypergeom.sf(lost - 1, claimed, allowed, drawn) < level][0])
    unfounded = np.arange(claimed + 1)
    found = unfounded[hypergeom.sf(enough - 1, claimed, unfounded, drawn) >= SURE]
    return int(found[0]) if len(found) else claimed + 1


def p_few(correct: int, k: int, share: float) -> float:
    """P(X <= correct) of X ~ Binomial(k, share): the exact one-sided test (Clopper and Pearson, 1934).

    https://doi.org/10.1093/biomet/26.4.404
    """
    from scipy.stats import binom

    return float(binom.cdf(correct, k, share))


def least_share(k: int, share: float, level: float) -> float:
    """The highest true share, to a thousandth, that is refuted at this level with probability SURE; 0 if none is."""
    from scipy.stats import binom

    counts = np.arange(k + 1)
    few = counts[binom.cdf(counts, k, share) < level]
    if not len(few):
        return 0.0
    shares = np.arange(1001) / 1000
    return float(shares[binom.cdf(few[-1], k, shares) >= SURE][-1])
