"""Loads suites from YAML; checks every name, field, eps and severity, with its line, before any weights load.

A distribution adds suites by an entry point in the group `rlbench.suites` that names a package of YAML files; a file's
stem is the suite's name. The bundled files in `suites/` show the format.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

from rlbench.core import Composed, Missing, Modality, Suite, Task, registry
from rlbench.core.documents import expand_user
from rlbench.core.errors import RLBenchError, SuiteError, UnknownName, quote
from rlbench.core.perturbations import make_plugin, perturbations
from rlbench.core.precision import PRECISION
from rlbench.core.sensors import SensorTask
from rlbench.core.threat import search_in
from rlbench.core.yaml_source import YamlPart, check_keys, read

GROUP = "rlbench.suites"
HEAD = ("suite", "version", "summary")
BODY = ("modality", "task", "perturbations")
SEVERAL = ("modality", "tasks", "perturbations")  # of a part with several tasks
OPTIONAL = {"examples": 500, "seed": 0}
KEYS = (*OPTIONAL, "precision")  # the optional ones
FUSION = "sum"
DATA_ROOT = "${RLBENCH_DATA}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SuiteInfo:
    """A suite as listings show it.

    Attributes:
        name: the stem of its file.
        version: raised when its results change.
        modality: of its task, or its sensors as in `image+audio`; several parts separated by commas.
        summary: one line.
        path: its file.
    """

    name: str
    version: int
    modality: str
    summary: str
    path: str


@dataclass(frozen=True)
class _Part:
    """A part of a suite: its keys, and its modality or its sensors."""

    keys: Mapping[str, YamlPart]
    sensors: tuple[Modality, ...]

    @property
    def modality(self) -> str:
        return "+".join(self.sensors)

    @property
    def fusions(self) -> list[YamlPart | None]:
        """The fusions of a part with several sensors; otherwise, or by default, None."""
        return [*self.keys["fusion"].each()] if "fusion" in self.keys else [None]


def _body(keys: Mapping[str, YamlPart]) -> tuple[str, ...]:
    """The keys of a part with one task, or with several; of one modality, or of several sensors."""
    body = SEVERAL if "tasks" in keys else BODY
    return ("sensors", "fusion", *body[1:]) if "sensors" in keys else body


def _read_part(keys: Mapping[str, YamlPart], before: list[_Part]) -> _Part:
    """A part, which must differ from those before."""
    part = keys["sensors"] if "sensors" in keys else keys["modality"]
    each = part.each() if "sensors" in keys else [part]
    named: list[Any] = [one.one_of("modality", get_args(Modality)) for one in each]
    for k, one in enumerate(each):
        if named[k] in named[:k]:
            one.fail(f"{named[k]!r} appears twice")
    if "sensors" in keys and len(named) < 2:
        part.fail(f"{named[0]!r} is one sensor; give two or more, or modality: {named[0]}")
    new = _Part(keys, tuple(named))
    if len(named) == 1 and any(other.sensors == new.sensors for other in before):
        part.fail(f"{new.modality!r} appears twice; a suite has one part per modality")
    return new


def _head(whole: YamlPart) -> tuple[SuiteInfo, dict[str, YamlPart], list[_Part]]:
    """A file's description, its keys, and its part, or each of its `parts`."""
    keys = whole.items()
    several = "parts" in keys
    check_keys(keys, whole, (*HEAD, *(("parts",) if several else _body(keys)), *KEYS), (*KEYS, "fusion"))
    name = keys["suite"].text()
    if not _NAME.fullmatch(name):
        keys["suite"].fail(f"{quote(name)} must be letters, digits, '.', '_' and '-'")
    parts: list[_Part] = []
    for part in keys["parts"].each() if several else [whole]:
        body = part.items()
        if several:
            check_keys(body, part, _body(body), (*KEYS, "fusion"))
        parts.append(_read_part(body, parts))
    modalities = ", ".join(dict.fromkeys(part.modality for part in parts))
    about = SuiteInfo(name, keys["version"].whole(1), modalities, keys["summary"].text(), whole.path)
    return about, keys, parts


