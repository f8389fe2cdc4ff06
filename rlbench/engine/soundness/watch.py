"""Counts suspicious logits and gradients in the passes of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from rlbench.core.stats.metrics import margin

# What a watched run counts: rows of forward passes or of gradients, or examples where the comment says so.
SUMS = (
    "passes",  # rows of forward passes
    "correct",  # those classified correctly
    "saturated",  # correct rows with a float32 cross-entropy of exactly 0
    "gradients",  # gradients at correct rows
    "zero_gradients",  # those whose coordinates are all 0
    "blind_gradients",  # those whose coordinates of an attacked sensor are all 0
    "not_finite",  # rows with a logit that is not finite
    "probabilities",  # rows of values in [0, 1] that sum to 1
    "constant",  # rows whose logits are all equal
    "examples",  # judged examples
    "lost",  # examples that were clearly broken during the attack and judged correct
    "undefended",  # examples of an encoder with a trait that the attack does not adapt to
    "repeated",  # examples of the first block, which `consistency` classifies again
    "random",  # those with other logits in the same batch
    "company",  # those with other logits in another batch
    "graph",  # those with other logits when there is a gradient
)
AGAIN = SUMS[SUMS.index("repeated") :]  # counted by `consistency`
PASS = SUMS[: SUMS.index("not_finite")]
ROWS = ("not_finite", "probabilities", "constant")
CLEAR = 1e-4  # a margin below -CLEAR * max|logit| stays negative whatever the batch does to the last bits
OUTSIDE = {"lost": 0, "constant": 0}  # counts that points far outside the ball would falsify
GLANCE = 512  # coordinates of a gradient that are checked first: nearly always one of them is not 0

Sums = Mapping[str, int]  # counts by the names of SUMS


def total(sums: Iterable[Sums]) -> dict[str, int]:
    """Adds up the counts of several blocks or cells; a missing name counts as 0."""
    added = dict.fromkeys(SUMS, 0)
    for one in sums:
        for name in SUMS:
            added[name] += int(one.get(name, 0))
    return added


class Part(NamedTuple):
    """A sensor's part of joint inputs (B, D): its coordinates start..stop-1; (B,) bool, where it may be attacked."""

    start: int
    stop: int
    attacked: Tensor


class Watch:
    """Counts suspicious logits and gradients of N examples, without changing them.

    Attributes:
        y: (N,) int64 labels.
        counts: (N, 9) int32, the counts of each example for SUMS up to "constant".
        broken: (N,) bool, the examples that were clearly misclassified at some point.
    """

    def __init__(self, y: Tensor) -> None:
        self.y = y
        self.counts = torch.zeros(len(y), len(PASS) + len(ROWS), dtype=torch.int32, device=y.device)
        self.broken = torch.zeros(len(y), dtype=torch.bool, device=y.device)

    def without_broken(self) -> Watch:
        """A watch that adds to the same counts, but not to `broken`, for a classifier that is not exact."""
        other = copy(self)
        other.broken = torch.zeros_like(self.broken)
        return other

    def see(self, x: Tensor, logits: Tensor, rows: Tensor, parts: Sequence[Part] = ()) -> None:
        """Counts a forward pass, and its gradient if one is computed later.

        Args:
            x: (B, *shape) the inputs of the pass; their gradient is watched if they require one.
            logits: (B, C) the outputs of the pass.
            rows: (B,) int64, the index of each input's example.
            parts: of x, where it is the inputs of several sensors.
        """
        rows = rows.to(self.y.device)
        y, z = self.y[rows], logits.detach()
        m, one = margin(z, y), torch.ones_like(rows, dtype=torch.bool)
        correct, finite = m > 0, z.isfinite().all(1)
        low, high = z.aminmax(dim=1)
        zero = torch.nn.functional.cross_entropy(z, y, reduction="none") == 0
        alike = (low >= 0) & (high <= 1) & ((z.sum(1) - 1).abs() < 1e-3)
        none = torch.zeros_like(one)
        found = (one, correct, correct & zero, none, none, none, ~finite, alike & (low < high), finite & (low == high))
        self.counts.index_add_(0, rows, torch.stack(found, dim=1).int())
        self.broken[rows[m < -CLEAR * torch.maximum(high, -low)]] = True
        if x.requires_grad:
            see_gradient = partial(self._see_gradient, rows=rows, correct=correct, parts=parts)
            x.register_hook(see_gradient)  # type: ignore[no-untyped-call]

    def _see_gradient(self, gradient: Tensor, *, rows: Tensor, correct: Tensor, parts: Sequence[Part]) -> None:
        flat = gradient.detach().flatten(1)
        zero, blind = _find_zero(flat), torch.zeros_like(correct)
        for part in parts:
            blind |= _find_zero(flat[:, part.start : part.stop]) & part.attacked.to(blind.device)
        at = PASS.index("gradients")
        found = torch.stack((correct, correct & zero, correct & blind), dim=1).int()
        self.counts[:, at : at + 3].index_add_(0, rows, found)

    def sums_of(self, attack: object, correct: Tensor, rows: Tensor | None = None) -> dict[str, int]:
        """Adds up the counts of an attack's passes; as `sums`, but without OUTSIDE if the attack `leaves_ball`."""
        return self.sums(correct, rows) | (OUTSIDE if getattr(attack, "leaves_ball", False) else {})

    def sums(self, correct: Tensor, rows: Tensor | None = None) -> dict[str, int]:
        """Adds up the counts of some examples.

        Args:
            correct: (R,) bool, the judge's verdicts on them.
            rows: (R,) int64, the examples; None for all, in order.

        Returns:
            A count for every name of SUMS.
        """
        rows = torch.arange(len(self.y)) if rows is None else rows
        at = rows.to(self.y.device)
        names = zip((*PASS, *ROWS), self.counts[at].sum(0).tolist(), strict=True)
        lost = int((self.broken[at].cpu() & correct.cpu()).sum())
        return dict(names) | {"examples": len(rows), "lost": lost, "undefended": 0} | dict.fromkeys(AGAIN, 0)


def _find_zero(flat: Tensor) -> Tensor:
    """(B, D) -> (B,) bool, the rows whose coordinates are all 0."""
    zero = flat[:, :GLANCE].abs().amax(1) == 0
    return flat.abs().amax(1) == 0 if zero.any() else zero
