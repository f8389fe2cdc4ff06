"""MALT: targeted Auto-PGD towards the classes whose boundaries are nearest by a linear estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD
from rlbench.attacks.search.losses import MIN_CLASSES, substitute
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register


@register("attack", "malt")
@dataclass(frozen=True, kw_only=True)
class MALT:
    """Targeted Auto-PGD whose targets are the nearest classes by (z_y - z_t) / |grad (z_y - z_t)|, the dual norm.

    Melamed et al., 2024, https://arxiv.org/abs/2407.02240; the order as in the authors' code, the number of candidates
    from memory. Compared with the closed form of affine classifiers, where the order is exact. With as many targets as
    wrong classes the order changes nothing, and the attack is apgd-t without the extra passes.

    Attributes:
        steps: iterations of a run.
        targets: number of targets.
        candidates: the wrong classes with the largest clean logits, of which the targets are taken.
    """

    steps: int = 100
    targets: int = 9
    candidates: int = 100
    min_classes: ClassVar[int] = MIN_CLASSES["dlr-targeted"]

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("targets", self.targets), ("candidates", self.candidates)):
            if value < 1:
                raise FieldError(f"malt: {name} is {value}; it must be at least 1")
        if self.candidates < self.targets:
            raise FieldError(f"malt: candidates is {self.candidates}; it must be at least targets, {self.targets}")

    def loss_used(self, n_classes: int) -> str:
        """The name of the loss that is ascended with this number of classes."""
        return substitute("dlr-targeted", n_classes)

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example: those of the order, then of the runs."""
        others = n_classes - 1
        ranked = min(self.candidates, others) if others > self.targets else 0
        runs = min(self.targets, others)
        return 1 + (ranked > 0) + runs * (self.steps + 1), ranked + runs * self.steps

    def order(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """(B, targets) int64 the nearest classes by the linear estimate, the nearest first."""
        others = clean_logits(classifier, x).scatter(1, y[:, None], float("-inf"))
        near = others.topk(min(self.candidates, others.shape[1] - 1), dim=1).indices
        if near.shape[1] <= self.targets or not len(x):
            return near
        parts = torch.split(torch.arange(len(x), device=x.device), classifier.batch_size)
        reach = torch.cat([_estimate(classifier, x[part], y[part], near[part], part, ball) for part in parts])
        return near.gather(1, reach.argsort(dim=1, stable=True)[:, : self.targets])

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        if ball.radius == 0 or not len(x):
            return x
        targets = self.order(classifier, x, y, ball)
        attack = APGD(name="apgd-t", steps=self.steps, targets=targets.shape[1])
        search = attack.search(x, y, ball, streams, lambda: clean_logits(classifier, x), targets=targets)
        return run_alone(classifier, search)


def _estimate(classifier: Classifier, x: Tensor, y: Tensor, near: Tensor, rows: Tensor, ball: Ball) -> Tensor:
    """(B, K) the distance to the boundary of each class in `near` (B, K), if the logits were linear."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        logits = classifier(x, rows=rows)
        gaps = logits.gather(1, y[:, None]) - logits.gather(1, near)
        found = []
        for gap in gaps.T:
            gradient = torch.autograd.grad(gap.sum(), x, retain_graph=True)[0]
            dual = gradient.flatten(1).norm(p=1 if ball.norm == "linf" else 2, dim=1)
            found.append(gap.detach() / dual.clamp_min(1e-20))
    return torch.stack(found, dim=1)
