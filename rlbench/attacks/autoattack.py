"""AutoAttack: the standard ensemble, or a selection of its attacks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from torch import Tensor

from rlbench.attacks.apgd import APGD
from rlbench.attacks.fab import FAB
from rlbench.attacks.search.ensemble import Member, cascade, loss_used, passes
from rlbench.attacks.square import Square
from rlbench.core import Ball, Classifier, Streams
from rlbench.core.errors import FieldError
from rlbench.core.registry import register

STANDARD = "apgd-ce+apgd-t+fab-t+square"


@register("attack", "autoattack")
@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """APGD-CE, targeted APGD, targeted FAB and Square, each on the examples that are still correct.

    Croce & Hein, 2020, https://arxiv.org/abs/2003.01690; `label` tells whether it is their standard version.

    Attributes:
        attacks: names from apgd-ce, apgd-dlr, apgd-t, fab-t and square, joined by "+" in the order in which they run.
        steps: iterations of each run of APGD and FAB, at least 1.
        restarts: runs of APGD from new random starts, per target, at least 1.
        targets: number of targets of apgd-t and fab-t, at least 1.
        queries: number of queries of Square, at least 1.
    """

    attacks: str = STANDARD
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    queries: int = 5000
    min_classes: ClassVar[int] = 4

    def __post_init__(self) -> None:
        names = self.attacks.split("+")
        for name in names:
            if name not in self._make_members():
                allowed = ", ".join(self._make_members())
                raise FieldError(f"autoattack: attacks has {name!r}; join some of {allowed} by '+'")
        if len(set(names)) < len(names):
            raise FieldError(f"autoattack: attacks is {self.attacks!r}; name each attack at most once")

    def _make_members(self) -> dict[str, Member]:
        runs = {"steps": self.steps, "restarts": self.restarts, "targets": self.targets}
        return {
            "apgd-ce": APGD(name="apgd-ce", **runs),
            "apgd-dlr": APGD(name="apgd-dlr", **runs),
            "apgd-t": APGD(name="apgd-t", **runs),
            "fab-t": FAB(steps=self.steps, targets=self.targets),
            "square": Square(queries=self.queries),
        }

    @property
    def version(self) -> str:
        """The version of the library whose fab-t it runs, which enters the cell key."""
        return FAB().version

    @property
    def members(self) -> dict[str, Member]:
        """The attacks by name, in the order in which they run."""
        known = self._make_members()
        return {name: known[name] for name in self.attacks.split("+")}

    def label(self, n_classes: int) -> str:
        """The name of the ensemble for records: "aa-standard", or "custom:" and a hash of its fields.

        Below 4 classes the targeted DLR loss of the standard version is not defined, and the margin replaces it.
        """
        if self == AutoAttack() and n_classes >= self.min_classes:
            return "aa-standard"
        text = json.dumps([asdict(self), n_classes < self.min_classes], sort_keys=True)
        return f"custom:{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def loss_used(self, n_classes: int) -> str:
        """The losses of the members with this number of classes."""
        return loss_used(self.members, n_classes)

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example."""
        return passes(self.members, n_classes)

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x."""
        return cascade(self.members, classifier, x, y, ball, streams)
