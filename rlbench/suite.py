"""YAML -> Suite: every name, field, eps and severity is checked, with its line, before any weights load.

A distribution adds suites by an entry point in the group `rlbench.suites` that names a package of YAML files;
a file's stem is the suite's name. CONTRIBUTING.md and the bundled files show the format.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from rlbench import registry
from rlbench.core import Adversarial, Clean, Corrupted, Fields, Modality, Norm, Perturbation, Suite, Task, Threat, Worst
from rlbench.errors import RLBenchError, SuiteError, UnknownName
from rlbench.fields import parse_eps
from rlbench.located import Part, check_keys, parse

GROUP = "rlbench.suites"
KEYS = ("suite", "version", "summary", "modality", "task", "perturbations", "examples", "seed")
OPTIONAL = {"examples": 500, "seed": 0}
DATA_ROOT = "${RLBENCH_DATA}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SuiteInfo:
    """What a listing says of a suite, without its task."""

    name: str
    version: int
    modality: Modality
    summary: str
    path: str


def _head(whole: Part) -> tuple[SuiteInfo, dict[str, Part]]:
    parts = whole.items()
    check_keys(parts, whole, KEYS, tuple(OPTIONAL))
    name = parts["suite"].text()
    if not _NAME.fullmatch(name):
        parts["suite"].fail(f"{name!r} must be letters, digits, '.', '_' and '-'")
    modality: Any = parts["modality"].one_of("modality", get_args(Modality))
    return SuiteInfo(name, parts["version"].whole(1), modality, parts["summary"].text(), whole.path), parts


def _installed() -> Iterator[tuple[str, str, str]]:
    """(stem, path, package) of every suite file of every installed distribution."""
    for package in sorted({point.value for point in entry_points(group=GROUP)}):
        for file in sorted(files(package).iterdir(), key=lambda f: f.name):
            if file.name.endswith(".yaml"):
                yield file.name.removesuffix(".yaml"), str(file), package


def _paths() -> dict[str, str]:
    found: dict[str, str] = {}
    for stem, path, _ in _installed():
        if found.setdefault(stem, path) != path:
            raise SuiteError(f"two installed suites are named {stem!r}: {found[stem]} and {path}")
    return dict(sorted(found.items()))


def suites() -> list[SuiteInfo]:
    """Every installed suite by name; imports no task, so neither torch nor data are needed.

    Raises: SuiteError.
    """
    listed = []
    for stem, path in _paths().items():
        info, parts = _head(parse(path, Path(path).read_text(encoding="utf-8")))
        if info.name != stem:
            parts["suite"].fail(f"{info.name!r} must be the file's name, {stem!r}")
        listed.append(info)
    return listed


def _made(kind: registry.Kind, name: Part, fields: Mapping[str, Part]) -> tuple[Any, dict[str, Any]]:
    """A plugin and its fields' values; an error names the line of the field that it speaks of."""
    values = {key: part.plain() for key, part in fields.items()}
    if kind == "task" and isinstance(values.get("data"), str):
        values["data"] = _located(fields["data"], values["data"])
    try:
        return registry.make(kind, name.text(), values), values
    except RLBenchError as error:
        said = str(error)
        spoken = {
            key: re.search(rf"\b{re.escape(key)}\b", said.removeprefix(f"{kind} {name.value()!r}")) for key in fields
        }
        first = min((hit.start(), key) for key, hit in spoken.items() if hit) if any(spoken.values()) else None
        (fields[first[1]] if first else name).fail(error)


def _located(part: Part, data: str) -> str:
    """A task's data folder: below RLBENCH_DATA, or relative to the suite file."""
    if data.startswith(DATA_ROOT):
        root = os.environ.get("RLBENCH_DATA")
        if not root:
            part.fail(f"{data!r} needs RLBENCH_DATA; export RLBENCH_DATA=<the folder that holds the data packs>")
        data = root + data.removeprefix(DATA_ROOT)
    if "${" in data:
        part.fail(f"{data!r}: {DATA_ROOT} at its start is the only variable")
    return str(Path(part.path).resolve().parent / Path(data).expanduser())


def _task(part: Part, modality: Modality) -> tuple[str, Task]:
    """The task, and the name that records and tables give it: with its folder's name where it reads one."""
    parts = part.items()
    if "name" not in parts:
        part.fail("the key 'name' is missing")
    name = parts.pop("name")
    task, values = _made("task", name, parts)
    if task.modality != modality:
        name.fail(f"task {name.text()!r} is {task.modality}; the suite's modality is {modality}")
    return f"{name.text()}:{Path(values['data']).name}" if "data" in values else name.text(), task


