"""Targeted FAB: the nearest point of a decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import ClassVar

import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor

from rlbench.attacks.search.incumbents import Incumbents
from rlbench.attacks.search.library_box import UnitBox
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.core.threat import project


@register("attack", "fab-t")
@dataclass(frozen=True, kw_only=True)
class FAB:
    """Targeted fast adaptive boundary attack: steps to the linearised boundary of two classes; keeps the nearest.

    Croce & Hein, 2020, https://arxiv.org/abs/1907.02044; pyautoattack's code, on a box that is mapped to [0, 1]. It has
    no randomness and no loss: it searches for z_t = z_y. A nearest point outside the ball is projected to it.

    Attributes:
        steps: iterations per target.
        targets: number of targets: the wrong classes with the largest clean logits.
    """

    steps: int = 100
    targets: int = 9
    min_classes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("targets", self.targets)):
            if value < 1:
                raise FieldError(f"fab-t: {name} is {value}; it must be at least 1")

    @property
    def version(self) -> str:
        """The version of the library, which enters the cell key."""
        return installed("pyautoattack")

    def loss_used(self, n_classes: int) -> str:
        """The function whose zero is searched for."""
        return "margin-targeted"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        targets = min(self.targets, n_classes - 1)
        return 1 + targets * (2 * self.steps + 3), targets * self.steps

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        if ball.radius == 0 or not len(x):
            return x
        best, unit = Incumbents(classifier, x, y), UnitBox(classifier, x, ball)
        with torch.no_grad():
            n_classes = classifier(x).shape[1]
        norm = {"linf": "Linf", "l2": "L2"}[ball.norm]
        method = _Targeted(unit, norm=norm, n_iter=self.steps, eps=unit.eps, targeted=True, device=x.device)
        for rank in range(2, min(self.targets, n_classes - 1) + 2):
            method.target_class = rank
            for rows in torch.split(best.rows, classifier.batch_size):
                unit.rows = rows
                found = method.attack_single_run(unit.inward(x[rows]), y[rows], is_targeted=True)
                best.offer(rows, project(unit.outward(found), x[rows], ball))
        return best.x_adv


class _Targeted(FABAttack_PT):  # type: ignore[misc]  # an untyped library
    """The original, without gradients of the classifier's own parameters."""

    def get_diff_logits_grads_batch_targeted(
        self, imgs: Tensor, la: Tensor, la_target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z_t - z_y (B, 1) and its gradient (B, 1, C, H, W)."""
        u = imgs.detach().clone().requires_grad_()
        with torch.enable_grad():
            logits = self.predict(u)
            gap = logits.gather(1, la_target[:, None]) - logits.gather(1, la[:, None])
            gradient = torch.autograd.grad(gap.sum(), u)[0]
        return gap.detach(), gradient[:, None]
