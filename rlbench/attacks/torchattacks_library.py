"""The attacks of the torchattacks library, to compare rlbench's with."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torchattacks
from torch import Tensor

from rlbench.attacks.search.library_box import UnitBox, one_by_one
from rlbench.core import Ball, Classifier, Field, Norm, Streams
from rlbench.core.errors import AttackError, FieldError
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import parse_eps
from rlbench.core.validation import check_fields

L2 = ("CW", "DeepFool", "PGDL2")
EITHER = ("APGD", "APGDT", "AutoAttack", "FAB", "Square")
TARGETED_DLR = ("APGDT", "AutoAttack")  # these crash below 4 classes
REAL = ("c", "kappa", "scale")  # arguments of CW and Jitter that may be fractions, though their defaults are integers
GIVEN = ("model", "eps", "norm", "seed", "n_classes", "verbose")  # arguments that rlbench sets, so they are no fields


@register(
    "attack",
    "torchattacks:APGD",
    "torchattacks:APGDT",
    "torchattacks:AutoAttack",
    "torchattacks:BIM",
    "torchattacks:CW",
    "torchattacks:DeepFool",
    "torchattacks:EOTPGD",
    "torchattacks:FAB",
    "torchattacks:FFGSM",
    "torchattacks:FGSM",
    "torchattacks:Jitter",
    "torchattacks:MIFGSM",
    "torchattacks:NIFGSM",
    "torchattacks:PGD",
    "torchattacks:PGDL2",
    "torchattacks:RFGSM",
    "torchattacks:SINIFGSM",
    "torchattacks:Square",
    "torchattacks:TPGD",
    "torchattacks:UPGD",
    "torchattacks:VMIFGSM",
    "torchattacks:VNIFGSM",
)
def torchattack(*, name: str, **arguments: Field) -> TorchAttack:
    """Makes an attack of torchattacks.

    Args:
        name: "torchattacks:" and the class in the library.
        **arguments: the arguments of that class; steps such as alpha are numbers or fractions such as "2/255".

    Raises:
        FieldError: the class has no such argument, or it has another type.
    """
    attack = TorchAttack(name=name.removeprefix("torchattacks:"), arguments=tuple(sorted(arguments.items())))
    attack.keywords()
    return attack


@dataclass(frozen=True, kw_only=True)
class TorchAttack:
    """An attack of torchattacks (Kim, 2020, https://arxiv.org/abs/2010.01950) on pictures in [0, 1], mapped to the box.

    Steps such as alpha are shares of the box's range. Examples are attacked one at a time (see
    `library_box.one_by_one`), and results outside the ball, as of attacks without eps, are projected to it. The
    library's attacks in L0, on smoothed models, and on pictures that must have three channels or be square (TIFGSM,
    DIFGSM) are left out.

    Attributes:
        name: the class in the library.
        arguments: (name, value) pairs that replace the library's defaults, sorted by name.
    """

    name: str
    arguments: tuple[tuple[str, Field], ...] = ()

    @property
    def norms(self) -> frozenset[Norm]:
        """The norms in which the attack works."""
        either: frozenset[Norm] = frozenset({"linf", "l2"})
        return either if self.name in EITHER else frozenset({"l2"} if self.name in L2 else {"linf"})

    @property
    def min_classes(self) -> int:
        """The fewest classes for which the attack is defined."""
        return 4 if self.name in TARGETED_DLR else 2

    @property
    def needs(self) -> Knowledge:
        """Square needs scores, the others gradients."""
        return "score" if self.name == "Square" else "white-box"

    @property
    def version(self) -> str:
        """The version of the library, which enters the cell key."""
        return str(torchattacks.__version__)

    def loss_used(self, n_classes: int) -> str:
        """The argument `loss`, or "torchattacks" for the library's default."""
        return str(dict(self.arguments).get("loss", "torchattacks"))

    def passes(self, n_classes: int) -> tuple[int, int]:
        """The most forward and backward passes of an example, as counted on a classifier that no attack breaks."""
        own = inspect.signature(getattr(torchattacks, self.name)).parameters.get("steps")
        steps = self.keywords().get("steps", own.default if own else 0)  # CW may stop early there, but not on others
        forwards, backwards = _count_passes(self, max(n_classes, self.min_classes))
        return max(forwards, steps), max(backwards, steps)

    def keywords(self) -> dict[str, Any]:
        """The arguments for the library's class, converted to its types.

        Raises:
            FieldError: an unknown argument, a wrong type, or an alpha outside (0, 1].
        """
        kind, what = getattr(torchattacks, self.name), f"attack {f'torchattacks:{self.name}'!r}"
        values = check_fields(partial(kind, **dict.fromkeys(GIVEN)), dict(self.arguments), what)
        defaults = inspect.signature(kind).parameters
        usual = {name: float(p.default) if name in REAL else p.default for name, p in defaults.items()}
        typed = {name: _convert(value, usual[name], f"{what}: {name}") for name, value in values.items()}
        if not 0 < typed.get("alpha", 1) <= 1:
            raise FieldError(
                f"{what}: alpha is {values['alpha']}; it must be above 0 and at most 1, the range of the box: 2/255"
            )
        return typed

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, *shape) in the box, y (B,) int64 -> x_adv like x.

        Raises:
            AttackError: the attack does not work in this norm or with this number of classes.
        """
        if ball.norm not in self.norms:
            raise AttackError(
                f"torchattacks:{self.name} is for {', '.join(sorted(self.norms))}; the norm is {ball.norm}"
            )
        return one_by_one(classifier, x, y, ball, streams, partial(self._run, ball.norm))

    def _run(self, norm: Norm, unit: UnitBox, u: Tensor, y: Tensor, seed: int) -> Tensor:
        kind = getattr(torchattacks, self.name)
        takes = inspect.signature(kind).parameters
        given: dict[str, Any] = {"eps": unit.eps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "seed": seed}
        if "n_classes" in takes:
            with torch.no_grad():
                given["n_classes"] = unit(u).shape[1]
            if given["n_classes"] < self.min_classes:
                raise AttackError(
                    f"torchattacks:{self.name} needs {self.min_classes} classes, not {given['n_classes']}"
                )
        given = {name: value for name, value in given.items() if name in takes} | self.keywords()
        return kind(unit, **given)(u, y)  # type: ignore[no-any-return]  # an untyped library


def _convert(value: object, default: object, what: str) -> Any:
    """Converts a value to the type of the library's default.

    Args:
        value: the value of the field.
        default: the library's default.
        what: the field's name in an error.

    Raises:
        FieldError: the value has another type.
    """
    if isinstance(default, float) and isinstance(value, str):
        value = float(parse_eps(value, what))
    kinds = (int, float) if isinstance(default, float) else (type(default),)
    if type(value) not in kinds:
        raise FieldError(f"{what} is {value!r}; it must be {type(default).__name__}, such as the default {default!r}")
    return value


class _Fortress:
    """A classifier that always predicts class 0, and counts its passes."""

    batch_size = 1

    def __init__(self, n_classes: int) -> None:
        self.n_classes, self.forwards, self.backwards = n_classes, 0, 0

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        rest = 1e-3 * x.flatten(1)[:, : self.n_classes - 1]
        logits = torch.cat([5 + 0 * rest[:, :1], rest], dim=1)
        self.forwards += 1
        if logits.requires_grad:
            logits.register_hook(self._back)  # type: ignore[no-untyped-call]  # torch's own gap
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += 1


@cache
def _count_passes(attack: TorchAttack, n_classes: int) -> tuple[int, int]:
    """Runs the attack on one example of a _Fortress; returns its forward and backward passes."""
    side = max(8, int(n_classes**0.5) + 1)
    x, norm = torch.full((1, 1, side, side), 0.5), min(attack.norms)
    fortress = _Fortress(n_classes)
    attack(fortress, x, torch.zeros(1, dtype=torch.int64), Ball(norm, 0.03, 0.0, 1.0), ExampleStreams(0, ("cost",)))
    return fortress.forwards, fortress.backwards
