"""Every objective's loss and gradient against values worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from objective_case import (
    ANCHORS,
    CAPTIONS,
    F0,
    F0_ADV,
    F_ADV,
    F_ADV_BEFORE,
    MEANS,
    PEERS,
    F,
    Y,
    back,
    check,
    e,
    evaluate,
    kl,
    make_batch,
    p,
    rest,
    reverse,
    soft,
    summed,
    unit,
)
from scipy.special import digamma, gammaln, polygamma
from torch import Tensor

from rlbench.core import registry
from rlbench.core.errors import RLBenchError
from rlbench.training.losses import call_objective
from rlbench.training.objectives.gram_volume import volume
from rlbench.training.objectives.terms import kl as kl_of
from rlbench.training.objectives.ucat import dirichlet_kl
from rlbench.training.types import Batch


def test_fare() -> None:
    """(1,2,2) - (2,0,0) = (-1,2,2) and (0,2,0) - (0,3,4) = (0,-1,-4): sums of squares of what is not normalised."""
    expected = {"loss": [9.0, 17.0], "df": np.zeros((2, 3)), "df_adv": [[-2.0, 4.0, 4.0], [0.0, -2.0, -8.0]]}
    check(evaluate("fare", {}, make_batch()), **expected, raised=[9.0, 17.0], draised=expected["df_adv"])


def test_tecoa_by_hand() -> None:
    """n(f') = (1,2,2)/3 and (0,1,0): at s = 3 the logits are (1, 2.2, 2.8) and (0, 2.4, 1.8)."""
    found = evaluate("tecoa", {"scale": 3.0}, make_batch())
    first, second = math.exp(1) + math.exp(2.2) + math.exp(2.8), 1 + math.exp(2.4) + math.exp(1.8)
    check(found, loss=[math.log(first) - 1, math.log(second) - 1.8])
    share = (
        np.exp([0.0, 2.4, 1.8]) / second
    )  # the second row's J leaves the first and the last coordinate, over |f'| = 2
    slope = 3 / 2 * np.array([share[0] + 0.6 * share[1], 0.0, 0.8 * (share[2] - 1)])
    np.testing.assert_allclose(found["df_adv"][1], slope)


@pytest.mark.parametrize("distil", [0.0, 1.5])
def test_tecoa(distil: float) -> None:
    s, tau, losses, slopes, raised, draised = 3.0, 2.0, [], [], [], []
    for f, f0, y in zip(F_ADV, F0, Y, strict=True):
        (q, others), q0 = rest(f, y, tau), rest(f0, y, tau)[0]
        raised.append(-math.log(p(f, s)[y]))
        draised.append(back(f, s, p(f, s) - e(y)))
        losses.append(raised[-1] + distil * kl(q0, q))
        slopes.append(draised[-1] + distil * back(f, tau, q - q0, others))
    found = evaluate("tecoa", {"scale": s, "distil": distil, "tau": tau}, make_batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=raised, draised=draised)


def _infonce(f: np.ndarray, s: float, y: list[int]) -> tuple[list[float], np.ndarray]:
    """Losses by definition; the gradient of their sum."""
    n = np.array([unit(row) for row in f])
    target = np.array([[float(a == b) for b in y] for a in y])
    target /= target.sum(1, keepdims=True)
    forward, backward = np.array([soft(s * CAPTIONS @ row) for row in n]), np.array([soft(s * n @ c) for c in CAPTIONS])
    losses = [float(-(t * np.log(a * b)).sum() / 2) for t, a, b in zip(target, forward, backward, strict=True)]
    dz = (forward - target + (backward - target).T) / 2  # of logit (row, caption)
    return losses, np.array([back(row, s, d, CAPTIONS) for row, d in zip(f, dz, strict=True)])


@pytest.mark.parametrize("y", [Y, [1, 1]])
def test_infonce(y: list[int]) -> None:
    """Two classes, and one: then both captions are positives of both examples."""
    losses, slopes = _infonce(F, 3.0, y)
    batch = replace(make_batch(), y=torch.tensor(y))
    check(evaluate("infonce", {"scale": 3.0}, batch), loss=losses, df=slopes, df_adv=np.zeros((2, 3)))


def test_pmg_aft() -> None:
    s, general, clean, rows = 3.0, 0.7, 1.3, []
    for f, f_adv, f0_adv, y in zip(F, F_ADV, F0_ADV, Y, strict=True):
        a, b, c = p(f_adv, s), p(f, s), p(f0_adv, s)
        ce, dce = -math.log(a[y]), back(f_adv, s, a - e(y))
        loss = ce + general * kl(a, c) + clean * kl(a, b)
        df_adv = dce + back(f_adv, s, general * reverse(a, c) + clean * reverse(a, b))
        rows.append((loss, back(f, s, clean * (b - a)), df_adv, ce, dce))
    found = evaluate("pmg-aft", {"scale": s, "general": general, "clean": clean}, make_batch())
    check(found, **dict(zip(("loss", "df", "df_adv", "raised", "draised"), zip(*rows, strict=True), strict=True)))


def test_agft() -> None:
    s, soften, losses, slopes = 5.0, 0.4, [], []
    for f, f0 in zip(F_ADV, F0, strict=True):
        target = soft(soften * s * ANCHORS @ unit(f0))
        losses.append(-float((target * np.log(p(f, s))).sum()))
        slopes.append(back(f, s, p(f, s) - target))
    found = evaluate("agft", {"scale": s, "soften": soften}, make_batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


def test_the_kl_of_dirichlets_by_hand() -> None:
    """Dir(1, 1) is uniform on [0, 1], Dir(2, 1) has the density 2 u: both KLs are integrals of a logarithm."""
    uniform, rising = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0]])
    assert dirichlet_kl(uniform, rising).item() == pytest.approx(1 - math.log(2))
    assert dirichlet_kl(rising, uniform).item() == pytest.approx(math.log(2) - 0.5)
    assert dirichlet_kl(rising, rising).item() == pytest.approx(0, abs=1e-12)


