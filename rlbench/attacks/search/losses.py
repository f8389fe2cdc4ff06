"""The losses that attacks maximise; a larger loss is nearer to an error.

Each takes logits (B, C), int64 labels y (B,) and int64 target classes (B,), which untargeted losses ignore, and returns
the loss (B,) in the dtype of the logits: float32 or float64, never half. z denotes the logits and z_(k) the k-th
largest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rlbench.core.stats import metrics

LossName = Literal["ce", "margin", "pm", "dlr", "dlr-targeted", "margin-targeted"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _of(logits: Tensor, label: Tensor) -> Tensor:
    """The logit (B,) of each row's label (B,)."""
    return logits.gather(1, label[:, None])[:, 0]


def ce(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """u = log sum_{j != y} exp z_j - z_y, in place of the cross-entropy, which is log(1 + exp u).

    The cross-entropy grows with u, and its gradient is that of u times sigmoid(u) > 0. So attacks that use only the
    sign or the direction of the gradient and the order of losses take the same steps on both. But float32 cross-entropy
    and its gradient vanish at u < -17 (logits of 100 cos at a gap of 0.17), and u and its gradient do not.
    """
    others = logits.scatter(1, y[:, None], float("-inf"))
    return torch.logsumexp(others, 1) - _of(logits, y)


def margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y (Carlini & Wagner, 2017, https://arxiv.org/abs/1608.04644)."""
    return -metrics.margin(logits, y)


def pm(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Probability margin max_{j != y} p_j - p_y of p = softmax(z / (z_(1) - z_(3))), for at least 3 classes.

    Xie et al., 2024, https://arxiv.org/abs/2411.15210, read in summary only. Softmax saturates on logits of 100 cos, so
    they are divided by a scale that is constant for the gradient. The top gap z_(1) - z_(2) would make the loss nearly
    constant where two classes lead, since its scaled value is always 1; hence the third logit, as in DLR.
    """
    top = logits.topk(3, dim=1).values.detach()
    return -metrics.margin((logits / (top[:, :1] - top[:, 2:] + 1e-12)).softmax(1), y)


def margin_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y for the target class t."""
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
    "pm": pm,
    "dlr": dlr,
    "dlr-targeted": dlr_targeted,
    "margin-targeted": margin_targeted,
}
MIN_CLASSES: dict[LossName, int] = {
    "ce": 2,
    "margin": 2,
    "pm": 3,
    "dlr": 3,
    "dlr-targeted": 4,
    "margin-targeted": 2,
}
_SUBSTITUTE: dict[LossName, LossName] = {"pm": "margin", "dlr": "margin", "dlr-targeted": "margin-targeted"}


def substitute(name: LossName, n_classes: int) -> LossName:
    """The loss to use with this number of classes: the margin where DLR is not defined, otherwise the loss itself."""
    return name if n_classes >= MIN_CLASSES[name] else _SUBSTITUTE.get(name, name)
