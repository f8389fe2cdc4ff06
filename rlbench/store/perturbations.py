"""Converts perturbations to JSON or data frame columns, and back. Their text is for people: nothing parses it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

from rlbench.core import (
    Adversarial,
    Clean,
    Composed,
    Corrupted,
    Edited,
    Field,
    Fields,
    Missing,
    Mode,
    Norm,
    Perturbation,
    Surrogate,
    Threat,
    Worst,
)
from rlbench.core.errors import FieldError, find_hidden, quote
from rlbench.core.knowledge import KNOWLEDGE
from rlbench.core.perturbation_types import Reach, TextLevel
from rlbench.core.precision import PRECISION

_THREAT = ("norm", "eps", "mode", "sensors", "reach", "eps_by_sensor", "knowledge", "precision")
_ATTACK = ("attack", "fields", "surrogate", *_THREAT)
_CORRUPTION = ("corruption", "severity", "corruption_fields")
_TEXT = ("text", "edits")
KINDS = {  # the fields that each kind may have
    "clean": (),
    "adversarial": _ATTACK,
    "corrupted": (*_CORRUPTION, "sensors"),
    "missing": ("missing",),
    "edited": _TEXT,
    "composed": (*_CORRUPTION, "corruption_sensors", "missing", *_TEXT, *_ATTACK),
    "worst": (*_TEXT, *_THREAT),
}
COLUMNS = ("kind", "attack", "fields", "norm", "eps", "corruption", "severity", "corruption_fields", "mode")
MORE = ("knowledge", "precision", "surrogate")  # further columns, of attacks
JOINT = ("sensors", "reach", "eps_by_sensor", "corruption_sensors", "missing")  # further columns, of several sensors
_NAME = re.compile(r"[^\s()]{1,200}")
_EPS = re.compile(r"[0-9]{1,60}(?:/0*[1-9][0-9]{0,59})?")


def simplify(p: Perturbation) -> Perturbation:
    """The perturbation as records store it: without ladders, a surrogate's weights, and the attacks of a cascade."""
    if isinstance(p, Composed):
        return replace(p, adversarial=_simplify_attack(p.adversarial))
    if isinstance(p, Adversarial):
        return _simplify_attack(p)
    return replace(p, attacks=()) if isinstance(p, Worst) else p


def _simplify_attack(attack: Adversarial) -> Adversarial:
    named = Surrogate(attack.surrogate.name) if attack.surrogate else None
    return replace(attack, ladder=(), surrogate=named)


def is_bound(p: Perturbation) -> bool:
    """Whether examples that survive a larger eps count as surviving this one, so that accuracies are upper bounds."""
    if isinstance(p, Worst):
        return p.mode == "descending"
    attack = p.adversarial if isinstance(p, Composed) else p
    return isinstance(attack, Adversarial) and attack.descending


def to_mapping(p: Perturbation) -> dict[str, Any]:
    """A perturbation as a JSON object: its kind and its nonempty fields; eps is an exact fraction such as "4/255".

    Args:
        p: as `simplify` returns it; ladders and a cascade's attacks are not stored.
    """
    kind = type(p).__name__.lower()
    if isinstance(p, Missing):
        return {"kind": kind, "missing": list(p.sensors)}
    if isinstance(p, Composed):
        before = {name: value for name, value in to_mapping(p.corrupted).items() if name != "kind"}
        if "sensors" in before:
            before["corruption_sensors"] = before.pop("sensors")
        return {"kind": kind, **before, **_attack_fields(p.adversarial)}
    if isinstance(p, Edited):
        return {"kind": kind, **_text_fields(p)}
    if isinstance(p, Corrupted):
        return {"kind": kind, **_corruption_fields(p)}
    if isinstance(p, Adversarial):
        return {"kind": kind, **_attack_fields(p)}
    if not isinstance(p, Worst):
        return {"kind": kind}
    return {"kind": kind, **(_text_fields(p.text) if p.text else {}), **_threat_fields(p.threat, p.mode)}


def _text_fields(p: Edited) -> dict[str, Any]:
    return {"text": p.text} | ({"edits": p.edits} if p.edits else {})


def _corruption_fields(p: Corrupted) -> dict[str, Any]:
    found: dict[str, Any] = {"corruption": p.corruption, "severity": p.severity}
    found |= {"corruption_fields": dict(p.fields)} if p.fields else {}
    return found | ({"sensors": list(p.sensors)} if p.sensors else {})


