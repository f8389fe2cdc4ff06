"""Which cells are computed together: the clean one, a corruption with its attacks, an attack's ladder of eps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Mode, Perturbation, Worst
from rlbench.core.errors import SuiteError


@dataclass(frozen=True)
class Group:
    """Perturbations that are computed together: at most one corruption, then a chain of any number of attacks."""

    corrupted: Corrupted | None = None
    attacks: tuple[Adversarial, ...] = ()
    mode: Mode = "standalone"

    @property
    def members(self) -> tuple[Perturbation, ...]:
        """What is computed, in this order: one perturbation per attack, or in a cascade one per threat model."""
        if self.mode == "cascade":
            return tuple(
                Worst(threat, self.attacks, "cascade") for threat in dict.fromkeys(a.threat for a in self.attacks)
            )
        if self.corrupted is None:
            return self.attacks or (Clean(),)
        return tuple(Composed(self.corrupted, a) for a in self.attacks) or (self.corrupted,)


def group_of(perturbation: Perturbation) -> Group:
    """The group that computes a perturbation, as its last member; a cascade's has one member per threat model."""
    if isinstance(perturbation, Worst):
        return Group(None, perturbation.attacks, "cascade")
    if isinstance(perturbation, Adversarial):
        return Group(None, _rungs(perturbation), "descending" if perturbation.descending else "standalone")
    if isinstance(perturbation, Composed):
        return replace(group_of(perturbation.adversarial), corrupted=perturbation.corrupted)
    return Group(perturbation if isinstance(perturbation, Corrupted) else None)


def _rungs(last: Adversarial) -> tuple[Adversarial, ...]:
    ladder = tuple(sorted(set(last.ladder) - {last.threat.eps}, reverse=last.descending))
    steps = [replace(last, threat=replace(last.threat, eps=e), ladder=ladder[:i]) for i, e in enumerate(ladder)]
    return (*steps, replace(last, ladder=ladder))


def is_aggregate(perturbation: Perturbation) -> bool:
    """Whether the perturbation is a worst case over other cells, not a cell that is computed."""
    return isinstance(perturbation, Worst) and not perturbation.attacks


def groups(perturbations: Iterable[Perturbation]) -> list[Group]:
    """The groups, clean first. A rung that is also a cell of its own is computed once, in the longest ladder."""
    found = [group_of(p) for p in perturbations if not is_aggregate(p)]
    found = list(dict.fromkeys([Group(), *found]))

    def shorter(one: Group, other: Group) -> bool:
        n = len(one.attacks)
        return one.corrupted == other.corrupted and 0 < n < len(other.attacks) and other.attacks[:n] == one.attacks

    return [one for one in found if not any(shorter(one, other) for other in found)]


def canonical(perturbation: Perturbation) -> Perturbation:
    """The perturbation as a member of its group, with its ladder in order."""
    return perturbation if isinstance(perturbation, Worst) else group_of(perturbation).members[-1]


def worst_members(worst: Worst, perturbations: Sequence[Perturbation]) -> list[Adversarial]:
    """The attacks that a worst case is taken over: of its norm, with its eps or a smaller one.

    Raises: SuiteError where there are none.
    """
    attacks = [p for p in perturbations if isinstance(p, Adversarial) and p.threat.norm == worst.threat.norm]
    members = [a for a in attacks if a.threat.eps <= worst.threat.eps]
    if not members:
        raise SuiteError(f"{str(worst)!r} needs an attack of that norm, with that eps or a smaller one, in the suite")
    return members