def _list_installed() -> Iterator[tuple[str, str, str]]:
    """(stem, path, package) of every suite file of every installed distribution."""
    for package in sorted({point.value for point in entry_points(group=GROUP)}):
        for file in sorted(files(package).iterdir(), key=lambda f: f.name):
            if file.name.endswith(".yaml"):
                yield file.name.removesuffix(".yaml"), str(file), package


def _paths() -> dict[str, str]:
    found: dict[str, str] = {}
    for stem, path, _ in _list_installed():
        if found.setdefault(stem, path) != path:
            raise SuiteError(f"two installed suites are named {stem!r}: {found[stem]} and {path}")
    return dict(sorted(found.items()))


def suites() -> list[SuiteInfo]:
    """Every installed suite by name; imports no task, so it needs neither torch nor data.

    Raises:
        SuiteError: a suite's file is wrong, or two suites share a name.
    """
    found = []
    for stem, path in _paths().items():
        info, keys, _ = _head(read(path))
        if info.name != stem:
            keys["suite"].fail(f"{info.name!r} must be the file's name, {stem!r}")
        found.append(info)
    return found


def _locate_data(part: YamlPart, data: str) -> str:
    """A task's data folder: under RLBENCH_DATA, or relative to the suite file."""
    if data.startswith(DATA_ROOT):
        root = os.environ.get("RLBENCH_DATA")
        if not root:
            part.fail(f"{quote(data)} needs RLBENCH_DATA; export RLBENCH_DATA=<the folder that holds your data>")
        data = root + data.removeprefix(DATA_ROOT)
    if "${" in data:
        part.fail(f"{quote(data)}: the only variable is {DATA_ROOT}, at the start")
    try:
        return str(Path(part.path).resolve().parent / expand_user(data))
    except RLBenchError as error:
        part.fail(error)


def _task(part: YamlPart, modality: Modality, *, among: bool = False) -> tuple[str, Task]:
    """A task and its name in records and tables, which includes its folder's name and its form.

    A task's field `modality` gets the suite's, if the file does not give it.

    Args:
        part: the task in the file.
        modality: of the suite.
        among: whether it is one of several sensors, whose names are in the fused task's.
    """
    parts = part.items()
    if "name" not in parts:
        part.fail("the key 'name' is missing")
    name = parts.pop("name")
    values = {key: part.value() for key, part in parts.items()}
    for key in ("data", "root"):
        if isinstance(values.get(key), str):
            values[key] = _locate_data(parts[key], values[key])
    known = name.text() in registry.names("task")
    if known and "modality" in inspect.signature(registry.factory("task", name.text())).parameters:
        values.setdefault("modality", modality)
    task = make_plugin("task", name, parts, values)
    if task.modality != modality:
        name.fail(f"task {name.text()!r} is {task.modality}; the suite's modality is {modality}")
    folder = f":{Path(values['data']).name}" if "data" in values else ""
    return f"{name.text()}{folder}{'' if among else getattr(task, 'form', '')}", task


def _sensor_task(part: YamlPart, sensors: tuple[Modality, ...]) -> tuple[str, Task]:
    """A task of several sensors: one source of data for all, or a mapping with the task of each."""
    given = part.items()
    each = {sensor: part if "name" in given else given.get(sensor) for sensor in sensors}
    if "name" not in given:
        check_keys(given, part, sensors)
    found = {sensor: _task(own, sensor, among=True) for sensor, own in each.items() if own is not None}
    task = SensorTask({sensor: one for sensor, (_, one) in found.items()})
    try:
        task.check()
    except RLBenchError as error:
        part.fail(error)
    return "+".join(dict.fromkeys(name for name, _ in found.values())), cast(Task, task)


def _check_fusion(part: YamlPart | None, body: _Part, suite: Suite) -> None:
    """Checks that a fusion gets as many sensors as it needs, also where some are missing."""
    at = part or body.keys["sensors"]
    least = int(getattr(make_plugin("fusion", at, {}, {}) if part else registry.make("fusion", FUSION), "least", 1))
    missing = [p.corrupted if isinstance(p, Composed) else p for p in suite.perturbations]
    gone = [one for one in missing if isinstance(one, Missing)]
    n = len(suite.sensors)
    for what, left in [("the part has", n), *((f"{str(one)!r} leaves", n - len(one.sensors)) for one in gone)]:
        if left < least:
            remedy = "give more sensors, or choose another fusion such as 'sum'"
            at.fail(f"fusion {suite.fusion!r} needs {least} sensors; {what} {left}; {remedy}")