def test_ucat() -> None:
    s, tau, weight, rows = 3.0, 2.0, 7.0, []
    share = weight / (1 + math.exp(2 * tau))
    for f, f0, y in zip(F_ADV, F0, Y, strict=True):
        a, b = (np.exp(tau * (ANCHORS @ unit(g) + 1)) for g in (f, f0))
        loss = gammaln(a.sum()) - gammaln(a).sum() - gammaln(b.sum()) + gammaln(b).sum()
        loss += ((a - b) * (digamma(a) - digamma(a.sum()))).sum()
        da = (a - b) * polygamma(1, a) - (a - b).sum() * polygamma(1, a.sum())
        raised, draised = -math.log(p(f, s)[y]), back(f, s, p(f, s) - e(y))
        rows.append((raised + share * loss, draised + share * back(f, tau, a * da), raised, draised))
    found = evaluate("ucat", {"scale": s, "dirichlet": weight, "tau": tau}, make_batch())
    check(found, **dict(zip(("loss", "df_adv", "raised", "draised"), zip(*rows, strict=True), strict=True)))
    check(found, df=np.zeros((2, 3)))


def test_the_volume_of_unit_vectors_by_hand() -> None:
    """Two at an angle of 30 degrees have the area 1/2; a third one at 60 degrees to their plane, sin 60 times that."""
    first, second = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[math.sqrt(3), 1.0, 0.0]])
    third = torch.tensor([[0.0, 0.5, math.sqrt(0.75)]])
    assert volume(first, second).item() == pytest.approx(0.5, abs=1e-5)
    assert volume(first, second, third).item() == pytest.approx(0.5 * math.sqrt(0.75), abs=1e-5)
    assert volume(first, third, first).item() == pytest.approx(0, abs=2e-3)


def test_the_volume_of_equal_features_has_a_finite_gradient() -> None:
    f = torch.tensor([[0.3, -1.2, 0.5]], requires_grad=True)
    assert torch.autograd.grad(volume(f, f.detach().clone(), f.detach().clone()).sum(), f)[0].isfinite().all()


