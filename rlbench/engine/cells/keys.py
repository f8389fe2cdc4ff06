"""From a suite's perturbations to groups that are run together, content-hash keys, and upper bounds of cost.

A group is what one work unit computes: the clean cell; a corruption; or a chain of attacks (see `matrix`), such as an
attack's ladder of ascending eps, where an example that is broken at a smaller eps stays broken at a larger one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from fractions import Fraction
from typing import Any

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Field, Mode, Perturbation, Suite, Worst, registry
from rlbench.core.errors import SuiteError
from rlbench.core.sources import source_hash

PROTOCOL = 1  # raise it when rlbench computes other numbers from the same inputs: no stored block is used again


@dataclass(frozen=True)
class Group:
    """Perturbations that are computed together: a corruption, or none, then a chain of attacks, or none."""

    corrupted: Corrupted | None = None
    attacks: tuple[Adversarial, ...] = ()
    mode: Mode = "standalone"

    @property
    def members(self) -> tuple[Perturbation, ...]:
        """What is computed, in this order: one perturbation an attack, or in a cascade one a threat model."""
        if self.mode == "cascade":
            return tuple(Worst(threat, self.attacks) for threat in dict.fromkeys(a.threat for a in self.attacks))
        if self.corrupted is None:
            return self.attacks or (Clean(),)
        return tuple(Composed(self.corrupted, a) for a in self.attacks) or (self.corrupted,)


def _group(perturbation: Perturbation) -> Group:
    if isinstance(perturbation, Worst):
        return Group(None, perturbation.attacks, "cascade")
    if isinstance(perturbation, Adversarial):
        return Group(None, _rungs(perturbation), "descending" if perturbation.descending else "standalone")
    if isinstance(perturbation, Composed):
        return replace(_group(perturbation.adversarial), corrupted=perturbation.corrupted)
    return Group(perturbation if isinstance(perturbation, Corrupted) else None)


def _rungs(last: Adversarial) -> tuple[Adversarial, ...]:
    ladder = tuple(sorted(set(last.ladder) - {last.threat.eps}, reverse=last.descending))
    steps = [replace(last, threat=replace(last.threat, eps=e), ladder=ladder[:i]) for i, e in enumerate(ladder)]
    return (*steps, replace(last, ladder=ladder))


def mode(perturbation: Perturbation) -> Mode:
    """How its attacks run."""
    if isinstance(perturbation, Worst) and taken_over(perturbation):
        return "descending" if perturbation.descending else "standalone"
    return _group(perturbation).mode


def taken_over(perturbation: Perturbation) -> bool:
    """Whether it is a worst case over other cells, rather than a cell that is computed."""
    return isinstance(perturbation, Worst) and not perturbation.attacks


def in_mode(perturbations: Sequence[Perturbation], mode: Mode, n_classes: int) -> tuple[Perturbation, ...]:
    """A suite's perturbations in another mode than `standalone`, which they come in.

    A cascade has one column a threat model, in place of those of single attacks; its attacks run in the order of eps
    and of their cost. Compositions with a corruption stay standalone there.
    """
    if mode == "standalone":
        return tuple(perturbations)
    attacks = [p for p in perturbations if isinstance(p, Adversarial)]
    if mode == "descending":
        return tuple(_descending(p, attacks) for p in perturbations)

    def turn(attack: Adversarial) -> tuple[bool, Fraction, int]:
        return attack.threat.norm != "linf", attack.threat.eps, sum(bound(attack, n_classes))

    chain = tuple(sorted((replace(a, ladder=()) for a in attacks), key=turn))
    rest = [p for p in perturbations if not isinstance(p, Adversarial | Worst)]
    return (*rest, *(Worst(threat, chain) for threat in dict.fromkeys(a.threat for a in chain)))


def _descending(p: Perturbation, attacks: Sequence[Adversarial]) -> Perturbation:
    if isinstance(p, Worst):
        return replace(p, descending=True)
    if not isinstance(p, Adversarial):
        return p
    same = [a for a in attacks if (a.attack, a.fields, a.threat.norm) == (p.attack, p.fields, p.threat.norm)]
    larger = {a.threat.eps for a in same if a.threat.eps > p.threat.eps}
    return replace(p, descending=True, ladder=tuple(sorted(larger, reverse=True)))


def groups(perturbations: Iterable[Perturbation]) -> list[Group]:
    """The groups, clean first; a rung that is a cell of its own is computed once, in the longest ladder."""
    found = [_group(p) for p in perturbations if not taken_over(p)]
    found = list(dict.fromkeys([Group(), *found]))

    def shorter(one: Group, other: Group) -> bool:
        n = len(one.attacks)
        return one.corrupted == other.corrupted and 0 < n < len(other.attacks) and other.attacks[:n] == one.attacks

    return [one for one in found if not any(shorter(one, other) for other in found)]


def canonical(perturbation: Perturbation) -> Perturbation:
    """The perturbation as a group's member: with its ladder in order."""
    return perturbation if isinstance(perturbation, Worst) else _group(perturbation).members[-1]


