"""One loop for every gradient attack: a pool of jobs (example, cell, target, restart) that keeps the batch full.

Each round is one forward pass of the batch and one gradient; then every job moves by its search's rule. The slots of
jobs that end are taken by other jobs, those of other cells too. Encoders and attacks need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search, size, take
from rlbench.core import Ball, Classifier, Streams

ALONGSIDE = 32  # below this batch size, further jobs of a running example are cheaper than an emptier batch


class Searching(Protocol):
    """An attack that the pool can run beside others."""

    def search(self, x: Tensor, y: Tensor, ball: Ball, streams: Streams, logits: Callable[[], Tensor]) -> Search:
        """Its jobs; `logits()` gives (N, C), the clean ones."""


def _stay(search: Search, ended: Tensor) -> None:
    """Ended examples have nowhere to go."""


@dataclass(kw_only=True)
class Pool:
    """Searches in one batch.

    Attributes:
        searches: in the order of their turns; the jobs of a later one fill what the earlier ones leave.
        onward: called with examples (K,) that ended in a search; it may open them in others.
    """

    classifier: Classifier
    searches: Sequence[Search]
    onward: Callable[[Search, Tensor], None] = _stay

    def run(self) -> None:
        """Until no search has a job left. Raises: AttackError."""
        self._tell()
        while self._fill():
            self._step()
            self._tell()

    def _tell(self) -> None:
        told = True
        while told:
            told = False
            for search in self.searches:
                if len(rows := search.ended()):
                    self.onward(search, rows)
                    told = True

    def _fill(self) -> bool:
        """Admits jobs. Parked points are judged once they are many, or when there is nothing else to do."""
        self._admit()
        while parked := sum(size(search.parked) for search in self.searches):
            active, full = sum(size(search.slots) for search in self.searches), self.classifier.batch_size
            if active and parked < (full if active >= full else min(ALONGSIDE, full)):
                break
            self._judge_parked()
            self._tell()
            self._admit()
        return any(search.slots for search in self.searches)

    def _admit(self) -> None:
        for alongside, most in (
            (False, self.classifier.batch_size),
            (True, min(ALONGSIDE, self.classifier.batch_size)),
        ):
            room = most - sum(size(search.slots) for search in self.searches)
            for search in self.searches:
                if room <= 0:
                    return
                before = size(search.slots)
                search.admit(room, alongside=alongside)
                room -= size(search.slots) - before

    def _step(self) -> None:
        active = [search for search in self.searches if search.slots]
        sizes = [size(search.slots) for search in active]
        x = torch.cat([search.slots["x_adv"] for search in active]).requires_grad_()
        with torch.enable_grad():
            logits = self.classifier(x, rows=torch.cat([search.rows[search.slots["example"]] for search in active]))
            losses = [s.adversary_loss(part) for s, part in zip(active, torch.split(logits, sizes), strict=True)]
        for search, part in zip(active, torch.split(logits.detach(), sizes), strict=True):
            search.record(search.slots, part)
        if any(search.alive[search.slots["example"]].any() for search in active):
            gradient = torch.autograd.grad(torch.cat(losses).sum(), x)[0]
            for search, loss, part in zip(active, losses, torch.split(gradient, sizes), strict=True):
                search.advance(loss.detach(), part)
        for search in active:
            search.leave()

    def _judge_parked(self) -> None:
        for search in self.searches:
            if search.parked:
                search.parked = take(search.parked, search.alive[search.parked["example"]])
        held = [search for search in self.searches if search.parked]
        if not held:
            return
        x = torch.cat([search.parked["x_adv"] for search in held])
        rows = torch.cat([search.rows[search.parked["example"]] for search in held])
        with torch.no_grad():
            logits = self.classifier(x, rows=rows)
        for search, part in zip(held, torch.split(logits, [size(search.parked) for search in held]), strict=True):
            search.settle(part)


def alone(classifier: Classifier, search: Search) -> Tensor:
    """(N, *shape) per example the point with the smallest margin of all jobs of a search by itself."""
    Pool(classifier=classifier, searches=[search]).run()
    return search.best


def clean_logits(classifier: Classifier, x: Tensor) -> Tensor:
    """(N, C) without a graph; (0, 2) where there is no example, which an encoder need not bear."""
    if not len(x):
        return x.new_zeros(0, 2)
    with torch.no_grad():
        return classifier(x)
