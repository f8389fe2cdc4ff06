"""What fusion rules share: certificates, and gradients of rules that select.

A rule that selects or votes ignores a sensor over whole regions, where its gradient tells an attack nothing. Such a
rule keeps its exact values and has the gradient of a soft version of it, plus a small share of that of the mean of the
logits, in which each sensor always counts, as in BPDA (Athalye et al., 2018, https://arxiv.org/abs/1802.00420). So an
attack sees what the rule answers and always has a direction.
"""

from __future__ import annotations

from torch import Tensor

SHARE = 0.01  # of the mean's gradient: small, so that the rule's own decides where it is not zero
ROUNDING = 1e-5  # certificates leave this much of the terms of a comparison to float32


def pass_gradient(value: Tensor, soft: Tensor, logits: Tensor) -> Tensor:
    """The value of a rule, exactly, with the gradient of a soft version, plus a share of that of the mean.

    Args:
        value: (N, C).
        soft: (N, C), of which only the gradient is used; `value` itself if that has one.
        logits: (M, N, C).
    """
    through = soft + SHARE * logits.mean(0)
    return value.detach() + (through - through.detach())


def leave_one_out(values: Tensor) -> Tensor:
    """(M, ...) -> (M, ...): for each sensor, the sum over the others."""
    return values.sum(0) - values


def beat_rivals(gap: Tensor, least: Tensor, y: Tensor) -> Tensor:
    """Whether gaps exceed their bounds for every sensor and rival class.

    Args:
        gap: (M, N, C), how far the other sensors put y above each class.
        least: broadcastable to (M, N, C).
        y: (N,) int64 labels.

    Returns:
        (N,) bool.
    """
    rounding = ROUNDING * (gap.abs() + least.abs() + 1)
    return (gap > least + rounding).scatter(2, y.expand(len(gap), -1)[..., None], True).all(2).all(0)
