"""Measures against closed forms and scipy."""

import pytest
import torch
from scipy.stats import binomtest

from rlbench.metrics import margin, wilson, worst_case


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (250, 500), (499, 500), (1, 5000)])
def test_wilson_is_scipys(k, n) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_margin_counts_ties_and_nan_as_errors() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0], [float("nan"), 0.0, 0.0]])
    correct = margin(logits, torch.tensor([0, 0, 0, 0])) > 0
    assert correct.tolist() == [True, False, False, False]
    assert margin(logits, torch.tensor([0, 0, 0, 0]))[:3].tolist() == [1.0, 0.0, -3.0]


def test_worst_case_is_the_mean_of_minima() -> None:
    a, b = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    assert worst_case([a, b]).tolist() == [True, False, False]
