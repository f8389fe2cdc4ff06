"""Counts the passes of a classifier per example and splits large calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self, TypeVar

import torch
from torch import Tensor

from rlbench.core import Ball
from rlbench.core.batch import BatchSize
from rlbench.core.errors import RLBenchError
from rlbench.engine.soundness.watch import Part, Watch

R = TypeVar("R")


class Meter:
    """A core.Classifier around any callable (B, *shape) -> (B, C): splits large calls and counts passes per example.

    A backward pass counts for every row of its call, since every row is computed.

    Args:
        classify: the callable.
        n: number of examples.
        batch_size: the most examples of a forward pass, at least 1, or what holds it.
        on_pass: called with the number of examples of every forward pass.
        watch: counts suspicious logits and gradients; None for no watch.

    Attributes:
        forwards: (n,) int64, the forward passes of each example.
        backwards: (n,) int64, the backward passes of each example.
    """

    def __init__(
        self,
        classify: Callable[[Tensor], Tensor],
        n: int,
        *,
        batch_size: int | BatchSize = 64,
        on_pass: Callable[[int], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.classify, self.on_pass, self.watch = classify, on_pass, watch
        self.batch = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
        self.forwards = torch.zeros(n, dtype=torch.int64)
        self.backwards = torch.zeros(n, dtype=torch.int64)

    def fix(self, rows: Tensor, x: Tensor, ball: Ball) -> None:
        """Learns that examples `rows` (R,) are x (R, *shape), which stay in the ball; a plain meter needs no such."""

    def parts(self, rows: Tensor) -> Sequence[Part]:
        """The sensors' parts of the inputs of these examples; none of a plain meter."""
        return ()

    @property
    def batch_size(self) -> int:
        """The most examples of a forward pass."""
        return self.batch.size

    def twin(self, classify: Callable[[Tensor], Tensor]) -> Self:
        """A meter of an inexact version of the classifier, whose passes count together with this one's.

        What it answers is no evidence that an example was broken.
        """
        other = copy(self)
        other.classify, other.watch = classify, self.watch.without_broken() if self.watch else None
        return other

    def attempt(self, work: Callable[[], R]) -> R:
        """Does some work; where memory runs out, again with batches half as large.

        Args:
            work: passes of this meter; it may be done again from its start. A failed try is not counted.

        Returns:
            What the work returned.

        Raises:
            AttackError: not even one example fits in memory.
        """
        counts = [self.forwards, self.backwards, *([self.watch.counts] if self.watch else [])]
        while True:
            before = [count.clone() for count in counts]
            try:
                return work()
            except torch.OutOfMemoryError:  # the traceback holds tensors, so memory is freed after this block
                for count, old in zip(counts, before, strict=True):
                    count.copy_(old)
            self.batch.halve()

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (B, *shape) -> (B, C) float32 logits; rows (B,): their examples, by default 0..B-1."""
        rows = torch.arange(len(x)) if rows is None else rows.cpu()
        if len(x) <= self.batch_size:
            return self._call(x, rows)
        parts = [slice(i, i + self.batch_size) for i in range(0, len(x), self.batch_size)]
        return torch.cat([self._call(x[part], rows[part]) for part in parts])

    def _call(self, x: Tensor, rows: Tensor) -> Tensor:
        x = x.view_as(x) if self.watch else x  # a new tensor for the hook, since an attack may pass the same leaf twice
        logits = self.classify(x).float()
        if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            raise RLBenchError(
                f"the classifier made {tuple(logits.shape)} from a batch of {len(x)}; logits are (B, C) with C >= 2"
            )
        one = torch.ones_like(rows)
        self.forwards.index_add_(0, rows, one)
        if logits.requires_grad:

            def count(gradient: Tensor) -> None:
                self.backwards.index_add_(0, rows, one)

            logits.register_hook(count)  # type: ignore[no-untyped-call]  # torch's own gap
        if self.watch is not None:
            self.watch.see(x, logits, rows, self.parts(rows))
        if self.on_pass is not None:
            self.on_pass(len(x))
        return logits
