"""Parses a suite's perturbations; checks every name, field, eps and severity, with its line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any, get_args

from rlbench.core import (
    Adversarial,
    Clean,
    Composed,
    Corrupted,
    Edited,
    Fields,
    Missing,
    Perturbation,
    Surrogate,
    Task,
    Worst,
    registry,
)
from rlbench.core.attacked_sensors import Attacked, Scope, parse_part, parse_threat, scope_of
from rlbench.core.errors import RLBenchError
from rlbench.core.perturbation_types import TextLevel
from rlbench.core.sensors import SensorTask
from rlbench.core.threat import norms_of, parse_norm
from rlbench.core.yaml_source import YamlPart, check_keys

_MODEL = re.compile(r"[^\s()]{1,200}")
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


def _attacks(parts: dict[str, YamlPart], scope: Scope, whole: YamlPart) -> Iterator[tuple[YamlPart, Adversarial]]:
    """The attacks of an entry: one per name, choice of sensors and eps."""
    places = scope.take(parts, whole)
    names, norm, eps = (parts.pop(key) for key in ("attack", "norm", "eps"))
    surrogates = _surrogates(parts.pop("from", None))
    kind = parse_part(norm, parse_norm, norm.value())
    for name in names.each():
        plugin, fields = _plugin("attack", name, parts)
        if kind not in norms_of(plugin):
            norm.fail(f"attack {name.text()!r} is for {', '.join(sorted(norms_of(plugin)))}; choose another")
        if kind == "l0" and scope.sensors:
            norm.fail("l0 is for tasks with one sensor; choose linf or l2")
        for place, surrogate in product(places, surrogates):
            _check_reach(name, plugin, place)
            for each in eps.each():
                threat = parse_threat(each, kind, place, scope.sensors)
                yield each, Adversarial(name.text(), threat, fields, surrogate=surrogate)


def _surrogates(part: YamlPart | None) -> list[Surrogate | None]:
    """The models of the key `from`; [None] without it. Only a plan can tell whether there are such models."""
    if part is None:
        return [None]
    for one in part.each():
        if not _MODEL.fullmatch(one.text()):
            one.fail(f"{one.text()!r} must be a model's name, such as languagebind")
    return [Surrogate(one.text()) for one in part.each()]


def _check_reach(name: YamlPart, plugin: object, place: Attacked) -> None:
    """An attack that moves several sensors at once must be a gradient attack of the pool."""
    moves_all = hasattr(plugin, "search") and not getattr(plugin, "leaves_ball", False)
    if len(place.sensors) > 1 and place.reach != "any 1" and not moves_all:
        name.fail(
            f"attack {name.text()!r} moves one sensor at a time; give one sensor, each or any 1, or choose apgd-ce, "
            "apgd-t, adaptive or pgd"
        )


def _corruptions(
    parts: dict[str, YamlPart], scope: Scope, whole: YamlPart
) -> Iterator[tuple[YamlPart, Corrupted | Composed]]:
    """The corruptions of an entry, each alone, or each with the attacks of its `then`."""
    places = scope.take(parts, whole, words=("all", "each"))
    names, severity, then = parts.pop("corruption"), parts.pop("severity"), parts.pop("then", None)
    for name in names.each():
        corruption, fields = _plugin("corruption", name, parts)
        for place in places:
            for modality, task in _seen(scope, place):
                _check_corruption(name, corruption, modality, task)
            for each in severity.each():
                one = Corrupted(name.text(), each.whole(1, 5), fields, place.sensors)
                yield from [(each, one)] if then is None else _then(then, one, scope)


def _seen(scope: Scope, place: Attacked) -> list[tuple[str, Task]]:
    """The modalities and tasks that a corruption of these sensors acts on."""
    if isinstance(scope.task, SensorTask):
        return [(sensor, task) for sensor, task in scope.task.tasks.items() if sensor in place.sensors]
    return [(scope.modality, scope.task)]


def _check_corruption(name: YamlPart, corruption: Any, modality: str, task: Task) -> None:
    if not isinstance(modalities := getattr(corruption, "modalities", None), Set) or not modalities:
        name.fail(f"corruption {name.text()!r} must say what it is for: modalities = frozenset({{{modality!r}}})")
    if modality not in modalities:
        able = ", ".join(sorted(modalities))
        name.fail(f"corruption {name.text()!r} is for {able}; the suite's modality is {modality}")
    if getattr(corruption, "acts_on", "") == "waveform" and not hasattr(task, "waves"):
        name.fail(f"corruption {name.text()!r} acts on waveforms, which the task does not have; choose another")
    if (views := getattr(task, "views", 1)) > 1:
        name.fail(f"corruption {name.text()!r} is for whole clips, not {views} views; set views: 1")


def _then(then: YamlPart, before: Corrupted | Missing | Edited, scope: Scope) -> Iterator[tuple[YamlPart, Composed]]:
    """The attacks on a corrupted input, or on one whose classes have other texts."""
    for part, attack in _attacks(_key_parts(then, "attack"), scope, then):
        yield part, Composed(before, attack)


def _missing(
    parts: dict[str, YamlPart], scope: Scope, whole: YamlPart
) -> Iterator[tuple[YamlPart, Missing | Composed]]:
    """An entry with missing sensors, alone or with the attacks of its `then`."""
    part, then = parts["missing"], parts.get("then")
    check_keys(parts, whole, ("missing", "then"), ("then",))
    if not scope.sensors:
        part.fail(f"the suite has one sensor, {scope.modality}; none of it can be missing")
    for sensors, _ in scope.read(part, ("each",)):
        if sensors == scope.sensors:
            part.fail("all sensors are missing; leave at least one")
        one = Missing(sensors)
        yield from [(part, one)] if then is None else _then(then, one, scope.without(sensors))


def _texts(parts: dict[str, YamlPart], scope: Scope, whole: YamlPart) -> Iterator[tuple[YamlPart, Edited | Composed]]:
    """An entry with texts that an attacker chooses, alone or with the attacks of its `then`."""
    part, edits, then = parts["text"], parts.get("edits"), parts.get("then")
    check_keys(parts, whole, ("text", "edits", "then"), ("edits", "then"))
    if scope.sensors:
        part.fail("a suite with several sensors has no edits of texts; give it one modality")
    levels: list[Any] = [one.one_of("level", get_args(TextLevel)) for one in part.each()]
    if edits is not None and set(levels) == {"template"}:
        edits.fail("a template has no edits; leave this key out")
    for one, level in zip(part.each(), levels, strict=True):
        if edits is None and level != "template":
            one.fail(f"{level} needs the key 'edits', such as edits: 1")
        counts = [(one, 0)] if edits is None or level == "template" else [(k, k.whole(1)) for k in edits.each()]
        for at, count in counts:
            edited = Edited(level, count)
            yield from [(at, edited)] if then is None else _joint(then, edited, scope)


def _joint(then: YamlPart, edited: Edited, scope: Scope) -> Iterator[tuple[YamlPart, Composed]]:
    """The attacks on texts and input; each searches for every input by itself."""
    for part, one in _then(then, edited, scope):
        if is_universal(one.adversarial):
            then.fail(
                f"attack {one.adversarial.attack!r} makes one perturbation for all inputs; choose another one here"
            )
        yield part, one


def _key_parts(part: YamlPart, kind: str) -> dict[str, YamlPart]:
    """The items of an attack or a corruption, with the keys that it needs."""
    parts = part.items()
    if kind not in parts:
        part.fail(f"the key {kind!r} is missing")
    for key in _NEEDED.get(kind, ()):
        if key not in parts:
            part.fail(f"{kind} {parts[kind].value()!r} needs the key {key!r}")
    return parts


def _entry(part: YamlPart, scope: Scope) -> Iterator[tuple[YamlPart, Perturbation | None]]:
    """The perturbations of one entry of the list; None stands for `worst`, which needs all the others."""
    if part.is_scalar:
        word = part.one_of("perturbation", ("clean", "worst"))
        yield part, (Clean() if word == "clean" else None)
        return
    kinds = {"attack": _attacks, "corruption": _corruptions, "missing": _missing, "text": _texts}
    what = [key for key in kinds if key in part.items()]
    if len(what) != 1:
        missing = ", {missing: ...}" if scope.sensors else ", {text: ...}"
        part.fail(
            "an entry is clean, worst, {attack: ..., norm: ..., eps: ...} or {corruption: ..., severity: ...}"
            f"{missing}, which may have then: {{attack: ...}}"
        )
    yield from kinds[what[0]](_key_parts(part, what[0]), scope, part)


def _worst(attacks: Sequence[Adversarial], composed: Sequence[Composed]) -> list[Worst]:
    """The worst case of each threat model, Linf first, by eps; then that of each choice of texts together with it."""
    found = [(attack.threat, None) for attack in attacks]
    joint = [(one.adversarial.threat, one.corrupted) for one in composed if isinstance(one.corrupted, Edited)]
    worst = {Worst(threat, text=text) for threat, text in (*found, *joint)}

    def turn(one: Worst) -> tuple[object, ...]:
        return str(one.text or ""), one.threat.norm != "linf", one.threat.norm, one.threat.place, one.threat.eps

    return sorted(worst, key=turn)


def is_universal(attack: Adversarial) -> bool:
    """Whether an attack makes one perturbation for all examples."""
    return bool(getattr(registry.make("attack", attack.attack, attack.fields), "universal", False))


def _with_ladder(attack: Adversarial, attacks: Sequence[Adversarial]) -> Adversarial:
    """The attack with its ladder: the smaller eps at which the suite runs the same attack, on any sensors.

    A universal attack has none: what breaks an example must be the one perturbation of its own eps.
    """
    if attack.threat.by_sensor or is_universal(attack):
        return attack
    same = {
        a.threat.eps
        for a in attacks
        if replace(a, threat=attack.threat) == attack and a.threat.norm == attack.threat.norm and not a.threat.by_sensor
    }
    smaller: list[Fraction] = sorted(eps for eps in same if eps < attack.threat.eps)
    return replace(attack, ladder=tuple(smaller))


def perturbations(whole: YamlPart, modality: str, task: Task) -> tuple[Perturbation, ...]:
    """Parses the list of perturbations; clean comes first, listed or not, and `worst` becomes one per threat model.

    Args:
        whole: the list.
        modality: of the suite.
        task: of the suite.
    """
    scope = scope_of(modality, task)
    found: dict[str, tuple[YamlPart, Perturbation | None]] = {}
    for entry in whole.each():
        for part, one in _entry(entry, scope):
            if str(one or "worst") in found:
                part.fail(f"{str(one or 'worst')!r} appears twice")
            found[str(one or "worst")] = part, one
    attacks = [one for _, one in found.values() if isinstance(one, Adversarial)]
    composed = [one for _, one in found.values() if isinstance(one, Composed)]
    columns: list[Perturbation] = [Clean()]
    worst = _worst(attacks, composed)
    for part, one in found.values():
        if one is None and not worst:
            part.fail("'worst' needs at least one attack")
        if isinstance(one, Adversarial):
            columns.append(_with_ladder(one, attacks))
        elif isinstance(one, Composed):
            same = [other.adversarial for other in composed if other.corrupted == one.corrupted]
            columns.append(replace(one, adversarial=_with_ladder(one.adversarial, same)))
        elif not isinstance(one, Clean):
            columns += worst if one is None else [one]
    return tuple(columns)
