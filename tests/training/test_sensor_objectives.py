"""The terms across sensors and their gradients against values worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from objective_case import (
    ANCHORS,
    F_ADV,
    MEANS_ADV,
    PEERS_ADV,
    Y,
    back,
    check,
    e,
    evaluate,
    kl,
    make_batch,
    p,
    soft,
    summed,
    unit,
)


def test_prototypes() -> None:
    """The rows of y, its anchor and its prototype, share the target as they share the probability of both."""
    s, losses, slopes = 3.0, [], []
    prototypes = np.array([unit(a + m) for a, m in zip(ANCHORS, MEANS_ADV, strict=True)])
    both = np.concatenate([ANCHORS, prototypes])
    for f, y in zip(F_ADV, Y, strict=True):
        q, own = p(f, s, both), np.tile(e(y), 2)
        losses.append(-math.log((q * own).sum()))
        slopes.append(back(f, s, q - q * own / (q * own).sum(), both))
    found = evaluate("prototypes", {"scale": s}, make_batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


def test_teacher() -> None:
    tau, losses, slopes = 2.0, [], []
    for f, y in zip(F_ADV, Y, strict=True):
        target = soft(tau * ANCHORS @ MEANS_ADV[y])
        losses.append(kl(target, p(f, tau)))
        slopes.append(back(f, tau, p(f, tau) - target))
    found = evaluate("teacher", {"tau": tau}, make_batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


def test_joint() -> None:
    s, rows = 3.0, []
    for f, others, y in zip(F_ADV, PEERS_ADV.sum(0), Y, strict=True):
        rows.append(summed(f, others, y, s))
    losses, slopes = zip(*rows, strict=True)
    found = evaluate("joint", {"scale": s}, make_batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


@pytest.mark.parametrize("y", [Y, [1, 1]])
def test_negatives(y: list[int]) -> None:
    """Three of the four rows are known: both sensors' of the first scene, one of the second."""
    s, losses, slopes = 3.0, [], []
    rows, scenes = PEERS_ADV.reshape(4, 3)[:3], [0, 1, 0]
    for f, own in zip(F_ADV, y, strict=True):
        positive = np.array([float(y[k] == own) for k in scenes])
        positive /= positive.sum()
        q = p(f, s, rows)
        losses.append(float(-(positive * np.log(q)).sum()))
        slopes.append(back(f, s, q - positive, rows))
    found = evaluate("negatives", {"scale": s}, replace(make_batch(), y=torch.tensor(y)))
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


@pytest.mark.parametrize("others", [np.zeros((0, 2, 3)), np.zeros((2, 2, 3))], ids=["no sensor", "no features yet"])
def test_negatives_without_other_features_are_zero(others: np.ndarray) -> None:
    found = evaluate("negatives", {}, replace(make_batch(), peers_adv=torch.from_numpy(others)))
    check(found, loss=[0.0, 0.0], df_adv=np.zeros((2, 3)), draised=np.zeros((2, 3)))
