"""The board of test-time defences: counted passes, and rows from made lines."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from rlbench.core import registry

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module("test_time")


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module("test_time_board")


@pytest.mark.parametrize(
    ("name", "passes"), [("ttc", (6, 2)), ("hedge", (21, 20)), ("view-mean", (7, 0)), ("anti-adversary", (4, 2))]
)
def test_passes_of_an_answer_are_counted(attack, name, passes) -> None:
    lab = attack.make_lab("smoke", f"linear+{name}", 2, 7)
    assert attack.count_passes(lab) == passes


def test_fewer_views_keep_their_proportions(attack) -> None:
    drift = registry.make("defence", "dbd")
    assert attack.limit_views(drift, 8) == replace(drift, views=8, lowest=4)
    assert attack.limit_views(drift, 31) is drift


def made(suite: str, defence: str, static: str, adaptive: str) -> dict[str, object]:
    about = {
        "threat": "linf 4/255",
        "views": 8,
        "targets": 3,
        "steps": 20,
        "duels": 1,
        "duel_steps": 10,
        "draws": 1,
        "traits": [],
    }
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
    assert "| tecoa | ttc | 30 | 100.0 | 100.0 | 13.3 | - | 0.0 | +13.3 (4:0, p 0.125) | 3, 2 | - |" in page
    assert "No defence keeps a gain" in page and "## thermal, linf 4/255" in page
    assert "Holm-adjusted p < .05): image tecoa+et3 (+40.0)." in board.render([small, large])
    assert "view-mean, 8 views" in board.render([made("image", "view-mean", "01", "01")])


def test_a_gain_counts_what_neither_attack_breaks(board) -> None:
    line = made("image", "et3", "0" * 30, "1" * 12 + "0" * 18)
    longer = made("image", "et3", "0" * 30, "0" * 10 + "1" * 4 + "0" * 16)
    page = board.render([line], [longer | {"steps": 100}])
    assert "| tecoa | et3 | 30 | 100.0 | 100.0 | 40.0 | 13.3 | 0.0 | +6.7 (2:0, p 0.500) | 3, 2 | - |" in page
    assert "No defence keeps a gain" in page and "the same attack with 100 steps" in page


@pytest.mark.parametrize("change", [{"n": 29}, {"views": 64}, {"static": "1" + "0" * 29}])
def test_a_longer_attack_on_something_else_is_refused(board, change: dict[str, object]) -> None:
    line = made("image", "et3", "0" * 30, "1" * 30)
    with pytest.raises(ValueError, match="image tecoa et3: the longer attack has other examples"):
        board.render([line], [line | change])