def test_gram_volume() -> None:
    """In three dimensions it is |a . (b x c)|, whose gradient in a is b x c up to the sign."""
    rows = []
    for f, f_adv, before in zip(F, F_ADV, F_ADV_BEFORE, strict=True):
        a, b, c = unit(f), unit(f_adv), unit(before)
        sign = np.sign(a @ np.cross(b, c))
        df, df_adv = (back(g, 1.0, sign * d, np.eye(3)) for g, d in ((f, np.cross(b, c)), (f_adv, np.cross(c, a))))
        rows.append((abs(a @ np.cross(b, c)), df, df_adv, np.linalg.norm(np.cross(a, b))))
    found = evaluate("gram-volume", {}, make_batch())
    for key, value in zip(("loss", "df", "df_adv", "raised"), zip(*rows, strict=True), strict=True):
        np.testing.assert_allclose(found[key], np.array(value), atol=3e-5, err_msg=key)


def test_advflyp() -> None:
    s, features, predictions, rows = 3.0, 0.7, 1.3, []
    losses, slopes = _infonce(F_ADV, s, Y)
    for f, f_adv, f0_adv, loss, slope in zip(F, F_ADV, F0_ADV, losses, slopes, strict=True):
        a, b, c = p(f_adv, s), p(f, s), p(f0_adv, s)
        near = sum(float(((unit(f_adv) - unit(g)) ** 2).sum()) for g in (f0_adv, f))
        total = loss + features * near + predictions * (kl(c, a) + kl(b, a))
        df_adv = slope - 2 * features * back(f_adv, 1.0, unit(f0_adv) + unit(f), np.eye(3))
        df_adv += predictions * back(f_adv, s, 2 * a - c - b)
        df = -2 * features * back(f, 1.0, unit(f_adv), np.eye(3)) + predictions * back(f, s, reverse(b, a))
        rows.append((total, df, df_adv))
    found = evaluate("advflyp", {"scale": s, "features": features, "predictions": predictions}, make_batch())
    check(found, **dict(zip(("loss", "df", "df_adv"), zip(*rows, strict=True), strict=True)))
    check(found, raised=losses, draised=slopes)


def test_distribution() -> None:
    tau, rows = 2.0, []
    for f, f_adv, f0 in zip(F, F_ADV, F0, strict=True):
        a, b, t = p(f_adv, tau), p(f, tau), p(f0, tau)
        rows.append((kl(t, b) + kl(t, a), back(f, tau, b - t), back(f_adv, tau, a - t), kl(t, a)))
    found = evaluate("distribution", {"tau": tau}, make_batch())
    check(found, **dict(zip(("loss", "df", "df_adv", "raised"), zip(*rows, strict=True), strict=True)))
    check(found, draised=found["df_adv"])


def _aligned(f: np.ndarray, y: int, distance: str, s: float) -> tuple[float, np.ndarray]:
    if distance == "ce":
        return -math.log(p(f, s)[y]), back(f, s, p(f, s) - e(y))
    if distance == "cosine":
        return s * (1 - float(unit(f) @ ANCHORS[y])), -s * back(f, 1.0, ANCHORS[y], np.eye(3))
    return float(((f - ANCHORS[y]) ** 2).sum()), 2 * (f - ANCHORS[y])


def _reference(f: np.ndarray, f0: np.ndarray, y: int, name: str, tau: float) -> tuple[float, np.ndarray]:
    """A term of the distributional alignment that is the same for f and f', with its gradient."""
    if name == "original":
        (q, others), q0 = rest(f, y, tau), rest(f0, y, tau)[0]
        return kl(q0, q), back(f, tau, q - q0, others)
    target = soft(tau * ANCHORS @ (ANCHORS if name == "text" else MEANS)[y])
    return kl(target, p(f, tau)) / 2, back(f, tau, p(f, tau) - target) / 2


NONE = {"clean": 0.0, "text": 0.0, "means": 0.0, "original": 0.0, "fused": 0.0}
NEEDS = {"f0": "original", "means": "means", "peers": "fused"}


