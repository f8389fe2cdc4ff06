"""The shape of the code: imports only go down, files and functions stay small."""

import ast
from pathlib import Path

import pytest

import rlbench

ROOT = Path(rlbench.__file__).parent
LAYERS = [
    "box errors",
    "core",
    "acceptance articles blocks callables cards checks columns consistency contract documents fbank fields files flags "
    "hub learning lines located machine metrics outputs paired preprocess reach registry seeds soundness sources "
    "threat yaml_nodes",
    "encoders attacks corruptions objectives tasks",
    "cells checkpoints copies expectation heads judge suite records rows workers",
    "chains classifier identity inputs retrieval variants",
    "loading",
    "matrix",
    "evaluate",
    "audit cost budget",
    "pilot work",
    "planner",
    "bundles recording",
    "runner training",
    "scores",
    "claims pooling drawing tables regression entries severities",
    "badges natural comparison check verify standing macro examples",
    "figures formats sheets",
    "recalls",
    "paper",
    "leaderboard pictures plots",
    "page",
    "console verdicts",
    "console_plan cli_audit cli_board cli_data cli_plot cli_train cli_check pytest_plugin",
    "cli",
    "__main__ __init__",
]
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer.split()}
FILES = sorted(ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def _imports(tree: ast.AST) -> list[str]:
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module] if node.module != "rlbench" else [f"rlbench.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return [module.split(".")[1] for module in modules if module.startswith("rlbench.")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down_and_files_stay_small(path: Path) -> None:
    source = path.read_text()
    tree, part = ast.parse(source), _part(path)
    for other in _imports(tree):
        down = LEVEL[other] < LEVEL[part] or other == part or LEVEL[other] == LEVEL[part] == LEVEL["registry"]
        assert down, f"{path.name} (layer {LEVEL[part]}) imports {other} (layer {LEVEL[other]})"
    assert source.count("\n") <= 300
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{path.name}: {node.name} is too long"
