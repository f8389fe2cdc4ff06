"""Exact tests of a random sample against a claim about the whole, and what they could have refuted."""

from __future__ import annotations

import numpy as np

SURE = 0.95  # the power at which an overstatement counts as detectable


def p_lost(lost: int, drawn: int, claimed: int, allowed: int) -> float:
    """P(L >= lost) for a hypergeometric L, as in acceptance sampling.

    Dodge and Romig, 1929, https://doi.org/10.1002/j.1538-7305.1929.tb01240.x.

    Args:
        lost: checked examples that turned out to be wrong.
        drawn: checked examples.
        claimed: examples that are claimed to be correct.
        allowed: how many of the claimed may be wrong.
    """
    from scipy.stats import hypergeom

    if claimed == 0:
        return 1.0  # nothing is claimed that could be wrong
    return float(hypergeom.sf(lost - 1, claimed, allowed, drawn))


def least_lost(drawn: int, claimed: int, allowed: int, level: float) -> int:
    """The fewest wrong examples among `claimed` that the test at `level` refutes with probability SURE.

    It is claimed + 1 if the test would not refute even `claimed` wrong ones. Arguments as of `p_lost`.
    """
    from scipy.stats import hypergeom

    if claimed == 0:
        return 1
    lost = np.arange(drawn + 2)
    enough = int(lost[hypergeom.sf(lost - 1, claimed, allowed, drawn) < level][0])
    wrong = np.arange(claimed + 1)
    found = wrong[hypergeom.sf(enough - 1, claimed, wrong, drawn) >= SURE]
    return int(found[0]) if len(found) else claimed + 1


def p_few(correct: int, k: int, share: float) -> float:
    """P(X <= correct) of X ~ Binomial(k, share): the exact one-sided test (Clopper and Pearson, 1934).

    https://doi.org/10.1093/biomet/26.4.404
    """
    from scipy.stats import binom

    return float(binom.cdf(correct, k, share))


def least_share(k: int, share: float, level: float) -> float:
    """The highest true share, to 0.001, that the test at `level` refutes with probability SURE; 0 if there is none."""
    from scipy.stats import binom

    counts = np.arange(k + 1)
    few = counts[binom.cdf(counts, k, share) < level]
    if not len(few):
        return 0.0
    shares = np.arange(1001) / 1000
    return float(shares[binom.cdf(few[-1], k, shares) >= SURE][-1])
