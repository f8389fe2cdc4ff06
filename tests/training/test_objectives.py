"""Every objective's loss and gradient against values worked out by hand, on a case of two examples and three classes.

The gradients follow from three lines: d CE / dz = p - e_y, d KL(t || p) / dz = p - t, and
d KL(p || t) / dz_c = p_c (log p_c / t_c - KL); z = s n(f) A^T brings them to f by s J A^T with J = (I - n n^T) / |f|.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaln, polygamma

from rlbench.core import registry
from rlbench.training.objectives.terms import kl as kl_of
from rlbench.training.objectives.ucat import dirichlet_kl
from rlbench.training.types import Batch

ANCHORS = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
CAPTIONS = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0]])
F = np.array([[3.0, 4.0, 0.0], [1.0, 2.0, 2.0]])
F_ADV = np.array([[1.0, 2.0, 2.0], [0.0, 2.0, 0.0]])
F0 = np.array([[2.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
F0_ADV = np.array([[0.0, 1.0, 0.0], [6.0, 0.0, 8.0]])
MEANS = np.array([[0.8, 0.6, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
PEERS = np.array([[0.3, -1.2, 0.5], [1.5, 0.2, 0.4]])
MEANS_ADV = np.array([[0.6, 0.0, 0.8], [0.0, 0.0, 1.0], [0.8, 0.6, 0.0]])
PEERS_ADV = np.array([[[1.0, 0.0, 0.0], [0.0, 0.8, 0.6]], [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]])  # one not known yet
Y = [0, 2]


def _batch() -> Batch:
    rows = {"anchors": ANCHORS, "captions": CAPTIONS, "f0": F0, "f0_adv": F0_ADV, "means": MEANS, "peers": PEERS}
    rows |= {"means_adv": MEANS_ADV, "peers_adv": PEERS_ADV}
    return Batch(y=torch.tensor(Y), **{name: torch.from_numpy(value) for name, value in rows.items()})


def _evaluate(name: str, fields: dict, batch: Batch) -> dict[str, np.ndarray]:
    """The losses, what the adversary raises, and the gradients of both in f and f'."""
    objective = registry.make("objective", name, fields)
    f, f_adv = (torch.from_numpy(rows).clone().requires_grad_() for rows in (F, F_ADV))
    loss = objective.loss(f, f_adv, batch)
    assert loss.shape == (2,)
    found = dict(zip(("df", "df_adv"), torch.autograd.grad(loss.sum(), (f, f_adv), allow_unused=True), strict=True))
    found["loss"] = loss.detach()
    if "f_adv" in objective.needs:
        raised = objective.adversary_loss(f_adv, f.detach(), batch)
        found["raised"], found["draised"] = raised.detach(), torch.autograd.grad(raised.sum(), f_adv)[0]
    zero = torch.zeros(2, 3, dtype=torch.float64)
    return {key: (zero if value is None else value).numpy() for key, value in found.items()}


def unit(f: np.ndarray) -> np.ndarray:
    return f / np.sqrt((f**2).sum())


