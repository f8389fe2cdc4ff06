"""The board of test-time defences: counted passes, and rows from made lines."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from rlbench.core import registry


@pytest.fixture(scope="module")
def board() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "test_time.py"
    spec = importlib.util.spec_from_file_location("test_time_board", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "passes"), [("ttc", (6, 2)), ("hedge", (21, 20)), ("view-mean", (7, 0)), ("anti-adversary", (4, 2))]
)
def test_passes_of_an_answer_are_counted(board, name, passes) -> None:
    lab = board.make_lab("smoke", f"linear+{name}", 2, 7)
    assert board.count_passes(lab) == passes


def test_fewer_views_keep_their_proportions(board) -> None:
    drift = registry.make("defence", "dbd")
    assert board.limit_views(drift, 8) == replace(drift, views=8, lowest=4)
    assert board.limit_views(drift, 31) is drift


def made(suite: str, defence: str, static: str, adaptive: str) -> dict[str, object]:
    about = {"threat": "linf 4/255", "views": 8, "targets": 3, "steps": 20, "duels": 1, "duel_steps": 10, "traits": []}
    flags = {"clean": "1" * len(static), "oblivious": "1" * len(static), "static": static, "adaptive": adaptive}
    return (
        {"suite": suite, "model": "tecoa", "defence": defence, "n": len(static), "forwards": 3, "backwards": 2}
        | about
        | flags
    )


def test_a_row_has_the_numbers_of_its_flags_and_a_gain_is_named_only_if_significant(board) -> None:
    small, large = (
        made("thermal", "ttc", "0" * 30, "1" * 4 + "0" * 26),
        made("image", "et3", "0" * 30, "1" * 12 + "0" * 18),
    )
    page = board.render([small])
    assert "| tecoa | ttc | 30 | 100.0 | 100.0 | 13.3 | 0.0 | +13.3 (4:0, p 0.125) | 3, 2 | - |" in page
    assert "No defence keeps a gain" in page and "## thermal, linf 4/255" in page
    assert "Holm-adjusted p < .05): image tecoa+et3 (+40.0)." in board.render([small, large])
    assert "view-mean, 8 views" in board.render([made("image", "view-mean", "01", "01")])
