"""Hashes a user's code: a module, and the local modules that it imports.

Local means the same folder or package, or for an installed plugin the same distribution. rlbench's own code is left out
(`engine.cells.keys.PROTOCOL` stands for it), as are Python's library and other installed packages.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path
from types import CodeType

_INSTALLED = {"site-packages", "dist-packages"}


def is_own(module: str) -> bool:
    """Whether a module is the user's: not rlbench's, Python's or an installed library's."""
    top = module.partition(".")[0]
    if top == "__main__":
        return True
    if top in ("rlbench", "") or top in sys.stdlib_module_names:
        return False
    folder = _folder(top)
    return folder is not None and not _INSTALLED & set(folder.parts)


def _folder(top: str) -> Path | None:
    """The folder that contains an imported top-level module or package."""
    module = sys.modules.get(top)
    if file := getattr(module, "__file__", None):
        return Path(file).parent if not hasattr(module, "__path__") else Path(file).parent.parent
    places = list(getattr(module, "__path__", ()))  # a package without __init__.py
    return Path(places[0]).parent if places else None


@cache
def distribution(top: str) -> frozenset[str]:
    """The top-level modules of the distribution that installed this one, itself included."""
    folder = _folder(top)
    if folder is None or not _INSTALLED & set(folder.parts):
        return frozenset({top})
    table = packages_distributions()
    owners = set(table.get(top, ()))
    return frozenset(name for name, found in table.items() if owners & set(found)) | {top}


_HASHES: dict[str, tuple[object, str]] = {}  # by module: the spec that loaded it, and its hash


def source_hash(module: str) -> str:
    """The hash of a module and of the local modules that it imports; "" for rlbench's own.

    It is computed when the module is loaded or reloaded, so that later edits of the file do not change it.
    """
    if module.partition(".")[0] == "rlbench":
        return ""
    loaded = getattr(sys.modules.get(module), "__spec__", None)
    cached = _HASHES.get(module)
    if cached is None or cached[0] is not loaded:
        files = find_local_modules(module)
        start = files.pop("", Path())
        others = sorted((os.path.relpath(path, start.parent), path.read_bytes()) for path in files.values())
        data = [start.read_bytes(), *others] if start.is_file() else []
        _HASHES[module] = cached = loaded, hashlib.sha256(repr(data).encode()).hexdigest()[:16] if data else ""
    return cached[1]


def find_local_modules(module: str) -> dict[str, Path]:
    """The files of a module and, recursively, of what it imports from its own package, folder or distribution.

    Imports nothing. Keys are module names; the key of the module itself is "".
    """
    start = getattr(sys.modules.get(module), "__spec__", None) or _find(module, None)
    if start is None or not start.has_location or start.origin is None or _is_of_python(Path(start.origin)):
        return {}
    folder = Path(start.origin).parent
    for _ in range(module.count(".") + (start.submodule_search_locations is not None)):
        folder = folder.parent
    top = module.partition(".")[0]
    installed = bool(_INSTALLED & set(folder.parts))
    allowed = distribution(top) if installed else None
    found, left = {"": Path(start.origin)}, [(module, start)]
    while left:
        name, spec = left.pop()
        for wanted in _imports(name, spec):
            if allowed is not None and wanted.partition(".")[0] not in allowed:
                continue
            other = _find(wanted, folder)
            if other is None or wanted in found or wanted == module or other.origin is None or not other.has_location:
                continue
            if allowed is None and not _is_near(Path(other.origin), folder):
                continue
            found[wanted] = Path(other.origin)
            left.append((wanted, other))
    return found


def _is_of_python(file: Path) -> bool:
    """Whether a file belongs to Python's own library, all of which is in one folder."""
    library = Path(sysconfig.get_path("stdlib"))
    return file.is_relative_to(library) and not _INSTALLED & set(file.relative_to(library).parts)


def _is_near(file: Path, folder: Path) -> bool:
    """Whether a file is in the folder or below it, but not in a virtual environment there."""
    return file.is_relative_to(folder) and not _INSTALLED & set(file.relative_to(folder).parts)


def _find(name: str, folder: Path | None) -> ModuleSpec | None:
    """The spec of a module, found without importing it or its parents; on Python's path if `folder` is None."""
    places: list[str] | None = None if folder is None else [str(folder)]
    spec, parts = None, name.split(".")
    for k in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: k + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec


def _imports(name: str, spec: ModuleSpec) -> Iterator[str]:
    """The modules that a module's source may import, anywhere in it, and their parents."""
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    for node in ast.walk(_parse(spec.origin, Path(spec.origin).stat().st_mtime_ns)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [start, *(f"{start}.{alias.name}" if start else alias.name for alias in node.names)]
        else:
            continue
        for one in filter(None, names):
            parts = one.split(".")
            yield from (".".join(parts[:k]) for k in range(1, len(parts) + 1))


@cache
def _parse(path: str, changed: int) -> ast.Module:
    """The syntax tree of a file; an empty one if it can't be parsed, since then it can't be imported either."""
    try:
        return ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def starts_empty(module: str, name: str) -> bool:
    """Whether a module's global starts as an empty container, such as a cache."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py"):
        return False
    for node in _parse(file, Path(file).stat().st_mtime_ns).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            if isinstance(value, ast.Dict | ast.List):
                return not (value.keys if isinstance(value, ast.Dict) else value.elts)
            return isinstance(value, ast.Call) and not any(isinstance(a, ast.Dict | ast.List) for a in value.args)
    return False


def code_hash(code: CodeType) -> str:
    """The hash of a function's instructions, constants and names, nested functions included."""
    digest = hashlib.sha256(code.co_code)
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        digest.update(repr(names).encode())
    for constant in code.co_consts:
        digest.update((code_hash(constant) if isinstance(constant, CodeType) else _constant(constant)).encode())
    return digest.hexdigest()


def _constant(value: object) -> str:
    """A constant's text; a frozenset is sorted, since its order depends on the process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
