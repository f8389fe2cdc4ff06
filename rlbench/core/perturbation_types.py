"""Threat models and perturbations: what a suite's columns are. Their text is for people, and nothing parses it back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from rlbench.core.knowledge import Knowledge
from rlbench.core.precision import Precision

Norm = Literal["linf", "l2", "l0"]
Mode = Literal["standalone", "cascade", "descending"]
Reach = Literal["", "all", "any 1"]
TextLevel = Literal["template", "typo-shared", "typo-any"]
Field = str | int | float | bool | None
Fields = tuple[tuple[str, Field], ...]  # sorted (name, value) pairs that differ from a plugin's defaults


def _text(eps: Fraction) -> str:
    """`4/255`, `0.5` or another fraction."""
    d = eps.denominator
    return f"{float(eps):.15g}" if 10_000 % d == 0 else f"{255 * eps}/255" if 255 % d == 0 else str(eps)


@dataclass(frozen=True)
class Threat:
    """A threat model: norm and eps, untargeted. eps is for a box of range 1; a Ball scales it; l0 counts.

    Attributes:
        norm: of the ball.
        eps: the radius; the largest, if sensors have different ones.
        sensors: the attacked sensors, of a task with several.
        knowledge: what the encoder gives.
        reach: "all": `sensors` are all that the task has; "any 1": the worst case, per example, over attacks on one
            of them; otherwise all of `sensors` are attacked together.
        by_sensor: the eps of each of `sensors`, if they differ.
        precision: of the search; the judge's is float32.
    """

    norm: Norm
    eps: Fraction
    sensors: tuple[str, ...] = ()
    knowledge: Knowledge = "white-box"
    reach: Reach = ""
    by_sensor: tuple[Fraction, ...] = ()
    precision: Precision = "fp32"

    @property
    def place(self) -> str:
        """The attacked sensors as text: ` on image+audio`, ` on all`, ` on any 1`; "" for a task with one sensor."""
        return f" on {self.reach or '+'.join(self.sensors)}" if self.sensors else ""

    def __str__(self) -> str:
        """The column text: `linf 4/255`, `l2 0.5`, `linf 4/255 label` for a black box, `linf 4/255 bf16 on thermal`."""
        each = ", ".join(f"{s} {_text(eps)}" for s, eps in zip(self.sensors, self.by_sensor, strict=False))
        more = "".join(f" {word}" for word in (self.knowledge, self.precision) if word not in ("white-box", "fp32"))
        return f"{self.norm} {each or _text(self.eps)}{more}{self.place}"


@dataclass(frozen=True)
class Clean:
    """No perturbation."""

    def __str__(self) -> str:
        return "clean"


def _call(name: str, fields: Fields) -> str:
    return name + (f"({', '.join(f'{k}={v}' for k, v in fields)})" if fields else "")


@dataclass(frozen=True)
class Surrogate:
    """Another model, on which an attack finds its points.

    Attributes:
        name: of the model, as the suite has it.
        weights: the SHA-256 of its weights; "" before a plan has loaded it.
        identity: the hash of all that its answers depend on; "" before a plan has loaded it.
    """

    name: str
    weights: str = ""
    identity: str = ""


@dataclass(frozen=True)
class Adversarial:
    """An attack in a threat model.

    Attributes:
        attack: its name.
        threat: the threat model.
        fields: of the attack.
        ladder: eps at which it runs before: smaller ones, or, descending, larger.
        descending: whether what survives a larger eps counts as robust at a smaller one.
        surrogate: the model that it attacks, if that is not the one that is judged.
    """

    attack: str
    threat: Threat
    fields: Fields = ()
    ladder: tuple[Fraction, ...] = ()
    descending: bool = False
    surrogate: Surrogate | None = None

    @property
    def call(self) -> str:
        """The attack with its fields: `pgd(steps=3)`, `pgd from languagebind`."""
        return _call(self.attack, self.fields) + (f" from {self.surrogate.name}" if self.surrogate else "")

    def __str__(self) -> str:
        return f"{self.call} {self.threat}{' descending' * self.descending}"


@dataclass(frozen=True)
class Corrupted:
    """A corruption at a severity, 1..5. `sensors`: those corrupted, of a task with several."""

    corruption: str
    severity: int
    fields: Fields = ()
    sensors: tuple[str, ...] = ()

    @property
    def call(self) -> str:
        """The corruption with its fields: `fog(kind=thick)`."""
        return _call(self.corruption, self.fields)

    @property
    def place(self) -> str:
        """The corrupted sensors as text: ` on image+audio`; "" for a task with one sensor."""
        return f" on {'+'.join(self.sensors)}" if self.sensors else ""

    def __str__(self) -> str:
        return f"{self.call} {self.severity}{self.place}"


@dataclass(frozen=True)
class Missing:
    """Some sensors of a task with several give nothing; the fusion gets the others."""

    sensors: tuple[str, ...]

    def __str__(self) -> str:
        return f"without {'+'.join(self.sensors)}"


@dataclass(frozen=True)
class Edited:
    """An attacker chooses the texts of the classes; leaving them as they are is always one of the choices.

    Attributes:
        text: "template": the worst template of each input; "typo-shared": one list of class names for all inputs,
            chosen on validation examples; "typo-any": a list for each input.
        edits: the most typing errors of a name, at least 1; 0 for templates.
    """

    text: TextLevel
    edits: int = 0

    def __str__(self) -> str:
        return f"{self.text} {self.edits}" if self.edits else self.text


@dataclass(frozen=True)
class Composed:
    """A corruption, missing sensors or an attacker's texts, then an attack on that input."""

    corrupted: Corrupted | Missing | Edited
    adversarial: Adversarial

    def __str__(self) -> str:
        return f"{self.corrupted} + {self.adversarial}"


@dataclass(frozen=True)
class Worst:
    """The worst case per example over a suite's attacks of this norm and eps or smaller, or a cascade of `attacks`.

    With `text`, also over that choice of texts, alone and with the attacks.
    """

    threat: Threat
    attacks: tuple[Adversarial, ...] = ()
    mode: Mode = "standalone"
    text: Edited | None = None

    def __str__(self) -> str:
        return (
            f"worst {f'{self.text} + ' if self.text else ''}{self.threat}{' descending' * (self.mode == 'descending')}"
        )


Perturbation = Clean | Adversarial | Corrupted | Missing | Edited | Composed | Worst
