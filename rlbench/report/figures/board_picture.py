"""A picture of a board to share: a table of models by columns, as a PNG or SVG."""

from __future__ import annotations

from importlib.metadata import version
from textwrap import wrap
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from rlbench.core import Clean
from rlbench.core.errors import shorten
from rlbench.report.boards.formats import Shown, prepare_table
from rlbench.report.boards.heads import describe_columns
from rlbench.report.boards.scores import Score, Table
from rlbench.store.columns import Column, Mean

COLUMNS, ROWS = 7, 12  # at most
WIDTH, ROW, MODEL = 8.0, 0.34, 2.1  # inches: of the picture, of a row, of the models' names
TOP, LINE, BOTTOM = 0.56, 0.13, 0.35  # inches: above the columns' heads, of a line of them, below the rows
TITLE, NAME, SMALL = 72, 26, 36  # letters of a line: of the title, of a model's name, of a long name
SHADES, SOFT, FAINT = colormaps["Blues"], "#5c6670", "#33404a"


def choose_columns(table: Table) -> list[Column]:
    """The columns of a picture: all if they fit; else clean, the worst cases and the means over corruptions."""
    if len(table.columns) <= COLUMNS:
        return list(table.columns)
    main = [c for c in table.columns if isinstance(c.of, Clean | Mean) or c.is_worst]
    return (main if len(main) > 1 else list(table.columns))[:COLUMNS]


def draw_board(table: Table) -> Figure:
    """The figure of a table: the best ROWS rows, with 95% intervals; a frame marks what no other row is above."""
    shown, columns = prepare_table(table), choose_columns(table)
    title, heads = wrap(table.title, TITLE)[:2], _wrap_heads(columns)
    start = TOP + 0.18 * (len(title) - 1)
    top = start + LINE * max(len(name) + len(detail) for name, detail in heads) + 0.05
    height = top + ROW * min(ROWS, len(table.rows)) + BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    for k, line in enumerate(title):
        axes.text(0.15, 0.3 + 0.18 * k, line, fontsize=11, fontweight="bold", va="center")
    _draw_heads(axes, heads, start)
    for k in range(min(ROWS, len(table.rows))):
        _draw_row(axes, shown, k, columns, top + ROW * k)
    left = len(table.rows) - ROWS
    more = f" · {left} more row{'s' * (left > 1)}" if left > 0 else ""
    more += f" · {table.backbone} is a small model organism" if table.backbone.startswith("mini") else ""
    facts = f"accuracy in % with 95% intervals, n = {table.facts['n']}{more} · rlbench {version('rlbind-bench')}"
    axes.text(0.15, height - BOTTOM / 2, facts, fontsize=6.5, color=SOFT, va="center")
    return figure


def _place(j: int, columns: int) -> tuple[float, float]:
    """The left edge and the width of column j of some, in inches."""
    width = min(1.2, (WIDTH - MODEL - 0.15) / columns)
    return MODEL + j * width, width


def _wrap_heads(columns: list[Column]) -> list[tuple[list[str], list[str]]]:
    """The lines of each column's name and detail, which are as wide as the column."""
    _, width = _place(0, len(columns))
    names, details = max(6, int(13 * width)), max(8, int(16 * width))
    return [(wrap(head.name, names), wrap(head.detail, details)) for head in describe_columns(columns)]


def _draw_heads(axes: Axes, heads: list[tuple[list[str], list[str]]], start: float) -> None:
    """Draws the heads' lines, the first one below `start` inches."""
    for j, (name, detail) in enumerate(heads):
        x, _ = _place(j, len(heads))
        for k, line in enumerate(name + detail):
            style: dict[str, Any] = {"fontsize": 6.5, "color": SOFT}
            if k < len(name):
                style = {"fontsize": 7.5, "fontweight": "bold"}
            axes.text(x + 0.06, start + LINE * (k + 1), line, **style)


def _draw_row(axes: Axes, shown: Shown, k: int, columns: list[Column], y: float) -> None:
    """Draws row k, y inches from the top: its rank, its model and its scores."""
    row = shown.table.rows[k]
    rank = shown.rank(k) if shown.ranks else ""
    axes.text(0.15, y + ROW / 2, rank, fontsize=8 if len(rank) < 5 else 6, color=SOFT, va="center")
    name, size = _fit_name(row.marked_name)
    axes.text(0.5 if shown.ranks else 0.15, y + ROW / 2, name, fontsize=size, va="center")
    for j, column in enumerate(columns):
        x, width = _place(j, len(columns))
        if (score := row.scores.get(column)) is not None:
            _draw_score(axes, score, x, y, width, best=shown.bold(k, column))


def _fit_name(name: str) -> tuple[str, float]:
    """The name and its font size: a long one, as of a hub, has two small lines, and at worst loses its middle."""
    if len(name) <= NAME:
        return name, 8
    name = name if len(name) <= 2 * SMALL else shorten(name, 2 * SMALL - len(" ... "))
    lines = wrap(name, SMALL, break_on_hyphens=False)
    return "\n".join(lines if len(lines) <= 2 else [name[:SMALL], name[SMALL:]]), 5.5


def _draw_score(axes: Axes, score: Score, x: float, y: float, width: float, *, best: bool) -> None:
    """Draws a score at (x, y) inches from the top left corner; a darker field is a higher accuracy."""
    edge = "#0b5cad" if best else "none"
    field = FancyBboxPatch(
        (x + 0.05, y + 0.05), width - 0.1, ROW - 0.1, boxstyle="round,pad=0,rounding_size=0.04",
        facecolor=SHADES(0.05 + 0.5 * score.share), edgecolor=edge, linewidth=1.2,
    )  # fmt: skip
    axes.add_patch(field)
    if score.error is not None:
        axes.text(x + 0.1, y + ROW / 2, "failed", fontsize=7, color="#b3261e", va="center")
        return
    text, size = f"{'≤' * score.bound}{100 * score.share:.1f}", 8 if width > 0.95 else 7
    axes.text(x + 0.1, y + ROW / 2, text, fontsize=size, fontweight="bold" if best else "normal", va="center")
    interval = f"{100 * score.low:.0f}–{100 * score.high:.0f}"
    axes.text(x + width - 0.08, y + ROW / 2, interval, fontsize=size - 2.5, color=FAINT, va="center", ha="right")