def _attack_fields(p: Adversarial) -> dict[str, Any]:
    more: dict[str, Any] = {"fields": dict(p.fields)} if p.fields else {}
    more |= {"surrogate": p.surrogate.name} if p.surrogate else {}
    return {"attack": p.attack, **more, **_threat_fields(p.threat, "descending" if p.descending else "standalone")}


def _threat_fields(threat: Threat, mode: Mode) -> dict[str, Any]:
    found: dict[str, Any] = {"norm": threat.norm, "eps": str(threat.eps)}
    found |= {"mode": mode} if mode != "standalone" else {}
    found |= {"knowledge": threat.knowledge} if threat.knowledge != "white-box" else {}
    found |= {"precision": threat.precision} if threat.precision != "fp32" else {}
    found |= {"sensors": list(threat.sensors)} if threat.sensors else {}
    found |= {"reach": threat.reach} if threat.reach else {}
    return found | ({"eps_by_sensor": list(map(str, threat.by_sensor))} if threat.by_sensor else {})


def from_mapping(values: object) -> Perturbation:
    """The inverse of `to_mapping`.

    Args:
        values: a JSON value.

    Raises:
        FieldError: it is not an object, or one of its fields is wrong, missing or unknown.
    """
    if not isinstance(values, dict):
        raise FieldError(
            f"perturbation is {quote(values)}; it must be an object such as {{kind: clean}}", "perturbation"
        )
    kind = values.get("kind")
    _require(isinstance(kind, str) and kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    assert isinstance(kind, str)
    for name in values:
        if name not in ("kind", *KINDS[kind]):
            allowed = ", ".join(KINDS[kind]) or "none"
            raise FieldError(f"perturbation: {kind} has no field {quote(name)}; allowed: {allowed}", "perturbation")
    if kind == "clean":
        return Clean()
    if kind == "missing":
        return _read_missing(values)
    if kind == "corrupted":
        return _read_corruption(values, "sensors")
    if kind == "worst":
        text = _read_text(values) if "text" in values else None
        return Worst(_read_threat(values), (), _read_mode(values, get_args(Mode)), text)
    if kind == "edited":
        return _read_text(values)
    mode = _read_mode(values, ("standalone", "descending"))
    name, fields = _read_name(values, "attack"), _read_fields(values, "fields")
    of = Surrogate(_read_name(values, "surrogate")) if "surrogate" in values else None
    adversarial = Adversarial(name, _read_threat(values), fields, descending=mode == "descending", surrogate=of)
    if kind == "adversarial":
        return adversarial
    if "missing" in values:
        return Composed(_read_missing(values), adversarial)
    if "text" in values:
        return Composed(_read_text(values), adversarial)
    return Composed(_read_corruption(values, "corruption_sensors"), adversarial)


def _require(fits: object, name: str, value: object, allowed: str) -> None:
    if not fits:
        raise FieldError(f"perturbation: {name} is {quote(value)}; it must be {allowed}", "perturbation")


def _read_missing(values: Mapping[str, Any]) -> Missing:
    sensors = _read_sensors(values, "missing")
    _require(sensors, "missing", values.get("missing"), "a list of sensors, at least one")
    return Missing(sensors)


def _read_text(values: Mapping[str, Any]) -> Edited:
    level, edits = values.get("text"), values.get("edits", 0)
    _require(level in get_args(TextLevel), "text", level, f"one of {', '.join(get_args(TextLevel))}")
    least = int(level != "template")
    allowed = "a whole number, at least 1; 0 for templates"
    _require(type(edits) is int and least <= edits <= 1000 * least, "edits", edits, allowed)
    return Edited(level, edits)  # type: ignore[arg-type]


def _read_corruption(values: Mapping[str, Any], sensors: str) -> Corrupted:
    name, severity = _read_name(values, "corruption"), values.get("severity")
    _require(type(severity) is int and 1 <= severity <= 5, "severity", severity, "1 to 5")
    assert isinstance(severity, int)
    return Corrupted(name, severity, _read_fields(values, "corruption_fields"), _read_sensors(values, sensors))


def _read_threat(values: Mapping[str, Any]) -> Threat:
    norm, sensors = values.get("norm"), _read_sensors(values, "sensors")
    _require(norm in get_args(Norm), "norm", norm, f"one of {', '.join(get_args(Norm))}")
    eps, each = _read_eps(values.get("eps"), "eps"), values.get("eps_by_sensor", [])
    counts = isinstance(each, list) and len(each) in (0, len(sensors))
    _require(counts, "eps_by_sensor", each, "a list of one fraction per sensor")
    by_sensor = tuple(_read_eps(one, "eps_by_sensor") for one in each)
    _require(not by_sensor or max(by_sensor) == eps, "eps", str(eps), "the largest of eps_by_sensor")
    reach = values.get("reach", "")
    _require(reach in get_args(Reach) and (sensors or not reach), "reach", reach, "all or any 1, of sensors")
    knowledge = values.get("knowledge", "white-box")
    _require(knowledge in KNOWLEDGE, "knowledge", knowledge, f"one of {', '.join(KNOWLEDGE)}")
    precision = values.get("precision", "fp32")
    _require(precision in PRECISION, "precision", precision, f"one of {', '.join(PRECISION)}")
    return Threat(norm, eps, sensors, knowledge, reach, by_sensor, precision)  # type: ignore[arg-type]


def _read_eps(eps: object, name: str) -> Fraction:
    whole = isinstance(eps, str) and eps.isascii() and _EPS.fullmatch(eps)
    _require(whole, name, eps, "a fraction in quotes, such as 4/255")
    return Fraction(str(eps))


def _read_mode(values: Mapping[str, Any], allowed: tuple[str, ...]) -> Mode:
    mode = values.get("mode", "standalone")
    _require(mode in allowed, "mode", mode, f"one of {', '.join(allowed)}")
    return mode  # type: ignore[no-any-return]


def _read_name(values: Mapping[str, Any], field: str) -> str:
    name = values.get(field)
    _require(_is_text(name) and _NAME.fullmatch(str(name)), field, name, "a name without spaces")
    return str(name)


def _read_fields(values: Mapping[str, Any], field: str) -> Fields:
    found = values.get(field, {})
    good = isinstance(found, dict) and all(_is_text(k) and _is_value(v) for k, v in found.items())
    _require(good, field, found, "an object of texts, numbers, true, false or null")
    return tuple(sorted(found.items()))


def _read_sensors(values: Mapping[str, Any], field: str) -> tuple[str, ...]:
    found = values.get(field, [])
    _require(isinstance(found, list) and all(map(_is_text, found)), field, found, "a list of names")
    return tuple(found)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000 and not find_hidden(value)


def _is_value(value: object) -> bool:
    return _is_text(value) or value in (None, "") or isinstance(value, int | float)


def to_columns(p: Perturbation) -> dict[str, Field]:
    """A perturbation as COLUMNS of a data frame: eps as a float, fields as JSON text, None for missing ones.

    Attacks on a black box also have the column `knowledge`, those that do not search in float32 `precision`, those on
    another model `surrogate`, choices of texts `text` and maybe `edits`, and perturbations of several sensors some of
    JOINT.
    """
    found = to_mapping(p)
    mode = "standalone" if "norm" in found else None
    columns = {name: found.get(name, mode if name == "mode" else None) for name in COLUMNS}
    fields = {
        name: json.dumps(found[name], sort_keys=True) for name in ("fields", "corruption_fields") if name in found
    }
    known: dict[str, Field] = {name: found[name] for name in (*MORE, *_TEXT) if name in found}
    known |= {name: json.dumps(found[name]) for name in JOINT if name in found}
    return columns | fields | known | ({"eps": float(Fraction(found["eps"]))} if "eps" in found else {})


def from_columns(row: Mapping[str, Any]) -> Perturbation:
    """The inverse of `to_columns`; eps becomes the nearest fraction with a denominator up to 10^6.

    Args:
        row: by column; None for a missing value.

    Raises:
        FieldError: a value is wrong.
    """
    found = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    for name in MORE:
        if "norm" in found and row.get(name) is not None:  # of other kinds, it is provenance
            found[name] = row[name]
    found |= {name: json.loads(row[name]) for name in JOINT if row.get(name) is not None}
    found |= {name: row[name] for name in _TEXT if row.get(name) is not None}
    for name in ("fields", "corruption_fields"):
        if name in found:
            found[name] = json.loads(found[name])
    if "eps" in found:
        found["eps"] = str(Fraction(found["eps"]).limit_denominator(10**6))
    for name in ("severity", "edits"):
        if name in found:
            found[name] = int(found[name])
    return from_mapping(found)