def soft(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum()


def p(f: np.ndarray, s: float, anchors: np.ndarray = ANCHORS) -> np.ndarray:
    return soft(s * anchors @ unit(f))


def kl(a: np.ndarray, b: np.ndarray) -> float:
    return float(sum(x * math.log(x / y) for x, y in zip(a, b, strict=True)))


def back(f: np.ndarray, s: float, dz: np.ndarray, anchors: np.ndarray = ANCHORS) -> np.ndarray:
    """Carries a gradient in the logits over to f."""
    n = unit(f)
    return s * (np.eye(3) - np.outer(n, n)) / np.sqrt((f**2).sum()) @ anchors.T @ dz


def reverse(p_: np.ndarray, t: np.ndarray) -> np.ndarray:
    """d KL(p || t) / dz."""
    return p_ * (np.log(p_ / t) - kl(p_, t))


def e(y: int) -> np.ndarray:
    return np.eye(3)[y]


def rest(f: np.ndarray, y: int, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution over the classes other than y, and their anchors."""
    others = np.delete(ANCHORS, y, 0)
    return p(f, tau, others), others


def check(found: dict[str, np.ndarray], **expected: list) -> None:
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], np.array(value), rtol=1e-9, atol=1e-12, err_msg=key)


def test_fare() -> None:
    """(1,2,2) - (2,0,0) = (-1,2,2) and (0,2,0) - (0,3,4) = (0,-1,-4): sums of squares of what is not normalised."""
    expected = {"loss": [9.0, 17.0], "df": np.zeros((2, 3)), "df_adv": [[-2.0, 4.0, 4.0], [0.0, -2.0, -8.0]]}
    check(_evaluate("fare", {}, _batch()), **expected, raised=[9.0, 17.0], draised=expected["df_adv"])


def test_tecoa_by_hand() -> None:
    """n(f') = (1,2,2)/3 and (0,1,0): at s = 3 the logits are (1, 2.2, 2.8) and (0, 2.4, 1.8)."""
    found = _evaluate("tecoa", {"scale": 3.0}, _batch())
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
    found = _evaluate("tecoa", {"scale": s, "distil": distil, "tau": tau}, _batch())
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
    batch = replace(_batch(), y=torch.tensor(y))
    check(_evaluate("infonce", {"scale": 3.0}, batch), loss=losses, df=slopes, df_adv=np.zeros((2, 3)))


def test_pmg_aft() -> None:
    s, general, clean, rows = 3.0, 0.7, 1.3, []
    for f, f_adv, f0_adv, y in zip(F, F_ADV, F0_ADV, Y, strict=True):
        a, b, c = p(f_adv, s), p(f, s), p(f0_adv, s)
        ce, dce = -math.log(a[y]), back(f_adv, s, a - e(y))
        loss = ce + general * kl(a, c) + clean * kl(a, b)
        df_adv = dce + back(f_adv, s, general * reverse(a, c) + clean * reverse(a, b))
        rows.append((loss, back(f, s, clean * (b - a)), df_adv, ce, dce))
    found = _evaluate("pmg-aft", {"scale": s, "general": general, "clean": clean}, _batch())
    check(found, **dict(zip(("loss", "df", "df_adv", "raised", "draised"), zip(*rows, strict=True), strict=True)))


def test_agft() -> None:
    s, soften, losses, slopes = 5.0, 0.4, [], []
    for f, f0 in zip(F_ADV, F0, strict=True):
        target = soft(soften * s * ANCHORS @ unit(f0))
        losses.append(-float((target * np.log(p(f, s))).sum()))
        slopes.append(back(f, s, p(f, s) - target))
    found = _evaluate("agft", {"scale": s, "soften": soften}, _batch())
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
    found = _evaluate("ucat", {"scale": s, "dirichlet": weight, "tau": tau}, _batch())
    check(found, **dict(zip(("loss", "df_adv", "raised", "draised"), zip(*rows, strict=True), strict=True)))
    check(found, df=np.zeros((2, 3)))


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
    found = _evaluate("advflyp", {"scale": s, "features": features, "predictions": predictions}, _batch())
    check(found, **dict(zip(("loss", "df", "df_adv"), zip(*rows, strict=True), strict=True)))
    check(found, raised=losses, draised=slopes)


def test_distribution() -> None:
    tau, rows = 2.0, []
    for f, f_adv, f0 in zip(F, F_ADV, F0, strict=True):
        a, b, t = p(f_adv, tau), p(f, tau), p(f0, tau)
        rows.append((kl(t, b) + kl(t, a), back(f, tau, b - t), back(f_adv, tau, a - t), kl(t, a)))
    found = _evaluate("distribution", {"tau": tau}, _batch())
    check(found, **dict(zip(("loss", "df", "df_adv", "raised"), zip(*rows, strict=True), strict=True)))
    check(found, draised=found["df_adv"])


def test_prototypes() -> None:
    """The rows of y, its anchor and its prototype, share the target as they share the probability of both."""
    s, losses, slopes = 3.0, [], []
    prototypes = np.array([unit(a + m) for a, m in zip(ANCHORS, MEANS_ADV, strict=True)])
    both = np.concatenate([ANCHORS, prototypes])
    for f, y in zip(F_ADV, Y, strict=True):
        q, own = p(f, s, both), np.tile(e(y), 2)
        losses.append(-math.log((q * own).sum()))
        slopes.append(back(f, s, q - q * own / (q * own).sum(), both))
    found = _evaluate("prototypes", {"scale": s}, _batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


def test_teacher() -> None:
    tau, losses, slopes = 2.0, [], []
    for f, y in zip(F_ADV, Y, strict=True):
        target = soft(tau * ANCHORS @ MEANS_ADV[y])
        losses.append(kl(target, p(f, tau)))
        slopes.append(back(f, tau, p(f, tau) - target))
    found = _evaluate("teacher", {"tau": tau}, _batch())
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


def test_joint() -> None:
    s, rows = 3.0, []
    for f, others, y in zip(F_ADV, PEERS_ADV.sum(0), Y, strict=True):
        rows.append(_summed(f, others, y, s))
    losses, slopes = zip(*rows, strict=True)
    found = _evaluate("joint", {"scale": s}, _batch())
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
    found = _evaluate("negatives", {"scale": s}, replace(_batch(), y=torch.tensor(y)))
    check(found, loss=losses, df=np.zeros((2, 3)), df_adv=slopes, raised=losses, draised=slopes)


@pytest.mark.parametrize("others", [np.zeros((0, 2, 3)), np.zeros((2, 2, 3))], ids=["no sensor", "no features yet"])
def test_negatives_without_other_features_are_zero(others: np.ndarray) -> None:
    found = _evaluate("negatives", {}, replace(_batch(), peers_adv=torch.from_numpy(others)))
    check(found, loss=[0.0, 0.0], df_adv=np.zeros((2, 3)), draised=np.zeros((2, 3)))


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


def _summed(f: np.ndarray, peers: np.ndarray, y: int, s: float) -> tuple[float, np.ndarray]:
    """The cross-entropy of the sum of unit features, with its gradient."""
    q = soft(s * ANCHORS @ (unit(f) + peers))
    return -math.log(q[y]), back(f, s, q - e(y))


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
        value, slope = _summed(f, peers, y, s)
        loss, df = loss + weights["fused"] * value, df + weights["fused"] * slope
        value, slope = (weights["fused"] * adversarial * one for one in _summed(f_adv, peers, y, s))
        above, draised = above + value, draised + slope
        above, draised = above + weights["clean"] * kl(b, a), draised + weights["clean"] * back(f_adv, s, a - b)
        df = df + weights["clean"] * back(f, s, reverse(b, a))
        rows.append((loss + above, df, draised, above, draised))
    fields = {"distance": distance, "adversarial": adversarial, "scale": s, "tau": tau, **weights}
    batch = _batch()
    needs = registry.make("objective", "rlbind", fields).needs
    assert needs == {"f", "f_adv"} | {n for n, w in NEEDS.items() if weights[w]}
    spare = {name: None for name in NEEDS if name not in needs}  # what is not needed is ignored
    found = _evaluate("rlbind", fields, replace(batch, f0_adv=None, **spare))
    check(found, **dict(zip(("loss", "df", "df_adv", "raised", "draised"), zip(*rows, strict=True), strict=True)))


@pytest.mark.parametrize("name", registry.names("objective"))
def test_every_objective_needs_only_the_rows_that_it_names(name: str) -> None:
    """Without the rows that it does not name, its loss is the same; NaN features never give a finite loss."""
    objective = registry.make("objective", name)
    f, f_adv = torch.from_numpy(F), torch.from_numpy(F_ADV)
    optional = ("f0", "f0_adv", "means", "peers", "means_adv", "peers_adv")
    spare = {key: None for key in optional if key not in objective.needs}
    broken = torch.full_like(f, torch.nan)
    first = objective.loss(f, f_adv, _batch())
    second = objective.loss(
        f if "f" in objective.needs else broken,
        f_adv if "f_adv" in objective.needs else broken,
        replace(_batch(), **spare),
    )
    assert torch.equal(first, second) and first.isfinite().all()
    assert objective.loss(broken, broken, _batch()).isnan().all()


def test_a_kl_of_nan_is_nan() -> None:
    assert kl_of(torch.full((1, 3), torch.nan), torch.zeros(1, 3)).isnan().all()
    assert kl_of(torch.zeros(1, 3), torch.full((1, 3), torch.nan)).isnan().all()
