"""Does a classifier repeat itself, and does an answer depend on its batch? Asked on the first block of every run.

Four questions, on the task's own examples:

- the same batch twice: another answer is random (S10);
- the same batch where half of the examples are replaced: the arithmetic of a row stays the same, bit by bit, so that
  another answer for the others depends on their company (H4);
- the whole block in reversed order and batches of another size: there, kernels differ, too, and an answer may move as
  far as half precision lets it (H4);
- an example for which a gradient is asked for: the attack must see the function that the judge sees (S10).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlbench.core import Box, Classifier

# Shares of the largest logit. One batch shape: float32 noise of a deep encoder is about 1e-6. Another batch size or
# kernel: about 1e-5 in float32, 4e-3 in bfloat16. Batch statistics and noise that matter move logits by 5e-2 and more.
REPEATS = 1e-4
COMPANY = 1e-2
OTHER = 7  # the other batch size
ALONE = 2  # examples that are asked again in the same company, and in another


def moved(one: Tensor, other: Tensor) -> Tensor:
    """(B, C), (B, C) -> (B,) how far each row differs, over the largest value; what is not finite counts as 0."""
    largest = one.nan_to_num(0.0, 0.0, 0.0).abs().amax().clamp_min(1e-12)
    return (other - one).nan_to_num(0.0, 0.0, 0.0).abs().amax(1) / largest


def evidence(
    ask: Callable[[int], Classifier], x: Tensor, logits: Tensor, box: Box, batch_size: int, *, graph: bool, apart: bool
) -> dict[str, int]:
    """Counts of `soundness.SUMS`, of examples: repeated, random, company, graph.

    Args:
        ask: the classifier for batches of a size; what it is asked here is not counted as a pass.
        x, logits: the block (B, *shape) and its answers (B, C) in batches of batch_size.
        graph: ask with a gradient, too. apart: ask in another batch size.
    """
    if not len(x):
        return {}
    with torch.no_grad():
        rows = torch.arange(min(len(x), ALONE))
        pair = torch.cat([rows, rows])
        again = ask(len(pair))
        first, second = again(x[pair], pair), again(x[pair], pair)
        random = int((moved(first, second) > REPEATS).sum())
        if random:
            return {"repeated": len(pair), "random": random}
        others = torch.cat([x[rows], box.low + box.high - x[rows]])
        company = int((moved(first, again(others, pair))[: len(rows)] > REPEATS).sum())
        if apart:
            size, order = min(OTHER, batch_size - 1) or 2, torch.arange(len(x)).flip(0)
            turned = ask(size)(x.flip(0), order).flip(0)
            company = max(company, int((moved(logits, turned) > COMPANY).sum()))
    switched = 0
    if graph and not company:
        with torch.enable_grad():
            differentiable = ask(1)(x[:1].detach().clone().requires_grad_(), rows[:1])
        switched = int((moved(first[:1], differentiable.detach()) > COMPANY).sum())
    return {"repeated": len(x), "random": 0, "company": company, "graph": switched}
