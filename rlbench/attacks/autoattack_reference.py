"""The original implementation of AutoAttack, to compare rlbench's with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any, ClassVar

import torch
from pyautoattack.autoattack import AutoAttack
from torch import Tensor

from rlbench.attacks.search.library_box import UnitBox, one_by_one
from rlbench.core import Ball, Classifier, Norm, Streams
from rlbench.core.registry import register


@register("attack", "autoattack:reference")
@dataclass(frozen=True, kw_only=True)
class Reference:
    """The standard version of pyautoattack on any box: slow, to compare `autoattack` with.

    Croce & Hein, 2020, https://arxiv.org/abs/2003.01690. The attacks run in the order and with the constants of
    pyautoattack's `run_standard_evaluation`, on one example at a time (see `library_box.one_by_one`), and without its
    checks, which trace the whole process. Below 4 classes, where its targeted loss is not defined, apgd-t is left out.
    Its Square needs at least 5 rows and 5 columns in L2.
    """

    min_classes: ClassVar[int] = 4

    @property
    def version(self) -> str:
        """The version of the library, which enters the cell key."""
        return installed("pyautoattack")

    def label(self, n_classes: int) -> str:
        """The name of the ensemble for records."""
        return "aa-standard" if n_classes >= self.min_classes else "custom:without-apgd-t"

    def loss_used(self, n_classes: int) -> str:
        """The losses of the attacks that run with this number of classes."""
        return "ce+dlr-targeted+margin-targeted+margin" if n_classes >= 4 else "ce+margin-targeted+margin"

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        targets = min(9, n_classes - 1)
        apgd_t = (1 + targets * 102, targets * 101) if n_classes >= 4 else (0, 0)
        # One pass for the number of classes, those of the four attacks, and one to judge each of them.
        return 1 + 102 + apgd_t[0] + (1 + targets * 203) + 5003 + 4, 101 + apgd_t[1] + targets * 100

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""

        def run(unit: UnitBox, u: Tensor, label: Tensor, seed: int) -> Tensor:
            return _standard(unit, u, label, ball.norm, seed)

        return one_by_one(classifier, x, y, ball, streams, run)


def _standard(unit: UnitBox, u: Tensor, y: Tensor, norm: Norm, seed: int) -> Tensor:
    """Attacks one picture with each attack in turn; returns the first adversarial example, or u if all attacks fail.

    Args:
        unit: the classifier of pictures.
        u: (1, C, H, W) in [0, 1].
        y: (1,) int64 label.
        norm: "linf" or "l2".
        seed: seeds the attacks.
    """
    name = {"linf": "Linf", "l2": "L2"}[norm]
    suite = AutoAttack(unit, norm=name, eps=unit.eps, seed=seed, version="standard", device=u.device)
    with torch.no_grad():
        n_classes = unit(u).shape[1]
    suite.apgd.loss, suite.fab.targeted = "ce", True
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(9, n_classes - 1)
    attacks: dict[str, Any] = {
        "apgd-ce": suite.apgd,
        "apgd-t": suite.apgd_targeted,
        "fab-t": suite.fab,
        "square": suite.square,
    }
    for attack in suite.attacks_to_run:
        if attack == "apgd-t" and n_classes < 4:
            continue
        perturb: Callable[[Tensor, Tensor], Tensor] = attacks[attack].perturb
        with torch.no_grad():
            found = perturb(u, y)
            if bool((unit(found).argmax(1) != y).all()):
                return found
    return u