def _changed(kind: registry.Kind, name: str, values: Mapping[str, Any]) -> Fields:
    """The (name, value) pairs that differ from the plugin's defaults, sorted."""
    known = inspect.signature(registry.factory(kind, name)).parameters
    return tuple(sorted((key, value) for key, value in values.items() if value != known[key].default))


def _attacks(parts: dict[str, Part]) -> Iterator[tuple[Part, Perturbation]]:
    names, norm, eps = (parts.pop(key) for key in ("attack", "norm", "eps"))
    kind: Any = norm.one_of("norm", get_args(Norm))
    for name in names.each():
        fields = _changed("attack", name.text(), _made("attack", name, parts)[1])
        for each in eps.each():
            try:
                threat = Threat(kind, parse_eps(each.value()))
            except RLBenchError as error:
                each.fail(str(error).removeprefix("eps is "))
            yield each, Adversarial(name.text(), threat, fields)


def _corruptions(parts: dict[str, Part], modality: Modality) -> Iterator[tuple[Part, Perturbation]]:
    names, severity = parts.pop("corruption"), parts.pop("severity")
    for name in names.each():
        corruption, values = _made("corruption", name, parts)
        if modality not in corruption.modalities:
            able = ", ".join(sorted(corruption.modalities))
            name.fail(f"corruption {name.text()!r} is for {able}; the suite's modality is {modality}")
        fields = _changed("corruption", name.text(), values)
        for each in severity.each():
            yield each, Corrupted(name.text(), each.whole(1, 5), fields)


def _entry(part: Part, modality: Modality) -> Iterator[tuple[Part, Perturbation | None]]:
    """The perturbations of one entry of the list; None stands for `worst`, which needs all the others."""
    if part.is_scalar:
        word = part.one_of("perturbation", ("clean", "worst"))
        yield part, (Clean() if word == "clean" else None)
        return
    parts = part.items()
    what = [key for key in ("attack", "corruption") if key in parts]
    if len(what) != 1:
        part.fail("an entry is clean, worst, {attack: ..., norm: ..., eps: ...} or {corruption: ..., severity: ...}")
    for key in ("norm", "eps") if what == ["attack"] else ("severity",):
        if key not in parts:
            part.fail(f"{what[0]} {parts[what[0]].value()!r} needs the key {key!r}")
    yield from _attacks(parts) if what == ["attack"] else _corruptions(parts, modality)


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


def _perturbations(whole: Part, modality: Modality) -> tuple[Perturbation, ...]:
    """Clean first, whether or not it is listed; `worst` becomes one column per threat model."""
    found: dict[str, tuple[Part, Perturbation | None]] = {}
    for entry in whole.each():
        for part, one in _entry(entry, modality):
            if str(one or "worst") in found:
                part.fail(f"{str(one or 'worst')!r} stands twice")
            found[str(one or "worst")] = part, one
    attacks = [one for _, one in found.values() if isinstance(one, Adversarial)]
    columns: list[Perturbation] = [Clean()]
    for part, one in found.values():
        if one is None and not attacks:
            part.fail("'worst' needs at least one attack")
        if isinstance(one, Adversarial):
            columns.append(_with_ladder(one, attacks))
        elif not isinstance(one, Clean):
            columns += _worst(attacks) if one is None else [one]
    return tuple(columns)


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """A suite by its name among the installed ones, or from a file that ends in .yaml or .yml.

    Raises:
        UnknownName: no installed suite has this name.
        SuiteError: the file is missing or wrong: `file.yaml:LINE: key: what is allowed`.
    """
    path = str(name)
    if not path.endswith((".yaml", ".yml")):
        known = _paths()
        if path not in known:
            raise UnknownName("suite (or .yaml file)", path, known)
        path = known[path]
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: can't read the suite file: {getattr(error, 'strerror', None) or error}") from None
    info, parts = _head(parse(path, text))
    task_name, task = _task(parts["task"], info.modality)
    numbers = {key: parts[key].whole(int(key == "examples")) if key in parts else OPTIONAL[key] for key in OPTIONAL}
    return Suite(
        name=info.name,
        version=info.version,
        summary=info.summary,
        modality=info.modality,
        task_name=task_name,
        task=task,
        perturbations=_perturbations(parts["perturbations"], info.modality),
        path=path,
        **numbers,
    )
