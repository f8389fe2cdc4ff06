"""Counts what is strange in the passes and gradients of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from rlbench.core.stats.metrics import margin

# What a watched run sums, over rows of forward passes and of gradients unless it says examples.
SUMS = (
    "passes",  # rows classified where the label is known
    "correct",  # of them
    "saturated",  # correct, with a float32 cross-entropy of exactly 0
    "gradients",  # taken at a correct row
    "zero_gradients",  # of them, without any coordinate that is not 0
    "not_finite",  # rows with a logit that is not finite
    "probabilities",  # rows of values in [0, 1] that sum to 1
    "constant",  # rows whose logits are all equal
    "examples",  # judged
    "lost",  # examples that were clearly broken on the path and judged correct
    "undefended",  # examples of an encoder that declares traits, or of an attack that is no answer to them
    "repeated",  # examples of a first block that were classified again, see `consistency`
    "random",  # of them, with another answer for the same batch
    "company",  # of them, with another answer in another batch
    "graph",  # of them, with another answer when a gradient is asked for
)


Sums = Mapping[str, int]


AGAIN = SUMS[SUMS.index("repeated") :]


def total(sums: Iterable[Sums]) -> dict[str, int]:
    """The sums of several blocks or cells, added up; a name that one lacks counts as 0 there."""
    added = dict.fromkeys(SUMS, 0)
    for one in sums:
        for name in SUMS:
            added[name] += int(one.get(name, 0))
    return added


CLEAR = 1e-4  # a margin below -CLEAR * max|logit| is an error whatever a batch does to the last bits


GLANCE = 512  # coordinates of a gradient that are looked at first: nearly always one is not 0


PASS = SUMS[: SUMS.index("not_finite")]


ROWS = ("not_finite", "probabilities", "constant")


OUTSIDE = {"lost": 0, "constant": 0}  # what points far outside the ball say nothing of


class Watch:
    """Keeps count of what is strange in the passes and gradients of a run, and changes nothing.

    Attributes:
        counts: (N, 8) of each example, SUMS up to "constant"; broken: (N,) bool, clearly misclassified at some point.
    """

    def __init__(self, y: Tensor) -> None:
        self.y = y
        self.counts = torch.zeros(len(y), len(PASS) + len(ROWS), dtype=torch.int32, device=y.device)
        self.broken = torch.zeros(len(y), dtype=torch.bool, device=y.device)

    def see(self, x: Tensor, logits: Tensor, rows: Tensor) -> None:
        """Takes a forward pass of x (B, *shape), the examples `rows`, and its gradient if there will be one."""
        rows = rows.to(self.y.device)
        y, z = self.y[rows], logits.detach()
        m, one = margin(z, y), torch.ones_like(rows, dtype=torch.bool)
        correct, finite = m > 0, z.isfinite().all(1)
        low, high = z.aminmax(dim=1)
        zero = torch.nn.functional.cross_entropy(z, y, reduction="none") == 0
        alike = (low >= 0) & (high <= 1) & ((z.sum(1) - 1).abs() < 1e-3)
        none = torch.zeros_like(one)
        told = (one, correct, correct & zero, none, none, ~finite, alike & (low < high), finite & (low == high))
        self.counts.index_add_(0, rows, torch.stack(told, dim=1).int())
        self.broken[rows[m < -CLEAR * torch.maximum(high, -low)]] = True
        if x.requires_grad:
            x.register_hook(partial(self._gradient, rows=rows, correct=correct))  # type: ignore[no-untyped-call]

    def _gradient(self, gradient: Tensor, *, rows: Tensor, correct: Tensor) -> None:
        flat = gradient.detach().flatten(1)
        zero = flat[:, :GLANCE].abs().amax(1) == 0
        if zero.any():
            zero = flat.abs().amax(1) == 0
        at = PASS.index("gradients")
        self.counts[:, at : at + 2].index_add_(0, rows, torch.stack((correct, correct & zero), dim=1).int())

    def sums_of(self, attack: object, correct: Tensor, rows: Tensor | None = None) -> dict[str, int]:
        """SUMS over the passes of an attack; of one that `leaves_ball`, without OUTSIDE."""
        return self.sums(correct, rows) | (OUTSIDE if getattr(attack, "leaves_ball", False) else {})

    def sums(self, correct: Tensor, rows: Tensor | None = None) -> dict[str, int]:
        """SUMS over the examples `rows` (default: all), of which the judge calls `correct` (B,) so."""
        rows = torch.arange(len(self.y)) if rows is None else rows
        at = rows.to(self.y.device)
        names = zip((*PASS, *ROWS), self.counts[at].sum(0).tolist(), strict=True)
        lost = int((self.broken[at].cpu() & correct.cpu()).sum())
        return dict(names) | {"examples": len(rows), "lost": lost, "undefended": 0} | dict.fromkeys(AGAIN, 0)
