"""`rlbench new`: writes the file of a plugin or a suite, ready to run."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shlex import quote
from string import Template
from typing import Any

import click

from rlbench.core.errors import FieldError, RLBenchError, StoreError, UnknownName

KINDS = ("encoder", "suite", "attack", "corruption", "fusion", "task", "objective")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PERTURBATIONS = {
    "attack": "  - {{attack: [{name}, pgd], norm: linf, eps: 4/255}}",
    "corruption": "  - {{corruption: {name}, severity: [1, 3, 5]}}",
    "task": "  - {{attack: pgd, norm: linf, eps: [1/255, 4/255]}}",
}


@dataclass(frozen=True)
class Place:
    """Where a new file goes.

    Attributes:
        folder: of the file.
        package: the package that the folder belongs to; "" for the working directory.
        project: the folder of the package's pyproject.toml.
    """

    folder: Path
    package: str = ""
    project: Path = Path()


@click.command(short_help="Write the file of an encoder, suite, attack, ... to start from.")
@click.argument("kind", metavar="|".join(KINDS))
@click.argument("name", metavar="NAME")
@click.option("--here", is_flag=True, help="Write to the working directory, even inside a plugin package.")
@click.option("--data", metavar="DIR", help="The folder of pictures of a new suite [default: NAME].")
def new(kind: str, name: str, here: bool, data: str | None) -> None:
    """Write a commented file that works as it stands, and print the command that tries it.

    \b
      rlbench new encoder mine                  mine.py: a CLIP-like encoder over a torch module
      rlbench new suite pets --data photos      pets.yaml: attacks on photos/test/CLASS/*.jpg
      rlbench new attack nudge                  nudge.py and nudge.yaml, a small suite that runs it

    The file goes to the working directory. There, an encoder is used as NAME:make and a suite as NAME.yaml; other
    kinds are found while the environment variable RLBENCH_PLUGINS has their names. Inside a package whose
    pyproject.toml has the entry points rlbench.plugins or rlbench.suites, the file goes to that package, which
    `pip install -e` makes available under NAME. An existing file is never changed.
    """
    if kind not in KINDS:
        raise UnknownName("kind to write", kind, KINDS)
    if data and kind != "suite":
        raise click.UsageError("--data is for a suite: the folder of its pictures")
    _check_name(kind, name)
    place = Place(Path()) if here else _find_place(kind)
    texts, commands = _suite(name, data or name, place) if kind == "suite" else _plugin(kind, name, place)
    taken = next((path for path in texts if path.exists() or path.is_symlink()), None)
    if taken is not None:
        raise StoreError(f"{taken} exists and is not changed; choose another name, or move that file away")
    from rlbench.cli import files as output

    for path, text in texts.items():
        output.write(path, text)
    click.echo(f"wrote {' and '.join(map(str, texts))}; next:")
    for command in commands:
        click.echo(f"  {command}")


def _check_name(kind: str, name: str) -> None:
    """Raises: FieldError: it is no identifier, a keyword or a module's; RLBenchError: it is registered."""
    if kind == "suite":
        if not _SUITE.fullmatch(name):
            raise FieldError(f"{name!r} can't be a suite's name: use letters, digits, '_' and '-', such as my-suite")
    elif not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
        why = "a keyword of Python" if keyword.iskeyword(name) else "no identifier"
        raise FieldError(f"{name!r} is {why}; {kind} names are Python names such as my_{kind}")
    if name in _list_names(kind):
        listing = "models" if kind == "encoder" else f"{kind}s"
        raise RLBenchError(f"the {kind} {name!r} exists already; choose a name that `rlbench list {listing}` lacks")
    if kind != "suite" and importlib.util.find_spec(name) is not None:
        raise FieldError(
            f"{name!r} is the name of an installed Python module, which would hide {name}.py; choose another"
        )


def _list_names(kind: str) -> set[str]:
    """The names of a kind that are taken."""
    if kind == "suite":
        from rlbench.core.suite import suites

        return {suite.name for suite in suites()}
    from rlbench.core.registry import entries

    found = {name for of, name in entries() if of == kind}
    if kind == "encoder":
        from rlbench.encoders.models import models

        found |= {name for model in models() for name in (model.name, model.baseline)}
    return found


def _find_place(kind: str) -> Place:
    """The plugin package that the working directory is in, or the working directory.

    A project with an entry point named after the kind, such as `attacks`, has its files there; else the first one.
    """
    group = "rlbench.suites" if kind == "suite" else "rlbench.plugins"
    for project in (Path.cwd(), *Path.cwd().parents):
        facts = _read_project(project / "pyproject.toml")
        points: Mapping[str, str] = facts.get("project", {}).get("entry-points", {}).get(group, {})
        package = points.get(f"{kind}s") or next(iter(points.values()), "")
        where = facts.get("tool", {}).get("setuptools", {}).get("package-dir", {}).get(package)
        for folder in (where, package.replace(".", "/"), f"src/{package.replace('.', '/')}") if package else ():
            if folder and (project / folder / "__init__.py").is_file():
                return Place(project / folder, package, project)
    return Place(Path())


def _read_project(path: Path) -> dict[str, Any]:
    """A pyproject.toml; empty if there is none or it can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _fill(template: str, **values: str) -> str:
    text = (files("rlbench.cli") / "templates" / f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _suite(name: str, data: str, place: Place) -> tuple[dict[Path, str], list[str]]:
    """The texts by path, and the next commands. Classes are the folders in data/test or data/val, if there are any."""
    path = place.folder / f"{name}.yaml"
    where = name if place.package else str(path)
    found = next(
        (
            sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
            for split in ("test", "val")
            if (folder := Path(data, split)).is_dir()
        ),
        [],
    )
    listed = "\n".join(f"    {_quote(one)}: {_quote(one.replace('_', ' '))}" for one in found or ("cat", "dog"))
    facts = {"name": _quote(name), "file": where, "data": _quote(_relative(data, place)), "examples": "200"}
    text = _fill("suite.yaml", classes=listed, **facts)
    first = [] if found else [f"put pictures into {data}/test/CLASS/, and the classes into {path}"]
    return {path: text}, [*first, f"rlbench run --suite {quote(where)} --model rlbind --examples 50"]


def _quote(text: str) -> str:
    """A YAML scalar that is this text, whatever it holds: a folder may be named `#1: "new"`, a suite `2024`."""
    return json.dumps(text, ensure_ascii=False)


def _relative(data: str, place: Place) -> str:
    """The folder of a suite's data, relative to the suite's file."""
    if Path(data).is_absolute() or not place.package:
        return Path(data).as_posix()
    return Path(data).resolve().as_posix()


def _plugin(kind: str, name: str, place: Place) -> tuple[dict[Path, str], list[str]]:
    """The texts by path, and the next commands, of a plugin; with a suite that tries it where it needs one."""
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_")) or "Plugin"
    model = name if place.package else f"{name}:make"
    texts = {place.folder / f"{name}.py": _fill(f"{kind}.py", name=name, title=title, model=model)}
    if kind in _PERTURBATIONS:
        task = "{name: image-world, domain: sensor, subset: seen}" if kind != "task" else f"{{name: {name}}}"
        own = _PERTURBATIONS[kind].format(name=name)
        texts[Path(f"{name}.yaml")] = _fill("trial.yaml", name=name, task=task, perturbations=own)
    if kind == "fusion":
        texts[Path(f"{name}.yaml")] = _fill("fusion.yaml", name=name)
    run = f"rlbench run --suite {name}.yaml --model rlbind"
    if kind == "encoder":
        run = f"rlbench run --suite image --model {model} --examples 20"
    elif kind == "objective":
        run = f"rlbench train tecoa --modality image --set objective={name} --set steps=20 --set examples=640"
    if place.package:
        return texts, [f"pip install -e {place.project}    # once", run]
    if kind == "encoder":
        return texts, [run]
    return texts, [f"export RLBENCH_PLUGINS={name}    # Windows: set RLBENCH_PLUGINS={name}", run]
