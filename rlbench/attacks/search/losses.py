"""The losses that attacks ascend: (B, C) logits, (B,) labels, (B,) targets -> (B,), larger is nearer to an error.

Arithmetic is in the dtype of the logits, float32 or float64, never half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rlbench.core.stats import metrics

LossName = Literal["ce", "margin", "dlr", "dlr-targeted", "margin-targeted"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _of(logits: Tensor, label: Tensor) -> Tensor:
    return logits.gather(1, label[:, None])[:, 0]


def ce(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """u = log sum_{j != y} exp z_j - z_y, of which cross-entropy is log(1 + exp u).

    Cross-entropy grows with u and its gradient is u's times sigmoid(u) > 0, so that attacks that use the sign or
    the normalised gradient and the order of losses take the same path on both. But float32 cross-entropy and
    its gradient vanish at u < -17 (logits 100 cos at a gap of 0.17), and u's do not.
    """
    others = logits.scatter(1, y[:, None], float("-inf"))
    return torch.logsumexp(others, 1) - _of(logits, y)


def margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y (Carlini & Wagner, 2017, https://arxiv.org/abs/1608.04644)."""
    return -metrics.margin(logits, y)


def margin_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y."""
    return _of(logits, target) - _of(logits, y)


def dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Difference of logits ratio, for at least 3 classes: (max_{j != y} z_j - z_y) / (z_(1) - z_(3)).

    Croce & Hein, 2020, eq. 6, https://arxiv.org/abs/2003.01690.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, y, target) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio, for at least 4 classes: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2).

    Croce & Hein, 2020, eq. 7, https://arxiv.org/abs/2003.01690.
    """
    top = logits.topk(4, dim=1).values
    return margin_targeted(logits, y, target) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


LOSSES: dict[LossName, Loss] = {
    "ce": ce,
    "margin": margin,
    "dlr": dlr,
    "dlr-targeted": dlr_targeted,
    "margin-targeted": margin_targeted,
}
MIN_CLASSES: dict[LossName, int] = {"ce": 2, "margin": 2, "dlr": 3, "dlr-targeted": 4, "margin-targeted": 2}
_SUBSTITUTE: dict[LossName, LossName] = {"dlr": "margin", "dlr-targeted": "margin-targeted"}


def substitute(name: LossName, n_classes: int) -> LossName:
    """The loss itself, or the margin in its place where it is not defined: DLR below 3 classes, targeted below 4."""
    return name if n_classes >= MIN_CLASSES[name] else _SUBSTITUTE.get(name, name)
