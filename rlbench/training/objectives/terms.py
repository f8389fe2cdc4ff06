"""The terms of the objectives, per example.

f: features (B, D), not normalised; n(f): f scaled to unit norm; A: (C, D) unit anchors; y: (B,) int64 labels;
s: the scale of logits, or tau: the inverse temperature of a distribution; p_s(f) = softmax(s n(f) A^T).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from rlbench.core.errors import FieldError
from rlbench.training.types import Batch


def logits(f: Tensor, anchors: Tensor, s: float) -> Tensor:
    """s n(f) A^T: (B, D), (C, D) -> (B, C)."""
    return s * normalize(f, dim=-1) @ anchors.T


def ce(f: Tensor, anchors: Tensor, y: Tensor, s: float) -> Tensor:
    """-log p_s(f)_y -> (B,)."""
    return cross_entropy(logits(f, anchors, s), y, reduction="none")


def log_p(f: Tensor, anchors: Tensor, s: float) -> Tensor:
    """log p_s(f) -> (B, C)."""
    return log_softmax(logits(f, anchors, s), dim=1)


def kl(log_target: Tensor, log_other: Tensor) -> Tensor:
    """KL(target || other) per row of log-probabilities: (B, C), (B, C) -> (B,)."""
    return (log_target.exp() * (log_target - log_other)).sum(1)


def log_q(f: Tensor, anchors: Tensor, y: Tensor, tau: float) -> Tensor:
    """(B, C - 1) log-probabilities of p_tau(f) over the classes other than y."""
    z = logits(f, anchors, tau)
    others = torch.ones_like(z, dtype=torch.bool).scatter(1, y[:, None], False)
    return log_softmax(z[others].view(len(z), -1), dim=1)


def retention(f: Tensor, f0: Tensor, batch: Batch, tau: float) -> Tensor:
    """KL(q(f0) || q(f)) with q = p_tau over the classes other than y -> (B,).

    Distils the original's distribution over the other classes, without its errors on y (non-target distillation:
    Zhao et al., 2022, https://arxiv.org/abs/2203.08679).
    """
    return kl(log_q(f0, batch.anchors, batch.y, tau), log_q(f, batch.anchors, batch.y, tau))


def squared_distance(f: Tensor, other: Tensor) -> Tensor:
    """|n(f) - n(other)|^2 -> (B,)."""
    return (normalize(f, dim=-1) - normalize(other, dim=-1)).square().sum(1)


def infonce(f: Tensor, batch: Batch, s: float) -> Tensor:
    """InfoNCE of each row to the batch's captions, in both directions; rows of one class are positives of each other.

    van den Oord et al., 2018, https://arxiv.org/abs/1807.03748; several positives as in Khosla et al., 2020,
    https://arxiv.org/abs/2004.11362. The loss of the whole batch is the mean over the rows of all processes.
    """
    y, captions, rows = batch.gather(batch.y), batch.gather(batch.captions), batch.gather(f)
    positive = (batch.y[:, None] == y).float()
    target = positive / positive.sum(1, keepdim=True)
    forward = cross_entropy(logits(f, captions, s), target, reduction="none")
    backward = cross_entropy(logits(rows, batch.captions, s).T, target, reduction="none")
    return (forward + backward) / 2


def require(rows: Tensor | None) -> Tensor:
    """Returns rows of a batch that are in the objective's `needs`."""
    assert rows is not None, "the loop fills in what an objective needs"
    return rows


def check_not_negative(objective: object, *names: str) -> None:
    """Raises FieldError if a field is negative, infinite or NaN."""
    for name in names:
        value = getattr(objective, name)
        if not 0 <= value < float("inf"):
            raise FieldError(f"objective: {name} is {value}; it must not be negative")


def check_positive(objective: object, *names: str) -> None:
    """Raises FieldError if a field is not above 0 and finite."""
    for name in names:
        value = getattr(objective, name)
        if not 0 < value < float("inf"):
            raise FieldError(f"objective: {name} is {value}; it must be above 0 and finite")
