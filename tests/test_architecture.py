"""The architecture, derived from the imports: they only go down, without cycles, and files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rlbench

ROOT = Path(rlbench.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FLOORS = 6
ENTRIES = 17
LINES, FUNCTION = 300, 50
Graph = dict[str, set[str]]


def _name(path: Path) -> str:
    """The module's dotted name below rlbench; a package is its `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in FILES}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yields every module of rlbench that is imported, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}".removeprefix("rlbench.")
                yield full if full in MODULES else node.module.removeprefix("rlbench.")
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("rlbench.") for alias in node.names)


@cache
def _modules() -> Graph:
    found = {}
    for name, path in MODULES.items():
        found[name] = {other for other in _imports(ast.parse(path.read_text())) if other in MODULES} - {name}
    return found


def _fold(graph: Mapping[str, set[str]], depth: int, inside: str = "") -> Graph:
    """The graph of a package's entries: each module counts as the first `depth` parts of its name."""
    entries: Graph = {}
    for name, others in graph.items():
        if inside and not name.startswith(f"{inside}."):
            continue
        entry = ".".join(name.split(".")[:depth])
        near = {".".join(other.split(".")[:depth]) for other in others if not inside or other.startswith(f"{inside}.")}
        entries.setdefault(entry, set()).update(near - {entry})
    return entries


def _floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """A module's floor: 1 if it imports nothing, else one above the highest import. Raises: CycleError."""
    floors: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        floors[name] = 1 + max((floors[other] for other in graph.get(name, ())), default=0)
    return floors


def test_packages_form_six_floors() -> None:
    """`pytest -n 0 -s tests/test_architecture.py` prints the floors."""
    graph = _fold({k or "__init__": v for k, v in _modules().items()}, 1)
    floors = _floors(graph)
    for floor in sorted(set(floors.values()), reverse=True):
        names = sorted(name for name in floors if floors[name] == floor)
        print(f"floor {floor}: " + "; ".join(f"{n} -> {' '.join(sorted(graph[n])) or '-'}" for n in names))
    assert max(floors.values()) == FLOORS
    assert {name for name, floor in floors.items() if floor == 1} == {"core"}


PACKAGES = sorted({name.rpartition(".")[0] for name in MODULES if "." in name})


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cycle_among_the_entries_of_a_package(package: str) -> None:
    _floors(_fold(_modules(), package.count(".") + 2, package))


def test_no_cycle_among_modules() -> None:
    _floors(_modules())


def test_a_cycle_is_found() -> None:
    with pytest.raises(CycleError):
        _floors(_fold({"a.x": {"b.y"}, "b.z": {"a.x"}}, 1))


def test_the_top_package_has_few_entries() -> None:
    shown = [path for path in ROOT.iterdir() if path.name != "__pycache__"]
    assert len(shown) <= ENTRIES, sorted(path.name for path in shown)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION, f"{path.name}: {node.name} is too long"
