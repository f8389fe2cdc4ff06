"""Maps plugin names to factories. Listing imports no plugin: it parses the `@register` calls in the source.

A distribution adds plugins by an entry point in the group `rlbench.plugins` that names a package (all its modules are
read) or a module; rlbench's own plugins are registered the same way. The environment variable RLBENCH_PLUGINS adds
modules that are not installed, separated by commas, from Python's path or else the working directory.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from rlbench.core.callables import describe_raised
from rlbench.core.errors import RLBenchError, UnknownName, first_line
from rlbench.core.validation import check_fields

Kind = Literal["attack", "corruption", "defence", "encoder", "executor", "fusion", "objective", "task"]
F = TypeVar("F", bound=Callable[..., object])
GROUP = "rlbench.plugins"
VARIABLE = "RLBENCH_PLUGINS"


@dataclass(frozen=True)
class PluginInfo:
    """A registered plugin, found without importing it.

    Attributes:
        kind: such as "attack".
        name: one of its names.
        module: where it is defined.
        attribute: its class or function in the module.
        summary: the first line of its docstring.
    """

    kind: Kind
    name: str
    module: str
    attribute: str
    summary: str


def register(kind: Kind, *names: str) -> Callable[[F], F]:
    """Marks a class or function as the factory of `names` (literal strings).

    A factory with several names is called with `name=<the requested one>`.
    """

    def mark(factory: F) -> F:
        return factory

    return mark


def find_plugins(module: str, path: Path) -> list[PluginInfo]:
    """The plugins that a source file registers. Raises: RLBenchError: it can't be read, or a name is no literal."""
    found = []
    for node in _parse(path).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "register":
                kind, names = _read_names(mark, path)
                summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
                found += [PluginInfo(kind, name, module, node.name, summary) for name in names]
    return found


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, SyntaxError, ValueError) as error:  # ValueError: no UTF-8, a null byte
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else first_line(error)
        raise RLBenchError(f"the plugins of {path}{line}, can't be read: {why}") from None


def _read_names(mark: ast.Call, path: Path) -> tuple[Kind, list[str]]:
    """The kind and the names of an @register, which are read without running the file. Raises: RLBenchError."""
    kind, *names = [getattr(argument, "value", None) for argument in mark.args] or [None]
    kinds: tuple[Kind, ...] = get_args(Kind)
    known = next((one for one in kinds if one == kind), None)
    literal = [name for name in names if isinstance(name, str)]
    if known is None or not names or len(literal) < len(names):
        raise RLBenchError(
            f"{path}, line {mark.lineno}: {ast.unparse(mark)}; it must be a kind ({', '.join(kinds)}) and names, as "
            'literal strings, such as register("attack", "mine")'
        )
    return known, literal


def entries() -> dict[tuple[Kind, str], PluginInfo]:
    """Every registered plugin by (kind, name).

    Raises:
        RLBenchError: two plugins share a name, or a module of an entry point or of RLBENCH_PLUGINS is missing.
    """
    return _entries(os.environ.get(VARIABLE, ""))


@cache
def _entries(own: str) -> dict[tuple[Kind, str], PluginInfo]:
    """The plugins of all entry points, and of the modules that `own` lists."""
    table: dict[tuple[Kind, str], PluginInfo] = {}
    for name, origin, is_package in (*_installed(), *_own(own)):
        for path in sorted(origin.parent.glob("*.py")) if is_package else [origin]:
            module = name if path == origin else f"{name}.{path.stem}"
            for entry in find_plugins(module, path):
                other = table.setdefault((entry.kind, entry.name), entry)
                if other != entry:
                    raise RLBenchError(f"{entry.kind} {entry.name!r} is in both {other.module} and {entry.module}")
    return table


def _installed() -> Iterator[tuple[str, Path, bool]]:
    """The module of each entry point, its file, and whether it is a package."""
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.value, p.name)):
        spec = importlib.util.find_spec(point.module)
        if spec is None or spec.origin is None:
            raise RLBenchError(f"entry point {point.name!r} of {GROUP} names {point.module!r}, which is not installed")
        if not Path(spec.origin).is_file():
            raise RLBenchError(f"{point.module} lies in an archive, {spec.origin}; install it with pip, into a folder")
        yield point.module, Path(spec.origin), spec.submodule_search_locations is not None


def _own(names: str) -> Iterator[tuple[str, Path, bool]]:
    """The modules of RLBENCH_PLUGINS, as `_installed` has those of entry points.

    The working directory becomes the last entry of Python's path, so that it hides nothing, and workers have it too.
    """
    for name in filter(None, (part.strip() for part in names.split(","))):
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise RLBenchError(
                f"{VARIABLE} names {name!r}, and there is no such module here or on Python's path; go to the folder of "
                f"{name}.py, or unset {VARIABLE}"
            )
        path, is_package = Path(spec.origin), spec.submodule_search_locations is not None
        if not any(find_plugins(name, one) for one in (path.parent.glob("*.py") if is_package else [path])):
            raise RLBenchError(
                f"{VARIABLE} names {name!r}, and {path} registers nothing; a class or function that is not inside "
                'another one needs @register("attack", "mine")'
            )
        yield name, path, is_package


def names(kind: Kind) -> list[str]:
    """The sorted names of a kind's plugins."""
    return sorted(name for k, name in entries() if k == kind)


def factory(kind: Kind, name: str) -> Callable[..., Any]:
    """Imports the plugin's module and returns its factory, with `name` bound if it has several names.

    Raises:
        UnknownName: there is no such plugin.
        RLBenchError: a file in the working directory has it, and RLBENCH_PLUGINS does not name that file; or the module
            of another package can't be imported.
    """
    entry = entries().get((kind, name))
    if entry is None:
        file = Path(f"{name}.py")
        if name.isidentifier() and file.is_file() and name in {one.name for one in find_plugins(name, file)}:
            raise RLBenchError(f"no {kind} named {name!r}; {file} has it, and is read while {VARIABLE}={name} is set")
        raise UnknownName(kind, name, names(kind))
    with _explain_own(entry):
        target: Callable[..., Any] = getattr(importlib.import_module(entry.module), entry.attribute)
    shared = sum(other.attribute == entry.attribute and other.module == entry.module for other in entries().values())
    return partial(target, name=name) if shared > 1 else target


def make(kind: Kind, name: str, fields: Mapping[str, object] | Iterable[tuple[str, object]] = ()) -> Any:
    """Builds a plugin; checks the names and types of its fields against the factory's signature.

    Args:
        kind: of the plugin.
        name: of the plugin.
        fields: by name, or as (name, value) pairs.

    Raises:
        UnknownName: there is no such plugin.
        FieldError: a field's name or value is wrong, also by the plugin's own checks.
        RLBenchError: the plugin of another package raises anything else.
    """
    target = factory(kind, name)
    values = check_fields(target, dict(fields), f"{kind} {name!r}")
    with _explain_own(entries()[kind, name]):
        return target(**values)


@contextmanager
def _explain_own(entry: PluginInfo) -> Iterator[None]:
    """Turns whatever a plugin of another package raises into one line; a bug of rlbench keeps its traceback."""
    try:
        yield
    except RLBenchError:
        raise
    except (Exception, SystemExit) as error:
        if entry.module.partition(".")[0] == __name__.partition(".")[0]:
            raise
        raise RLBenchError(f"{entry.kind} {entry.name!r} can't be made: {describe_raised(error)}") from error
