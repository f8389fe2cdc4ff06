"""One loop for decision-based attacks: every example searches by itself, and the examples' queries share batches.

A search is a generator that reads like its paper: it yields points and is sent which of them are misclassified. So the
numbers of an example depend on neither the batch size nor the other examples, and its queries are counted one by one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import BROKEN
from rlbench.core import Ball, Classifier, Norm
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import distance, project

Search = Generator[Tensor, Tensor, None]  # yields points (K, *shape), is sent (K,) bool: which are misclassified
CHUNK = 16  # the most points that a search yields at once, so that many searches fit in memory


@dataclass(eq=False)
class Nearest:
    """The nearest misclassified point of an example that any query has found.

    Attributes:
        x: (*shape) the example.
        norm: of the distance.
        point: (*shape) the nearest point; x until one is found.
        distance: from x, in box units; infinite until then.
    """

    x: Tensor
    norm: Norm
    point: Tensor
    distance: float = float("inf")

    def offer(self, points: Tensor, wrong: Tensor) -> None:
        """Takes the nearest of the points (K, *shape) that are misclassified, `wrong` (K,) bool, if it is nearer."""
        if not wrong.any():
            return
        found = points[wrong]
        far = distance(found, self.x.expand_as(found), self.norm)
        best = int(far.argmin())
        if float(far[best]) < self.distance:
            self.point, self.distance = found[best].clone(), float(far[best])


@dataclass(eq=False)
class _Job:
    """A running search: its example, the queries that it may still ask, and the points that it waits for."""

    search: Search
    nearest: Nearest
    row: int
    left: int
    points: Tensor


def run_searches(
    classifier: Classifier, y: Tensor, searches: Sequence[Search], nearest: Sequence[Nearest], ball: Ball, queries: int
) -> None:
    """Runs one search per example until its nearest point lies in the ball, or its queries are spent.

    Args:
        classifier: of the examples; only the largest logit of an answer matters.
        y: (B,) int64 labels.
        searches, nearest: of each example; every misclassified query is offered to its `nearest`.
        ball: its radius ends a search.
        queries: the most forward passes of an example.
    """
    waiting = list(reversed(range(len(searches))))
    running: list[_Job] = []
    while True:
        while waiting and len(running) < classifier.batch_size:
            row = waiting.pop()
            points = next(searches[row], None)
            if points is not None:
                running.append(_Job(searches[row], nearest[row], row, queries, points[:queries]))
        if not running:
            return
        batch = _fill(running, classifier.batch_size)
        wrong = _misclassified(classifier, batch, y)
        for job, answer in zip(batch, torch.split(wrong, [len(job.points) for job in batch]), strict=True):
            if not _advance(job, answer, ball.radius):
                job.search.close()
                running.remove(job)


def _fill(running: Sequence[_Job], size: int) -> list[_Job]:
    """The first jobs whose points fit in a batch, at least one."""
    batch, total = list[_Job](), 0
    for job in running:
        total += len(job.points)
        if batch and total > size:
            break
        batch.append(job)
    return batch


def _misclassified(classifier: Classifier, batch: Sequence[_Job], y: Tensor) -> Tensor:
    """(K,) bool for the points of all jobs; by more than what another batch may change (see `jobs.BROKEN`)."""
    rows = torch.tensor([job.row for job in batch for _ in job.points])
    with torch.no_grad():
        logits = classifier(torch.cat([job.points for job in batch]), rows=rows)
    m = margin(logits, y[rows.to(y.device)]).nan_to_num(nan=-float("inf"))
    return m < -BROKEN * logits.abs().amax(1).nan_to_num(0.0)


def _advance(job: _Job, wrong: Tensor, radius: float) -> bool:
    """Gives a search its answers; whether it goes on."""
    job.nearest.offer(job.points, wrong)
    job.left -= len(wrong)
    if job.nearest.distance <= radius or not job.left:
        return False
    try:
        job.points = job.search.send(wrong)[: job.left]
    except StopIteration:
        return False
    return True


def inside(nearest: Sequence[Nearest], ball: Ball) -> Tensor:
    """(B, *shape) the nearest points; one outside the ball is projected to it, where the judge decides."""
    x, points = (torch.stack([getattr(one, name) for one in nearest]) for name in ("x", "point"))
    near = [one.distance <= ball.radius for one in nearest]
    keep = torch.tensor(near, device=x.device).view(-1, *[1] * (x.dim() - 1))
    return torch.where(keep, points, project(points, x, ball))
