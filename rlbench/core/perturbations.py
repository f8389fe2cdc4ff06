"""A suite's perturbations: entries of YAML -> columns, every name, field, eps and severity checked with its line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from rlbench.core import (
    Adversarial,
    Clean,
    Composed,
    Corrupted,
    Fields,
    Modality,
    Perturbation,
    Task,
    Threat,
    Worst,
    registry,
)
from rlbench.core.errors import RLBenchError
from rlbench.core.threat import check_eps, parse_eps, parse_norm
from rlbench.core.yaml_source import Part

_NEEDED = {"attack": ("norm", "eps"), "corruption": ("severity",)}


def make_plugin(kind: registry.Kind, name: Part, fields: Mapping[str, Part], values: Mapping[str, Any]) -> Any:
    """A plugin with the values of its fields; an error names the line of the field that it speaks of."""
    try:
        return registry.make(kind, name.text(), values)
    except RLBenchError as error:
        said = str(error)
        spoken = {
            key: re.search(rf"\b{re.escape(key)}\b", said.removeprefix(f"{kind} {name.value()!r}")) for key in fields
        }
        first = min((hit.start(), key) for key, hit in spoken.items() if hit) if any(spoken.values()) else None
        (fields[first[1]] if first else name).fail(error)


def _plugin(kind: registry.Kind, name: Part, fields: Mapping[str, Part]) -> tuple[Any, Fields]:
    """A plugin, and its fields that differ from their defaults, sorted."""
    values = {key: part.value() for key, part in fields.items()}
    plugin = make_plugin(kind, name, fields, values)
    known = inspect.signature(registry.factory(kind, name.text())).parameters
    own = {key: value for key, value in values.items() if key not in known or value != known[key].default}
    return plugin, tuple(sorted(own.items()))


def _attacks(parts: dict[str, Part]) -> Iterator[tuple[Part, Adversarial]]:
    names, norm, eps = (parts.pop(key) for key in ("attack", "norm", "eps"))
    kind = _parsed(norm, parse_norm, norm.value())
    for name in names.each():
        plugin, fields = _plugin("attack", name, parts)
        if kind not in getattr(plugin, "norms", (kind,)):
            norm.fail(f"attack {name.text()!r} is for {', '.join(sorted(plugin.norms))}; choose another")
        for each in eps.each():
            threat = Threat(kind, _parsed(each, parse_eps, each.value()))
            _parsed(each, check_eps, threat.eps, kind)
            yield each, Adversarial(name.text(), threat, fields)


def _parsed(part: Part, parse: Callable[..., Any], *values: object) -> Any:
    """What `parse` makes of values; an error names the line of the part that they come from."""
    try:
        return parse(*values)
    except RLBenchError as error:
        part.fail(str(error).removeprefix(f"{part.key} is "))


def _corruptions(parts: dict[str, Part], modality: Modality, task: Task) -> Iterator[tuple[Part, Corrupted | Composed]]:
    """The corruptions of an entry, each alone, or each with the attacks of its `then`."""
    names, severity, then = parts.pop("corruption"), parts.pop("severity"), parts.pop("then", None)
    for name in names.each():
        corruption, fields = _plugin("corruption", name, parts)
        if modality not in corruption.modalities:
            able = ", ".join(sorted(corruption.modalities))
            name.fail(f"corruption {name.text()!r} is for {able}; the suite's modality is {modality}")
        if getattr(corruption, "acts_on", "") == "waveform" and not hasattr(task, "waves"):
            name.fail(f"corruption {name.text()!r} acts on waveforms, which the task does not have; choose another")
        if (views := getattr(task, "views", 1)) > 1:
            name.fail(f"corruption {name.text()!r} is for whole clips, not {views} views; set views: 1")
        for each in severity.each():
            one = Corrupted(name.text(), each.whole(1, 5), fields)
            if then is None:
                yield each, one
            else:
                yield from ((part, Composed(one, attack)) for part, attack in _attacks(_key_parts(then, "attack")))


def _key_parts(part: Part, kind: str) -> dict[str, Part]:
    """The items of an attack or a corruption, with the keys that it needs."""
    parts = part.items()
    if kind not in parts:
        part.fail(f"the key {kind!r} is missing")
    for key in _NEEDED[kind]:
        if key not in parts:
            part.fail(f"{kind} {parts[kind].value()!r} needs the key {key!r}")
    return parts


def _entry(part: Part, modality: Modality, task: Task) -> Iterator[tuple[Part, Perturbation | None]]:
    """The perturbations of one entry of the list; None stands for `worst`, which needs all the others."""
    if part.is_scalar:
        word = part.one_of("perturbation", ("clean", "worst"))
        yield part, (Clean() if word == "clean" else None)
        return
    what = [key for key in _NEEDED if key in part.items()]
    if len(what) != 1:
        part.fail(
            "an entry is clean, worst, {attack: ..., norm: ..., eps: ...} or {corruption: ..., severity: ...}, "
            "which may have then: {attack: ...}"
        )
    parts = _key_parts(part, what[0])
    yield from _attacks(parts) if what == ["attack"] else _corruptions(parts, modality, task)


def _worst(attacks: Sequence[Adversarial]) -> list[Worst]:
    threats = {attack.threat for attack in attacks}
    return [Worst(threat) for threat in sorted(threats, key=lambda t: (t.norm != "linf", t.norm, t.eps))]


def _with_ladder(attack: Adversarial, attacks: Sequence[Adversarial]) -> Adversarial:
    """The attack with the smaller eps of the suite at which the same attack runs."""
    same = {
        a.threat.eps
        for a in attacks
        if replace(a, threat=attack.threat) == attack and a.threat.norm == attack.threat.norm
    }
    smaller: list[Fraction] = sorted(eps for eps in same if eps < attack.threat.eps)
    return replace(attack, ladder=tuple(smaller))


def perturbations(whole: Part, modality: Modality, task: Task) -> tuple[Perturbation, ...]:
    """Clean first, whether or not it is listed; `worst` becomes one column per threat model."""
    found: dict[str, tuple[Part, Perturbation | None]] = {}
    for entry in whole.each():
        for part, one in _entry(entry, modality, task):
            if str(one or "worst") in found:
                part.fail(f"{str(one or 'worst')!r} appears twice")
            found[str(one or "worst")] = part, one
    attacks = [one for _, one in found.values() if isinstance(one, Adversarial)]
    composed = [one for _, one in found.values() if isinstance(one, Composed)]
    columns: list[Perturbation] = [Clean()]
    for part, one in found.values():
        if one is None and not attacks:
            part.fail("'worst' needs at least one attack")
        if isinstance(one, Adversarial):
            columns.append(_with_ladder(one, attacks))
        elif isinstance(one, Composed):
            same = [other.adversarial for other in composed if other.corrupted == one.corrupted]
            columns.append(replace(one, adversarial=_with_ladder(one.adversarial, same)))
        elif not isinstance(one, Clean):
            columns += _worst(attacks) if one is None else [one]
    return tuple(columns)
