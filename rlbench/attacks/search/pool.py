"""One loop for every gradient attack: a pool of jobs (example, cell, target, restart) that keeps the batch full.

Each round is one forward pass of the batch and one gradient; then every job moves by its search's rule. When a job
ends, a job of any cell takes its slot. What an attack computes does not depend on the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.core import Classifier

ALONGSIDE = 32  # below this batch size, further jobs of a running example are cheaper than an emptier batch


def _ignore(search: Search, ended: Tensor) -> None:
    """Sends ended examples nowhere."""


@dataclass(kw_only=True)
class SearchPool:
    """Searches that share one batch.

    Attributes:
        classifier: the classifier of all examples; its `batch_size` is the number of slots.
        searches: the searches by priority; jobs of a later one fill the slots that earlier ones leave free.
        onward: called with a search and the examples (K,) that ended in it; it may open them in other searches.
    """

    classifier: Classifier
    searches: Sequence[Search]
    onward: Callable[[Search, Tensor], None] = _ignore

    def run(self) -> None:
        """Runs until no search has a job left. Raises: AttackError."""
        self._send_onward()
        while self._fill():
            self._step()
            self._send_onward()

    def _send_onward(self) -> None:
        sent = True
        while sent:
            sent = False
            for search in self.searches:
                if len(rows := search.take_ended()):
                    self.onward(search, rows)
                    sent = True

    def _fill(self) -> bool:
        """Admits jobs; returns whether any are running.

        Parked points are classified once they fill a batch, or when too few jobs are left to run.
        """
        self._admit()
        while parked := sum(search.n_parked for search in self.searches):
            active, full = self._active(), self.classifier.batch_size
            if active and parked < (full if active >= full else min(ALONGSIDE, full)):
                break
            self._judge_parked()
            self._send_onward()
            self._admit()
        return self._active() > 0

    def _active(self) -> int:
        return sum(search.n_running for search in self.searches)

    def _admit(self) -> None:
        full = self.classifier.batch_size
        for alongside, most in ((False, full), (True, min(ALONGSIDE, full))):
            room = most - self._active()
            for search in self.searches:
                if room <= 0:
                    return
                room -= search.admit(room, alongside=alongside)

    def _step(self) -> None:
        active = [search for search in self.searches if search.n_running]
        sizes = [search.n_running for search in active]
        queries = [search.query() for search in active]
        x = torch.cat([query.x for query in queries]).requires_grad_()
        with torch.enable_grad():
            logits = self.classifier(x, rows=torch.cat([query.rows for query in queries]))
            losses = [s.adversary_loss(part) for s, part in zip(active, torch.split(logits, sizes), strict=True)]
        parts = torch.split(logits.detach(), sizes)
        if any([search.observe(part) for search, part in zip(active, parts, strict=True)]):
            gradient = torch.autograd.grad(torch.cat(losses).sum(), x)[0]
            for search, loss, part in zip(active, losses, torch.split(gradient, sizes), strict=True):
                search.advance(loss.detach(), part)
        for search in active:
            search.leave()

    def _judge_parked(self) -> None:
        parked = [(search, query) for search in self.searches if (query := search.query_parked()) is not None]
        if not parked:
            return
        with torch.no_grad():
            x, rows = torch.cat([query.x for _, query in parked]), torch.cat([query.rows for _, query in parked])
            logits = self.classifier(x, rows=rows)
        for (search, _), part in zip(parked, torch.split(logits, [len(query.x) for _, query in parked]), strict=True):
            search.settle(part)


def run_alone(classifier: Classifier, search: Search) -> Tensor:
    """Runs a single search; returns (N, *shape), per example the point with the smallest margin."""
    SearchPool(classifier=classifier, searches=[search]).run()
    return search.best


def clean_logits(classifier: Classifier, x: Tensor) -> Tensor:
    """(N, C) logits without a graph; (0, 2) for an empty batch, which an encoder need not support."""
    if not len(x):
        return x.new_zeros(0, 2)
    with torch.no_grad():
        return classifier(x)
