"""One loop for every gradient attack: a pool of jobs (example, cell, target, restart) that keeps the batch full.

Each round is one forward pass of the batch and one gradient; then every job moves by its search's rule. When a job
ends, a job of any cell takes its slot. What an attack computes does not depend on the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.core import Classifier

ALONGSIDE = 32  # below this batch size, further jobs of a running example are cheaper than an emptier batch


def _ignore(search: Search, ended: Tensor) -> None:
    """Sends ended examples nowhere."""


def _do(work: Callable[[], None]) -> None:
    """Does some work once."""
    work()


@dataclass(kw_only=True)
class SearchPool:
    """Searches that share one batch.

    Attributes:
        classifier: the classifier of all examples; its `batch_size` is the number of slots.
        searches: the searches by priority; jobs of a later one fill the slots that earlier ones leave free.
        onward: called with a search and the examples (K,) that ended in it; it may open them in other searches.
        attempt: does a round, and may do it again from its start after `classifier.batch_size` fell.
    """

    classifier: Classifier
    searches: Sequence[Search]
    onward: Callable[[Search, Tensor], None] = _ignore
    attempt: Callable[[Callable[[], None]], None] = _do

    def run(self) -> None:
        """Runs until no search has a job left. Raises: AttackError."""
        self._send_onward()
        while self._fill():
            self.attempt(self._step)
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
            self.attempt(self._judge_parked)
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
        x, rows = torch.cat([query.x for query in queries]), torch.cat([query.rows for query in queries])
        parts = torch.split(
            torch.arange(len(x)), self.classifier.batch_size
        )  # several only after a fall of the batch size
        passes = [_Pass(self.classifier, x, rows, part, active, differentiate=len(parts) > 1) for part in parts]
        logits = torch.cat([one.logits for one in passes])
        if any([s.observe(part) for s, part in zip(active, torch.split(logits, sizes), strict=True)]):
            gradient = torch.cat([one.differentiate() for one in passes])
            losses = torch.cat([one.losses for one in passes])
            for search, loss, part in zip(
                active, torch.split(losses, sizes), torch.split(gradient, sizes), strict=True
            ):
                search.advance(loss, part)
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


class _Pass:
    """A forward pass of some running jobs, and its gradient.

    Args:
        classifier: the classifier of all examples.
        x: (B, *shape) the points of all running jobs.
        rows: (B,) int64 their examples.
        part: (K,) int64 the jobs of this pass.
        searches: the searches of the jobs, in order.
        differentiate: whether to compute the gradient at once, which frees the memory of the pass.
    """

    def __init__(
        self,
        classifier: Classifier,
        x: Tensor,
        rows: Tensor,
        part: Tensor,
        searches: Sequence[Search],
        *,
        differentiate: bool,
    ) -> None:
        at, alone = part.to(x.device), len(part) == len(x)
        self.x, self.gradient = (x if alone else x[at]).requires_grad_(), cast("Tensor | None", None)
        with torch.enable_grad():
            logits = classifier(self.x, rows=rows[part])
            whole = logits if alone else logits.new_zeros(len(x), logits.shape[1]).index_copy(0, at, logits)
            each = torch.split(whole, [search.n_running for search in searches])
            losses = torch.cat([s.adversary_loss(one) for s, one in zip(searches, each, strict=True)])
        self.logits, self.losses = logits.detach(), losses if alone else losses[at]
        if differentiate:
            self.differentiate()

    def differentiate(self) -> Tensor:
        """(K, *shape) the gradient of the losses."""
        if self.gradient is None:
            self.gradient = torch.autograd.grad(self.losses.sum(), self.x)[0]
            self.losses = self.losses.detach()
        return self.gradient


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
