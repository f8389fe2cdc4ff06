"""Metrics against closed forms and scipy."""

import pytest
import torch
from scipy.stats import binomtest

from rlbench.core.stats.metrics import cluster_interval, holm, margin, mcnemar, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (250, 500), (499, 500), (1, 5000)])
def test_wilson_is_scipys(k, n) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_no_examples_is_the_whole_range() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_margin_counts_ties_and_nan_as_errors() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0], [float("nan"), 0.0, 0.0]])
    correct = margin(logits, torch.tensor([0, 0, 0, 0])) > 0
    assert correct.tolist() == [True, False, False, False]
    assert margin(logits, torch.tensor([0, 0, 0, 0]))[:3].tolist() == [1.0, 0.0, -3.0]


def test_mcnemar_is_the_exact_binomial() -> None:
    """5 against 15 of 20 discordant pairs: 2 P(X <= 5), X binomial(20, 1/2) = 2 * 21700 / 2^20."""
    assert mcnemar(5, 15) == mcnemar(15, 5) == pytest.approx(2 * 21700 / 2**20)
    assert mcnemar(0, 0) == 1.0 and mcnemar(4, 4) == 1.0


def test_holm_by_hand() -> None:
    """The sorted .01, .02, .04 times 3, 2, 1 are .03, .04, .04; monotone, never above 1."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_clustered_interval_covers_and_is_wider_than_wilsons() -> None:
    """For clusters of 5 equal flags and an accuracy of .7, about 95% of 200 intervals contain it."""
    import numpy as np

    g, held = np.random.default_rng(1), 0
    for _ in range(200):
        right = np.repeat(g.random(60) < 0.7, 5)
        low, high = cluster_interval(right.tolist(), np.repeat(np.arange(60), 5).astype(str).tolist(), draws=400)
        held += low <= 0.7 <= high
        own = wilson(int(right.sum()), 300)
        assert high - low > 1.5 * (own[1] - own[0])
    assert 0.90 <= held / 200 <= 0.985


def test_the_clustered_interval_knows_little_of_few_clusters() -> None:
    """Where all bootstrap samples agree, their quantiles would claim certainty."""
    right = [True] * 40
    assert cluster_interval(right, list("abcd") * 10) == pytest.approx(wilson(4, 4))
    assert cluster_interval([not one for one in right], list("abcd") * 10) == pytest.approx(wilson(0, 4))
    assert cluster_interval([True, True, False, True], ["a"] * 4) == pytest.approx(wilson(0.75, 1))
