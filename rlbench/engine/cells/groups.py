"""Which cells are computed together: the clean one, a corruption or texts with attacks, an attack's ladder of eps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Edited, Missing, Mode, Perturbation, Threat, Worst
from rlbench.core.errors import SuiteError
from rlbench.core.threat import eps_by_sensor, single_sensors, text_of, threat_of


@dataclass(frozen=True)
class Group:
    """Perturbations that are computed together: a corruption or texts, if any, then a chain of any number of attacks.

    The chain of an attack on several sensors begins with those on each of them alone, which its ball contains.
    """

    corrupted: Corrupted | Missing | Edited | None = None
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
        alone = [replace(perturbation, threat=one) for one in single_sensors(perturbation.threat)]
        attacks = dict.fromkeys([*alone, perturbation])  # one on a single sensor is alone by itself
        chain = [rung for attack in attacks for rung in _rungs(attack)]
        return Group(None, tuple(chain), "descending" if perturbation.descending else "standalone")
    if isinstance(perturbation, Composed):
        return replace(group_of(perturbation.adversarial), corrupted=perturbation.corrupted)
    return Group(perturbation if isinstance(perturbation, Corrupted | Missing | Edited) else None)


def _rungs(last: Adversarial) -> tuple[Adversarial, ...]:
    ladder = tuple(sorted(set(last.ladder) - {last.threat.eps}, reverse=last.descending))
    steps = [replace(last, threat=replace(last.threat, eps=e), ladder=ladder[:i]) for i, e in enumerate(ladder)]
    return (*steps, replace(last, ladder=ladder))


def is_aggregate(perturbation: Perturbation) -> bool:
    """Whether the perturbation is a worst case over other cells, not a cell that is computed."""
    threat = threat_of(perturbation)
    chosen = threat is not None and threat.reach == "any 1"
    return chosen or (isinstance(perturbation, Worst) and not perturbation.attacks)


def groups(perturbations: Iterable[Perturbation]) -> list[Group]:
    """The groups, clean first. A rung that is also a cell of its own is computed once, in the longest ladder."""
    columns = list(perturbations)
    single = [one for p in columns for one in ([p] if not is_aggregate(p) else one_by_one(p))]
    found = list(dict.fromkeys([Group(), *map(group_of, single)]))

    def shorter(one: Group, other: Group) -> bool:
        n = len(one.attacks)
        return one.corrupted == other.corrupted and 0 < n < len(other.attacks) and set(one.attacks) < set(other.attacks)

    return [one for one in found if not any(shorter(one, other) for other in found)]


def canonical(perturbation: Perturbation) -> Perturbation:
    """The perturbation as a member of its group, with its ladder in order."""
    aggregate = isinstance(perturbation, Worst) or is_aggregate(perturbation)
    return perturbation if aggregate else group_of(perturbation).members[-1]


def one_by_one(perturbation: Perturbation) -> list[Perturbation]:
    """The attacks on one sensor alone that an attack on any one of several is the worst case over; none for others."""
    if isinstance(perturbation, Composed):
        return [
            Composed(perturbation.corrupted, one)
            for one in one_by_one(perturbation.adversarial)
            if isinstance(one, Adversarial)
        ]
    if not isinstance(perturbation, Adversarial) or perturbation.threat.reach != "any 1":
        return []
    return [replace(perturbation, threat=threat) for threat in single_sensors(perturbation.threat)]


def members_of(perturbation: Perturbation, perturbations: Sequence[Perturbation]) -> list[Perturbation]:
    """The cells, as members of their groups, that a cell is the worst case over; itself if it is computed.

    Args:
        perturbation: of the cell.
        perturbations: of the suite.

    Raises: SuiteError where there are none.
    """
    if not is_aggregate(perturbation):
        return [canonical(perturbation)]
    over = worst_members(perturbation, perturbations) if isinstance(perturbation, Worst) else [perturbation]
    found = [one for p in over for one in (one_by_one(p) or [p])]
    return list(dict.fromkeys(map(canonical, found)))


def worst_members(worst: Worst, perturbations: Sequence[Perturbation]) -> list[Perturbation]:
    """The cells that a worst case is taken over: attacks of its norm on its sensors, with its eps or a smaller one.

    With a choice of texts, also that choice alone, and each attack with it; in a cascade, the worst case of its attacks
    takes their place.

    Raises: SuiteError where there are none.
    """

    def belongs(p: Perturbation) -> bool:
        joint = worst.text is not None and (text_of(p) == worst.text or (isinstance(p, Worst) and not is_aggregate(p)))
        threat = threat_of(p)
        if threat is None:
            return joint
        return (isinstance(p, Adversarial) or (joint and p != worst)) and is_within(threat, worst.threat)

    members = [p for p in perturbations if belongs(p)]
    if not members:
        raise SuiteError(f"{str(worst)!r} needs an attack of that norm, with that eps or a smaller one, in the suite")
    return members


def is_within(one: Threat, other: Threat) -> bool:
    """Whether every input that a threat model allows is one that the other allows: its norm, sensors, and eps."""
    if one.norm != other.norm or bool(one.sensors) != bool(other.sensors):
        return False
    if not one.sensors:
        return one.eps <= other.eps
    eps, most = eps_by_sensor(one), eps_by_sensor(other)
    alone = len(eps) == 1 or one.reach == "any 1"
    return all(eps[s] <= most[s] if s in most else eps[s] == 0 for s in eps) and (alone or other.reach != "any 1")