@pytest.mark.parametrize("distance", ["ce", "cosine", "l2"])
@pytest.mark.parametrize(
    "weights",
    [
        NONE,
        *({**NONE, name: 1.7} for name in NONE),
        {"clean": 0.5, "text": 0.7, "means": 1.1, "original": 1.3, "fused": 0.9},
    ],
    ids=["none", *NONE, "all"],
)
def test_rlbind(distance: str, weights: dict[str, float]) -> None:
    s, tau, adversarial, rows = 3.0, 2.0, 2.5, []
    for f, f_adv, f0, peers, y in zip(F, F_ADV, F0, PEERS, Y, strict=True):
        a, b = p(f_adv, s), p(f, s)
        loss, df = _aligned(f, y, distance, s)
        above, draised = (adversarial * value for value in _aligned(f_adv, y, distance, s))
        for name in ("text", "means", "original"):
            value, slope = _reference(f, f0, y, name, tau)
            loss, df = loss + weights[name] * value, df + weights[name] * slope
            value, slope = _reference(f_adv, f0, y, name, tau)
            above, draised = above + weights[name] * value, draised + weights[name] * slope
        value, slope = summed(f, peers, y, s)
        loss, df = loss + weights["fused"] * value, df + weights["fused"] * slope
        value, slope = (weights["fused"] * adversarial * one for one in summed(f_adv, peers, y, s))
        above, draised = above + value, draised + slope
        above, draised = above + weights["clean"] * kl(b, a), draised + weights["clean"] * back(f_adv, s, a - b)
        df = df + weights["clean"] * back(f, s, reverse(b, a))
        rows.append((loss + above, df, draised, above, draised))
    fields = {"distance": distance, "adversarial": adversarial, "scale": s, "tau": tau, **weights}
    batch = make_batch()
    needs = registry.make("objective", "rlbind", fields).needs
    assert needs == {"f", "f_adv"} | {n for n, w in NEEDS.items() if weights[w]}
    spare = {name: None for name in NEEDS if name not in needs}  # what is not needed is ignored
    found = evaluate("rlbind", fields, replace(batch, f0_adv=None, **spare))
    check(found, **dict(zip(("loss", "df", "df_adv", "raised", "draised"), zip(*rows, strict=True), strict=True)))


@pytest.mark.parametrize("name", registry.names("objective"))
def test_every_objective_needs_only_the_rows_that_it_names(name: str) -> None:
    """Without the rows that it does not name, its loss is the same; NaN features never give a finite loss."""
    objective = registry.make("objective", name)
    f, f_adv = torch.from_numpy(F), torch.from_numpy(F_ADV)
    optional = ("f0", "f0_adv", "f_adv_before", "means", "peers", "means_adv", "peers_adv")
    spare = {key: None for key in optional if key not in objective.needs}
    broken = torch.full_like(f, torch.nan)
    first = objective.loss(f, f_adv, make_batch())
    second = objective.loss(
        f if "f" in objective.needs else broken,
        f_adv if "f_adv" in objective.needs else broken,
        replace(make_batch(), **spare),
    )
    assert torch.equal(first, second) and first.isfinite().all()
    assert objective.loss(broken, broken, make_batch()).isnan().all()


def test_a_kl_of_nan_is_nan() -> None:
    assert kl_of(torch.full((1, 3), torch.nan), torch.zeros(1, 3)).isnan().all()
    assert kl_of(torch.zeros(1, 3), torch.full((1, 3), torch.nan)).isnan().all()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda f: f.sum(), r"returned \(\) float64; it must be \(2,\)"),
        (lambda f: f @ f.T, r"returned \(2, 2\) float64; it must be \(2,\)"),
        (lambda f: 1.0, "returned float; it must be"),
        (lambda f: f.detach().sum(1), "has no gradient in the features"),
        (lambda f: f.nothing, r"raised AttributeError: .* \(test_objectives\.py, line [0-9]+\)"),
    ],
)
def test_a_loss_of_ones_own_must_be_one_value_a_row(answer: Callable[[Tensor], Tensor], words: str) -> None:
    """Else a scalar or a matrix is summed, and another loss is trained without a word."""

    def loss(f: Tensor, f_adv: Tensor, batch: Batch) -> Tensor:
        return answer(f_adv)

    f, f_adv = (torch.from_numpy(rows).clone().requires_grad_() for rows in (F, F_ADV))
    with pytest.raises(RLBenchError, match=words):
        call_objective(loss, f, f_adv, make_batch())
