"""Perturbations by short names, such as tests have them in lists."""

from fractions import Fraction

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Norm, Perturbation, Threat, Worst
from rlbench.core.types import Fields


def column(name: str) -> Perturbation:
    """`clean`, `fog 3`, `pgd(steps=3) linf 4/255 descending`, `fog 3 + pgd l2 0.5` or `worst linf 4/255`."""
    first, _, attack = name.partition(" + ")
    if attack:
        return Composed(column(first), column(attack))  # type: ignore[arg-type]
    if name == "clean":
        return Clean()
    what, *rest = name.replace(", ", ",").split(" ")
    call, fields = what.partition("(")[0], _fields(what.partition("(")[2].rstrip(")"))
    if len(rest) == 1:
        return Corrupted(call, int(rest[0]), fields)
    norm: Norm = "l2" if rest[0] == "l2" else "linf"
    threat, down = Threat(norm, Fraction(rest[1])), rest[2:] == ["descending"]
    if call == "worst":
        return Worst(threat, mode="descending" if down else "standalone")
    return Adversarial(call, threat, fields, descending=down)


def _fields(text: str) -> Fields:
    parts = [part.split("=") for part in text.split(",") if part]
    return tuple(sorted((name, float(value) if "." in value else int(value)) for name, value in parts))