def worst_members(worst: Worst, perturbations: Sequence[Perturbation]) -> list[Adversarial]:
    """The attacks that a worst case is taken over: of its norm, with its eps or a smaller one.

    Raises: SuiteError where there are none.
    """
    attacks = [p for p in perturbations if isinstance(p, Adversarial) and p.threat.norm == worst.threat.norm]
    members = [a for a in attacks if a.threat.eps <= worst.threat.eps]
    if not members:
        raise SuiteError(f"{str(worst)!r} needs an attack of that norm, with that eps or a smaller one, in the suite")
    return members


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plugin(kind: registry.Kind, name: str, fields: Sequence[tuple[str, Field]]) -> Any:
    """The attack or corruption, made. Raises: UnknownName, FieldError."""
    return registry.make(kind, name, dict(fields))


def plugin_values(kind: registry.Kind, name: str, fields: Sequence[tuple[str, Field]]) -> dict[str, object]:
    """What a plugin's numbers depend on: all its fields, the `version` that it may have, and a foreign one's source."""
    made = plugin(kind, name, fields)
    values = asdict(made) if is_dataclass(made) and not isinstance(made, type) else dict(fields)
    facts = {"name": name, "values": values, "source": source_hash(type(made).__module__)}
    return facts | ({"version": made.version} if hasattr(made, "version") else {})


def protocol(suite: Suite, perturbation: Perturbation) -> str:
    """Hash of what is done to the examples, and with which constants, for any model and any data."""
    return _hash([PROTOCOL, _protocol(suite, canonical(perturbation))])


def _protocol(suite: Suite, perturbation: Perturbation) -> dict[str, object]:
    facts: dict[str, object] = {"perturbation": str(perturbation)}
    if isinstance(perturbation, Worst):
        members = perturbation.attacks or worst_members(perturbation, suite.perturbations)
        facts["members"] = [_protocol(suite, canonical(m)) for m in members]
        return facts | ({"mode": "cascade"} if perturbation.attacks else {})
    group = _group(perturbation)
    if perturbation != Clean():
        facts["seed"] = suite.seed
    if group.corrupted:
        facts["corruption"] = plugin_values("corruption", group.corrupted.corruption, group.corrupted.fields)
    if group.attacks:
        top = group.attacks[-1]
        facts["attack"] = plugin_values("attack", top.attack, top.fields)
        facts["ladder"] = [str(a.threat) for a in group.attacks]
    return facts


def cell_key(subject: Mapping[str, object], suite: Suite, perturbation: Perturbation) -> str:
    """Hash of everything that a cell's numbers depend on but n: the encoder and task (`subject`) and the protocol."""
    return _hash([dict(subject), protocol(suite, perturbation)])


def record_key(key: str, n: int) -> str:
    """The cell's key with its number of examples."""
    return _hash([key, n])


def told(perturbation: Perturbation, n_classes: int) -> dict[str, str]:
    """What the attack says of itself with this number of classes: the `loss` that it ascends, and its `label`."""
    group = Group() if isinstance(perturbation, Worst) else _group(perturbation)
    if not group.attacks:
        return {}
    attack = plugin("attack", group.attacks[-1].attack, group.attacks[-1].fields)
    asked = {"loss": getattr(attack, "loss_used", None), "label": getattr(attack, "label", None)}
    return {name: str(ask(n_classes)) for name, ask in asked.items() if ask}


def bound(perturbation: Perturbation, n_classes: int) -> tuple[int, int]:
    """Upper bound of an example's forward and backward passes on this rung: no example breaks early.

    An attack may have `passes(n_classes) -> (forwards, backwards)`; else steps x restarts (x targets for "...-t").
    """
    if isinstance(perturbation, Worst):
        own = [bound(attack, n_classes) for attack in perturbation.attacks if attack.threat == perturbation.threat]
        return sum(forwards for forwards, _ in own), sum(backwards for _, backwards in own)
    group = _group(perturbation)
    if not group.attacks:
        return 1, 0
    attack = plugin("attack", group.attacks[-1].attack, group.attacks[-1].fields)
    ask = getattr(attack, "passes", None)
    if ask is not None:
        forwards, backwards = ask(n_classes)
    else:
        targeted = group.attacks[-1].attack.endswith("-t")
        jobs = getattr(attack, "restarts", 1) * (min(getattr(attack, "targets", 9), n_classes - 1) if targeted else 1)
        backwards = jobs * getattr(attack, "steps", 1)
        forwards = backwards + jobs + targeted
    return int(forwards) + 1 + (group.corrupted is not None), int(backwards)
