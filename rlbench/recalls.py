"""Recalls of retrieval as tables of a board: R@1, R@5 and R@10 in both directions, exact or a bound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from rlbench import formats
from rlbench.tables import COMPARABLE, ROW, THREAT, column_order

COLUMNS = tuple(f"{direction} R@{depth}" for direction in ("x-to-text", "text-to-x") for depth in (1, 5, 10))
READING = (
    "Recalls in %, of media to captions (x-to-text) and of captions to media (text-to-x). Clean and corrupted ones are "
    "exact. Under attack the robust recall is exact, x-to-text R@1 unless the task says another; `≤` is a bound from "
    "above, since the attack does not try to lower that recall further. Intervals of the robust recall stand above."
)


def sections(cells: pd.DataFrame) -> list[str]:
    """Markdown: what the numbers mean, then a heading and a table for each comparable part; nothing without recalls."""
    found = grids(cells)
    titled = [text for (suite, version), grid in found.items() for text in (f"## {suite} v{version}: recalls", grid)]
    return [titled[0], READING, *titled[1:]] if titled else []


def grids(cells: pd.DataFrame) -> dict[tuple[str, int], str]:
    """The markdown tables by suite and version; one line a model and perturbation."""
    if not set(COLUMNS) <= set(cells):
        return {}
    parts: dict[tuple[str, int], list[Mapping[Any, Any]]] = {}
    for cell in cells[cells[COLUMNS[0]].notna()].to_dict("records"):
        parts.setdefault((cell["suite"], cell["suite_version"]), []).append(cell)
    return {part: formats.grid([_row(cell) for cell in sorted(parts[part], key=_place)]) for part in sorted(parts)}


def _place(cell: Mapping[Any, Any]) -> tuple[Any, ...]:
    return *(str(cell.get(name)) for name in (*COMPARABLE, *ROW)), column_order(cell["perturbation"])


def _row(cell: Mapping[Any, Any]) -> dict[str, str]:
    column, exact = cell["perturbation"], f"x-to-text R@{_depth(cell['task'])}"
    values = {name: f"{100 * cell[name]:.1f}" for name in COLUMNS}
    if THREAT.match(column):
        values = {name: value if name == exact else f"≤ {value}" for name, value in values.items()}
    return {"model": str(cell["model"]), "n": str(cell["n"]), "under": column, **values}


def _depth(task: str) -> int:
    """The rank up to which "correct" goes, from the task's name, such as msrvtt(R@5)."""
    said = re.search(r"\(R@(\d+)\)", task)
    return int(said[1]) if said else 1
