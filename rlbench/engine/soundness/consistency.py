"""Tests whether a classifier repeats its outputs, and whether an output depends on the rest of its batch.

Every run does this once per task, on the first block, in four comparisons:

- the same batch twice: if the logits differ, the classifier is random (S10);
- a batch in which the other half of the examples is replaced: each remaining row goes through the same arithmetic, bit
  by bit, so if its logits differ, they depend on the rest of the batch (H4);
- the whole block in reverse order and in batches of another size: kernels may differ as well, so the tolerance is that
  of half precision (H4);
- an example with and without a gradient: the attack must see the same function as the judge (S10).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlbench.core import Box, Classifier

# Tolerances, as shares of the largest logit. With one batch shape, the float32 noise of a deep encoder is about 1e-6.
# With another batch size or kernel, it is about 1e-5 in float32 and 4e-3 in bfloat16. Batch statistics and noise that
# matter change logits by 5e-2 or more.
REPEATS = 1e-4
COMPANY = 1e-2
OTHER = 7  # the other batch size
ALONE = 2  # number of examples that are classified again, with the same and with other examples in the batch


def relative_change(one: Tensor, other: Tensor) -> Tensor:
    """The largest change of each row, as a share of the largest value.

    Args:
        one: (B, C) logits.
        other: (B, C) logits of the same examples.

    Returns:
        (B,) changes, at least 0. Values that are not finite count as 0.
    """
    largest = one.nan_to_num(0.0, 0.0, 0.0).abs().amax().clamp_min(1e-12)
    return (other - one).nan_to_num(0.0, 0.0, 0.0).abs().amax(1) / largest


def count_inconsistent(
    ask: Callable[[int], Classifier], x: Tensor, logits: Tensor, box: Box, batch_size: int, *, graph: bool, apart: bool
) -> dict[str, int]:
    """Counts the examples whose logits change when they are classified again.

    Args:
        ask: makes a classifier for batches of a given size; its passes are not counted.
        x: (B, *shape) the examples of a block, in the box.
        logits: (B, C) their logits in batches of `batch_size`.
        box: the encoder's box.
        batch_size: the most examples of a forward pass, at least 1.
        graph: whether to compare with a forward pass that has a gradient.
        apart: whether to compare with batches of another size.

    Returns:
        The counts `repeated`, `random`, `company` and `graph` of `watch.SUMS`; nothing for an empty block.
    """
    if not len(x):
        return {}
    with torch.no_grad():
        rows = torch.arange(min(len(x), ALONE))
        pair = torch.cat([rows, rows])
        again = ask(len(pair))
        first, second = again(x[pair], pair), again(x[pair], pair)
        random = int((relative_change(first, second) > REPEATS).sum())
        if random:
            return {"repeated": len(pair), "random": random}
        others = torch.cat([x[rows], box.low + box.high - x[rows]])
        company = int((relative_change(first, again(others, pair))[: len(rows)] > REPEATS).sum())
        if apart:
            size, order = min(OTHER, batch_size - 1) or 2, torch.arange(len(x)).flip(0)
            turned = ask(size)(x.flip(0), order).flip(0)
            company = max(company, int((relative_change(logits, turned) > COMPANY).sum()))
    switched = 0
    if graph and not company:
        with torch.enable_grad():
            differentiable = ask(1)(x[:1].detach().clone().requires_grad_(), rows[:1])
        switched = int((relative_change(first[:1], differentiable.detach()) > COMPANY).sum())
    return {"repeated": len(x), "random": 0, "company": company, "graph": switched}
