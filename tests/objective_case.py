"""Two examples of three classes, on which objectives are worked out by hand.

The gradients follow from three lines: d CE / dz = p - e_y, d KL(t || p) / dz = p - t, and
d KL(p || t) / dz_c = p_c (log p_c / t_c - KL); z = s n(f) A^T brings them to f by s J A^T with J = (I - n n^T) / |f|.
"""

import math

import numpy as np
import torch

from rlbench.core import registry
from rlbench.training.types import Batch

ANCHORS = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
CAPTIONS = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0]])
F = np.array([[3.0, 4.0, 0.0], [1.0, 2.0, 2.0]])
F_ADV = np.array([[1.0, 2.0, 2.0], [0.0, 2.0, 0.0]])
F0 = np.array([[2.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
F0_ADV = np.array([[0.0, 1.0, 0.0], [6.0, 0.0, 8.0]])
F_ADV_BEFORE = np.array([[2.0, 2.0, 1.0], [0.0, 4.0, 3.0]])
MEANS = np.array([[0.8, 0.6, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
PEERS = np.array([[0.3, -1.2, 0.5], [1.5, 0.2, 0.4]])
MEANS_ADV = np.array([[0.6, 0.0, 0.8], [0.0, 0.0, 1.0], [0.8, 0.6, 0.0]])
PEERS_ADV = np.array([[[1.0, 0.0, 0.0], [0.0, 0.8, 0.6]], [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]])  # one not known yet
Y = [0, 2]


def make_batch() -> Batch:
    rows = {"anchors": ANCHORS, "captions": CAPTIONS, "f0": F0, "f0_adv": F0_ADV, "means": MEANS, "peers": PEERS}
    rows |= {"f_adv_before": F_ADV_BEFORE, "means_adv": MEANS_ADV, "peers_adv": PEERS_ADV}
    return Batch(y=torch.tensor(Y), **{name: torch.from_numpy(value) for name, value in rows.items()})


def evaluate(name: str, fields: dict, batch: Batch) -> dict[str, np.ndarray]:
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


def summed(f: np.ndarray, peers: np.ndarray, y: int, s: float) -> tuple[float, np.ndarray]:
    """The cross-entropy of the sum of unit features, with its gradient."""
    q = soft(s * ANCHORS @ (unit(f) + peers))
    return -math.log(q[y]), back(f, s, q - e(y))
