"""Loads suites from YAML; checks every name, field, eps and severity, with its line, before any weights load.

A distribution adds suites by an entry point in the group `rlbench.suites` that names a package of YAML files; a file's
stem is the suite's name. The bundled files in `suites/` show the format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from rlbench.core import Modality, Suite, Task
from rlbench.core.documents import expand_user
from rlbench.core.errors import RLBenchError, SuiteError, UnknownName, quote
from rlbench.core.perturbations import make_plugin, perturbations
from rlbench.core.precision import PRECISION
from rlbench.core.threat import search_in
from rlbench.core.yaml_source import YamlPart, check_keys, read

GROUP = "rlbench.suites"
HEAD = ("suite", "version", "summary")
BODY = ("modality", "task", "perturbations")
SEVERAL = ("modality", "tasks", "perturbations")  # of a part with several tasks
OPTIONAL = {"examples": 500, "seed": 0}
KEYS = (*OPTIONAL, "precision")  # the optional ones
DATA_ROOT = "${RLBENCH_DATA}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class SuiteInfo:
    """A suite as listings show it.

    Attributes:
        name: the stem of its file.
        version: raised when its results change.
        modality: of its task; several parts separated by commas.
        summary: one line.
        path: its file.
    """

    name: str
    version: int
    modality: str
    summary: str
    path: str


def _body(keys: Mapping[str, YamlPart]) -> tuple[str, ...]:
    """The keys of a part with one task, or with several."""
    return SEVERAL if "tasks" in keys else BODY


def _head(whole: YamlPart) -> tuple[SuiteInfo, dict[str, YamlPart], dict[Modality, dict[str, YamlPart]]]:
    """A file's description, its keys, and the keys of its part, or of each of its `parts`, by modality."""
    keys = whole.items()
    several = "parts" in keys
    check_keys(keys, whole, (*HEAD, *(("parts",) if several else _body(keys)), *KEYS), KEYS)
    name = keys["suite"].text()
    if not _NAME.fullmatch(name):
        keys["suite"].fail(f"{quote(name)} must be letters, digits, '.', '_' and '-'")
    bodies: dict[Modality, dict[str, YamlPart]] = {}
    for part in keys["parts"].each() if several else [whole]:
        body = part.items()
        if several:
            check_keys(body, part, _body(body))
        modality: Any = body["modality"].one_of("modality", get_args(Modality))
        if modality in bodies:
            body["modality"].fail(f"{modality!r} appears twice; a suite has one part per modality")
        bodies[modality] = body
    return (
        SuiteInfo(name, keys["version"].whole(1), ", ".join(bodies), keys["summary"].text(), whole.path),
        keys,
        bodies,
    )


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
            part.fail(f"{quote(data)} needs RLBENCH_DATA; export RLBENCH_DATA=<the folder that holds the data packs>")
        data = root + data.removeprefix(DATA_ROOT)
    if "${" in data:
        part.fail(f"{quote(data)}: the only variable is {DATA_ROOT}, at the start")
    try:
        return str(Path(part.path).resolve().parent / expand_user(data))
    except RLBenchError as error:
        part.fail(error)


def _task(part: YamlPart, modality: Modality) -> tuple[str, Task]:
    """A task and its name in records and tables, which includes its folder's name and its form."""
    parts = part.items()
    if "name" not in parts:
        part.fail("the key 'name' is missing")
    name = parts.pop("name")
    values = {key: part.value() for key, part in parts.items()}
    for key in ("data", "root"):
        if isinstance(values.get(key), str):
            values[key] = _locate_data(parts[key], values[key])
    task = make_plugin("task", name, parts, values)
    if task.modality != modality:
        name.fail(f"task {name.text()!r} is {task.modality}; the suite's modality is {modality}")
    folder = f":{Path(values['data']).name}" if "data" in values else ""
    return f"{name.text()}{folder}{getattr(task, 'form', '')}", task


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
        known = _paths()
        if path not in known:
            raise UnknownName("suite (or .yaml file)", path, known)
        path = known[path]
    info, keys, bodies = _head(read(path))
    chosen = [modality for modality in bodies if wanted == modality] or list(bodies)
    found = [suite for modality in chosen for suite in _suites(info, keys, modality, bodies[modality])]
    if wanted in ("", *bodies):
        return found
    if not (named := [suite for suite in found if suite.task_name == wanted]):
        raise UnknownName(f"part of suite {info.name}", wanted, [*bodies, *(suite.task_name for suite in found)])
    return named


def load_suite(name: str | os.PathLike[str]) -> Suite:
    """Loads a suite of one part; see `load_suites`. Raises: SuiteError also if it has several parts."""
    found = load_suites(name)
    if len(found) > 1:
        several = len({suite.modality for suite in found}) < len(found)
        parts = ", ".join(f"{name}:{suite.task_name if several else suite.modality}" for suite in found)
        raise SuiteError(f"suite {found[0].name} has several parts; choose one: {parts}")
    return found[0]


def _suites(
    info: SuiteInfo, keys: Mapping[str, YamlPart], modality: Modality, body: Mapping[str, YamlPart]
) -> Iterator[Suite]:
    """One Suite per task of a part."""
    numbers = {key: keys[key].whole(int(key == "examples")) if key in keys else OPTIONAL[key] for key in OPTIONAL}
    precision: Any = keys["precision"].one_of("precision", PRECISION) if "precision" in keys else "fp32"
    names = set[str]()
    for part in [body["task"]] if "task" in body else body["tasks"].each():
        task_name, task = _task(part, modality)
        if task_name in names:
            part.fail(f"the task {task_name!r} appears twice")
        names.add(task_name)
        yield Suite(
            name=info.name,
            version=info.version,
            summary=info.summary,
            modality=modality,
            task_name=task_name,
            task=task,
            perturbations=tuple(search_in(p, precision) for p in perturbations(body["perturbations"], modality, task)),
            path=info.path,
            **numbers,
        )
