"""Writes and reads one line of a record file; reading checks every field, alone and against the others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args

from rlbench.core import Modality, Mode, Record
from rlbench.core.badges import RANK
from rlbench.core.documents import load_json
from rlbench.core.errors import FieldError, find_hidden, quote
from rlbench.core.knowledge import KNOWLEDGE
from rlbench.core.validation import check_fields
from rlbench.store.flags import unpack
from rlbench.store.perturbations import from_mapping, to_mapping

FORMAT = 2  # the version of a line
MOST = 10**7  # the most examples of a cell
PASSES = 10**15  # the most passes of a cell
REQUIRED = ("protocol", "data", "anchors", "seed")  # provenance that decides whether records are comparable
_NAME, _PATH = 1000, 4096  # the most characters of a name, and of a path or sentence
_KEY = re.compile(r"[0-9a-f]{16}")
Rule = tuple[Callable[[Any], bool], str]  # whether a value is allowed, and the allowed values in words


def _is_text(value: object, most: int = _NAME) -> bool:
    return isinstance(value, str) and len(value) <= most and not find_hidden(value)


def _is_count(value: object, least: int = 0, most: int = PASSES) -> bool:
    return type(value) is int and least <= value <= most


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


_TEXT: Rule = (_is_text, "a text of one line")
_COUNT: Rule = (_is_count, "a whole number, at least 0")
_SHARE: Rule = (_is_share, "a share from 0 to 1")
# The rules of known provenance; other facts are a string, a number, true, false or null.
_PROVENANCE: dict[str, Rule] = {
    **dict.fromkeys(("protocol", "data", "anchors", "checkpoint", "device", "dtype", "torch", "numpy"), _TEXT),
    **dict.fromkeys(("python", "rlbench", "code", "loss", "label", "round", "sees"), _TEXT),
    **dict.fromkeys(("seed", "series", "training_forwards", "training_backwards"), _COUNT),
    **dict.fromkeys(("clustered_low", "clustered_high", "certified_low", "certified_high"), _SHARE),
    "training_seed": (lambda value: value is None or _is_count(value), "a whole number, at least 0, or null"),
    "classes": (lambda value: _is_count(value, 1, MOST), "a whole number, at least 1"),
    "sources": (lambda value: _is_count(value, 1, MOST), "a whole number, at least 1"),
    "seconds": (lambda value: type(value) in (int, float) and 0 <= value < 1e12, "seconds, at least 0"),
    "soundness": (lambda value: value in RANK, f"one of {', '.join(RANK)}"),
    "soundness_failed": (lambda value: _is_text(value, _PATH), "a text of one line"),
    "knowledge": (lambda value: value in KNOWLEDGE, f"one of {', '.join(KNOWLEDGE)}"),
    **dict.fromkeys(("queries", "searched_again", "broke_again", "certified"), _COUNT),
    "mode": (lambda value: value in get_args(Mode), f"one of {', '.join(get_args(Mode))}"),
}


def identity(record: Record) -> tuple[str, int, str, str]:
    """Suite, version, model and key: a file has one line for each."""
    return record.suite, record.suite_version, record.model, record.key


class OldFormat(FieldError):
    """A line of an older rlbench, which stored the perturbation as text."""

    def __init__(self) -> None:
        super().__init__(
            "records of format 1, written by an older rlbench; run the same command with --fresh, or another --out",
            "format",
        )


def to_values(record: Record) -> dict[str, Any]:
    """The record as a JSON object."""
    values = {one.name: getattr(record, one.name) for one in fields(Record)}
    own = {"perturbation": to_mapping(record.perturbation), "provenance": dict(record.provenance)}
    return values | own | {"format": FORMAT}


def to_line(record: Record) -> str:
    """The record as one line of JSON, without the line break."""
    return json.dumps(to_values(record), sort_keys=True, ensure_ascii=False, allow_nan=False)


def from_line(line: str) -> Record:
    """Parses a line.

    Raises:
        ValueError: it is not a JSON object.
        FieldError: a field is missing, unknown or wrong; `field` is its name.
        OldFormat: an older rlbench wrote it.
    """
    values = load_json(line)
    if not isinstance(values, dict):
        raise ValueError(f"it is {quote(values)}, not a JSON object")
    _check_format(values)
    if "provenance" not in values:
        raise FieldError("it needs the field 'provenance'", "provenance")
    if "perturbation" not in values:
        raise FieldError("it needs the field 'perturbation'", "perturbation")
    own = {name: value for name, value in values.items() if name != "format"}
    own["perturbation"] = from_mapping(values["perturbation"])
    record = Record(**check_fields(Record, own, ""))  # type: ignore[arg-type]
    check(record)
    return record


def _check_format(values: Mapping[str, Any]) -> None:
    if values.get("format", 1) == 1 and isinstance(values.get("perturbation"), str):
        raise OldFormat
    if "format" not in values:
        raise FieldError("it needs the field 'format'", "format")
    if type(values["format"]) is not int or values["format"] != FORMAT:
        raise FieldError(f"format is {quote(values['format'])}; this rlbench reads {FORMAT}", "format")


def check(record: Record) -> None:
    """Raises FieldError if a value is impossible, alone or together with the others."""
    _require(_KEY.fullmatch(record.key), record, "key", "16 hexadecimal digits")
    sensors = record.modality.split("+")
    fits = sensors and len(set(sensors)) == len(sensors) and set(sensors) <= set(get_args(Modality))
    _require(fits, record, "modality", f"one of {', '.join(get_args(Modality))}, or several joined by +")
    for name in ("suite", "task", "model", "backbone"):
        text = getattr(record, name)
        _require(text.strip() and _is_text(text, _PATH), record, name, "a name of one line")
    _require(_is_count(record.suite_version, 1), record, "suite_version", "a whole number, at least 1")
    _require(_is_count(record.n, 1, MOST), record, "n", f"the number of examples, 1 to {MOST:,}")
    for name in ("forwards", "backwards"):
        _require(_is_count(getattr(record, name)), record, name, "a whole number, at least 0")
    _check_counts(record)
    _check_provenance(record.provenance, record.n)


def _check_counts(record: Record) -> None:
    """A record has either counts and flags, or an error."""
    if record.error is not None:
        _require(record.error.strip(), record, "error", "what failed, or null")
        for name in ("n_correct", "flags"):
            _require(getattr(record, name) is None, record, name, "null, since the cell failed (error)")
        return
    _require(_is_count(record.n_correct, 0, record.n), record, "n_correct", f"0 to n = {record.n}, or null with error")
    _require(record.flags is not None, record, "flags", "n bits, since the cell has counts")
    right = int(unpack(record.flags or "", record.n).sum())
    if right != record.n_correct:
        raise FieldError(f"flags has {right} examples correct; n_correct says {record.n_correct}", "flags")


def _check_provenance(provenance: Mapping[str, object], n: int) -> None:
    _check_names(provenance)
    if missing := [name for name in REQUIRED if name not in provenance]:
        raise FieldError(f"provenance needs the field {missing[0]!r}", "provenance")
    for name, value in provenance.items():
        rule = _PROVENANCE.get(name)
        if rule is None and re.fullmatch(r"(x-to-[a-z]+|[a-z]+-to-x) R@\d+", name):
            rule = _SHARE
        if rule is not None and not rule[0](value):
            raise FieldError(f"provenance: {name} is {quote(value)}; it must be {rule[1]}", name)
    for name in ("clustered", "certified"):
        low, high = provenance.get(f"{name}_low"), provenance.get(f"{name}_high")
        if (low is None) != (high is None) or (low is not None and low > high):  # type: ignore[operator]
            raise FieldError(
                f"provenance: {name}_low is {low}, {name}_high {high}; they must be an interval", f"{name}_low"
            )
    for name in ("sources", "certified"):
        if isinstance(count := provenance.get(name), int) and count > n:
            raise FieldError(f"provenance: {name} is {count}; it must be at most n = {n}", name)


def _check_names(provenance: Mapping[str, object]) -> None:
    """Checks what holds for every fact: its name, its length, its size."""
    if len(provenance) > 200:
        raise FieldError(f"provenance has {len(provenance)} facts; at most 200 are allowed", "provenance")
    for name, value in provenance.items():
        odd = isinstance(value, str) and not _is_text(value, _PATH)
        if odd or not name or not _is_text(name) or (isinstance(value, int) and abs(value) > 10**18):
            raise FieldError(f"provenance: {quote(name)} is {quote(value)}; texts must be one line", name)


def _require(fits: object, record: Record, name: str, allowed: str) -> None:
    if not fits:
        raise FieldError(f"{name} is {quote(getattr(record, name))}; it must be {allowed}", name)