def load_suites(name: str | os.PathLike[str]) -> list[Suite]:
    """Loads a suite's parts, one Suite per modality and task.

    Args:
        name: an installed suite, or a path that ends in .yaml or .yml; `NAME:MODALITY` selects the tasks of one
            modality, and `NAME:TASK` one task, such as image-clip13:wds/vtab/pets.

    Raises:
        UnknownName: no installed suite has this name, or it has no such part.
        SuiteError: the file is missing or wrong: `file.yaml:LINE: key: what is allowed`.
    """
    path, _, wanted = str(name).partition(":")
    if not path.endswith((".yaml", ".yml")):
        if path not in (known := _paths()):
            near = [own] if Path(own := f"{path}.yaml").is_file() else [*known]
            raise UnknownName("suite (or .yaml file)", path, near, see="rlbench list suites and rlbench new suite")
        path = known[path]
    info, keys, parts = _head(read(path))
    chosen = [part for part in parts if wanted == part.modality] or parts
    found = [suite for part in chosen for suite in _suites(info, keys, part)]
    _check_distinct(found)
    bodies = dict.fromkeys(part.modality for part in parts)
    if wanted in ("", *bodies):
        return found
    if not (named := [suite for suite in found if suite.task_name == wanted]):
        raise UnknownName(f"part of suite {info.name}", wanted, [*bodies, *(suite.task_name for suite in found)])
    return named


def _check_distinct(found: Sequence[Suite]) -> None:
    """Raises: SuiteError: two parts of several sensors have the same task and fusion."""
    names = set[tuple[str, str]]()
    for suite in found:
        if (place := (suite.modality, suite.task_name)) in names:
            raise SuiteError(f"{suite.path}: parts: the task {suite.task_name!r} of {suite.modality} appears twice")
        names.add(place)


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """Loads a suite of one part; see `load_suites`. Raises: SuiteError also if it has several parts."""
    found = load_suites(name)
    if len(found) > 1:
        several = len({suite.modality for suite in found}) < len(found)
        parts = ", ".join(f"{name}:{suite.task_name if several else suite.modality}" for suite in found)
        raise SuiteError(f"suite {found[0].name} has several parts; choose one: {parts}")
    return found[0]


def _suites(info: SuiteInfo, keys: Mapping[str, YamlPart], body: _Part) -> Iterator[Suite]:
    """One Suite per task of a part, and per fusion."""
    numbers = {key: keys[key].whole(int(key == "examples")) if key in keys else OPTIONAL[key] for key in OPTIONAL}
    precision: Any = keys["precision"].one_of("precision", PRECISION) if "precision" in keys else "fp32"
    names = set[str]()
    several = "sensors" in body.keys
    for part in [body.keys["task"]] if "task" in body.keys else body.keys["tasks"].each():
        task_name, task = _sensor_task(part, body.sensors) if several else _task(part, body.sensors[0])
        if task_name in names:
            part.fail(f"the task {task_name!r} appears twice")
        names.add(task_name)
        columns = perturbations(body.keys["perturbations"], body.modality, task)
        suite = Suite(
            name=info.name,
            version=info.version,
            summary=info.summary,
            modality=body.modality,
            task_name=task_name,
            task=task,
            perturbations=tuple(search_in(p, precision) for p in columns),
            path=info.path,
            examples=numbers["examples"],
            seed=numbers["seed"],
        )
        yield from _fuse(suite, body) if several else [suite]


def _fuse(suite: Suite, body: _Part) -> Iterator[Suite]:
    """The suite with each of its fusions."""
    for part in body.fusions:
        fusion = part.text() if part else FUSION
        name = f"{suite.task_name}:{suite.modality}:{fusion}"
        one = replace(suite, task_name=name, sensors=body.sensors, fusion=fusion)
        _check_fusion(part, body, one)
        yield one
