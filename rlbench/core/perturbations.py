"""Parses a suite's perturbations; checks every name, field, eps and severity, with its line."""

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
from rlbench.core.threat import check_eps, norms_of, parse_eps, parse_norm
from rlbench.core.yaml_source import YamlPart

_NEEDED = {"attack": ("norm", "eps"), "corruption": ("severity",)}


def make_plugin(kind: registry.Kind, name: YamlPart, fields: Mapping[str, YamlPart], values: Mapping[str, Any]) -> Any:
    """Builds a plugin; an error names the line of the field that it mentions first.

    Args:
        kind: such as "attack".
        name: the plugin's name in the file.
        fields: its fields in the file.
        values: by field.
    """
    try:
        return registry.make(kind, name.text(), values)
    except RLBenchError as error:
        message = str(error).removeprefix(f"{kind} {name.value()!r}")
        hits = {key: hit.start() for key in fields if (hit := re.search(rf"\b{re.escape(key)}\b", message))}
        (fields[min(hits, key=hits.__getitem__)] if hits else name).fail(error)


def _plugin(kind: registry.Kind, name: YamlPart, fields: Mapping[str, YamlPart]) -> tuple[Any, Fields]:
    """A plugin and its fields that differ from the defaults, sorted by name."""
    values = {key: part.value() for key, part in fields.items()}
    plugin = make_plugin(kind, name, fields, values)
    known = inspect.signature(registry.factory(kind, name.text())).parameters
    own = {key: value for key, value in values.items() if key not in known or value != known[key].default}
    return plugin, tuple(sorted(own.items()))


def _attacks(parts: dict[str, YamlPart]) -> Iterator[tuple[YamlPart, Adversarial]]:
    """The attacks of an entry: one per name and eps."""
    names, norm, eps = (parts.pop(key) for key in ("attack", "norm", "eps"))
    kind = _parse(norm, parse_norm, norm.value())
    for name in names.each():
        plugin, fields = _plugin("attack", name, parts)
        if kind not in norms_of(plugin):
            norm.fail(f"attack {name.text()!r} is for {', '.join(sorted(norms_of(plugin)))}; choose another")
        for each in eps.each():
            threat = Threat(kind, _parse(each, parse_eps, each.value()))
            _parse(each, check_eps, threat.eps, kind)
            yield each, Adversarial(name.text(), threat, fields)


def _parse(part: YamlPart, parse: Callable[..., Any], *values: object) -> Any:
    """Calls `parse` with values; an error names the line of the part that they come from."""
    try:
        return parse(*values)
    except RLBenchError as error:
        part.fail(str(error).removeprefix(f"{part.key} is "))


def _corruptions(
    parts: dict[str, YamlPart], modality: Modality, task: Task
) -> Iterator[tuple[YamlPart, Corrupted | Composed]]:
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


def _key_parts(part: YamlPart, kind: str) -> dict[str, YamlPart]:
    """The items of an attack or a corruption, with the keys that it needs."""
    parts = part.items()
    if kind not in parts:
        part.fail(f"the key {kind!r} is missing")
    for key in _NEEDED[kind]:
        if key not in parts:
            part.fail(f"{kind} {parts[kind].value()!r} needs the key {key!r}")
    return parts


def _entry(part: YamlPart, modality: Modality, task: Task) -> Iterator[tuple[YamlPart, Perturbation | None]]:
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
    """The worst case of each threat model, Linf first, by eps."""
    threats = {attack.threat for attack in attacks}
    return [Worst(threat) for threat in sorted(threats, key=lambda t: (t.norm != "linf", t.norm, t.eps))]


def _with_ladder(attack: Adversarial, attacks: Sequence[Adversarial]) -> Adversarial:
    """The attack with its ladder: the smaller eps at which the suite runs the same attack."""
    same = {
        a.threat.eps
        for a in attacks
        if replace(a, threat=attack.threat) == attack and a.threat.norm == attack.threat.norm
    }
    smaller: list[Fraction] = sorted(eps for eps in same if eps < attack.threat.eps)
    return replace(attack, ladder=tuple(smaller))


def perturbations(whole: YamlPart, modality: Modality, task: Task) -> tuple[Perturbation, ...]:
    """Parses the list of perturbations; clean comes first, listed or not, and `worst` becomes one per threat model.

    Args:
        whole: the list.
        modality: of the suite.
        task: of the suite.
    """
    found: dict[str, tuple[YamlPart, Perturbation | None]] = {}
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
