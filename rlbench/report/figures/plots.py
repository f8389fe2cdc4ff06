"""Draws figures for papers with matplotlib. The same records give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from math import ceil
from statistics import fmean
from textwrap import wrap
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlbench.core import Norm, Record
from rlbench.report.boards.scores import Score
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures.board_picture import draw_board
from rlbench.report.figures.curves import (
    PALETTE,
    Curves,
    Heat,
    Scatter,
    attacked_sensors,
    colours,
    curves,
    headline,
    heats,
    scatters,
)
from rlbench.report.figures.fonts import count_columns, drawable
from rlbench.store.rounds import pool_rounds

Kind = Literal["curves", "sensors", "scatter", "corruptions", "board"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT: tuple[Kind, ...] = (
    "curves",
    "sensors",
    "scatter",
    "corruptions",
)  # a board is a picture of a table, one per suite
MARKERS = "osD^vPX*"
ACROSS = 3  # panels side by side
LETTERS = 44  # the most of a line of a panel's title
LEGEND = 24  # the most models of a legend
MAPS, BESIDE = 24, 8  # the most heat maps of a figure, and of a line
DPI, PIXELS = 300, 60_000  # dots per inch, and the most pixels of a side, of which matplotlib can draw 2^16
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e6e8",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "rlbench",
    "svg.fonttype": "none",
}
Panel = Callable[[Axes], None]  # draws into axes


def draw(records: Iterable[Record], *, kinds: Sequence[Kind] = DEFAULT, format: str = "png") -> dict[str, bytes]:
    """By file name, the figures that the records have data for.

    Args:
        records: in any order; rounds of a campaign are pooled (see `store.rounds.pool_rounds`).
        kinds: "curves": accuracy against eps, at two eps or more, with 95% bands. "sensors": accuracy by the number of
            attacked sensors. "scatter": clean accuracy against the
            worst case, with 95% intervals. "corruptions": accuracy by corruption and severity, if all five were run.
            "board": each table, as a picture to share.
        format: "png" (300 dots per inch) or "svg".
    """
    listed = pool_rounds(records)
    cells = frame(listed)
    found = tables(cells) if listed else []
    tone = colours(row.model for table in found for row in table.rows)
    files: dict[str, bytes] = {}
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        if "curves" in kinds and (lines := [spec for table in found for spec in _ladders(curves(table))]):
            panels: dict[str, Panel] = {f"{spec.title}: {spec.what}": _draw_curves(spec, tone) for spec in lines}
            files[f"curves.{format}"] = _save(_panels(panels, tone), format)
        if "sensors" in kinds and (lines := [spec for table in found for spec in attacked_sensors(table)]):
            panels = {f"{spec.title}: {spec.what}": _draw_curves(spec, tone) for spec in lines}
            files[f"sensors.{format}"] = _save(_panels(panels, tone), format)
        if "scatter" in kinds and (points := [headline(those) for t in found if (those := scatters(t))]):
            panels = {spec.title: _draw_points(spec, tone) for spec in points}
            files[f"scatter.{format}"] = _save(_panels(panels, tone), format)
        if "corruptions" in kinds:
            maps = list(heats(cells)) if listed else []
            for name, heat in zip(_file_names([heat.facts for heat in maps]), maps, strict=True):
                files[f"corruptions-{name}.{format}"] = _save(_heat(heat), format)
        if "board" in kinds:
            for name, table in zip(_file_names([table.facts for table in found]), found, strict=True):
                files[f"board-{name}.{format}"] = _save(draw_board(table), format)
    return files


def _file_names(tables: Sequence[Mapping[str, object]]) -> list[str]:
    """A file name for each table's facts, all different: suite, data, seed and n; the task and version where needed."""
    short = [f"{of['suite']}-{str(of['data'])[:6]}-seed{of['seed']}-n{of['n']}" for of in tables]
    long = [f"{name}-{re.sub(r'[^A-Za-z0-9]+', '-', str(of['task']))}" for name, of in zip(short, tables, strict=True)]
    full = [f"{name}-v{of['suite_version']}-{of['data']}" for name, of in zip(long, tables, strict=True)]
    levels = zip(short, long, full, strict=True)
    return [a if short.count(a) == 1 else b if long.count(b) == 1 else c for a, b, c in levels]


def _ladders(specs: Sequence[Curves]) -> Iterator[Curves]:
    """For each norm the worst case, or else the first attack, if it has two eps or more."""
    for norm in get_args(Norm):
        those = [s for s in specs if s.norm == norm and max(map(len, s.models.values()), default=0) > 2]
        yield from those[:1]


def _name(label: str, tone: Mapping[str, str]) -> str:
    """The model of a label, which may end with a badge; `tone` has all models."""
    return label if label in tone else label.rpartition(" [")[0]


def _style(model: str, tone: Mapping[str, str]) -> dict[str, str]:
    name = _name(model, tone)
    turns, place = divmod(list(tone).index(name), len(PALETTE))  # beyond the palette, a colour has another marker
    return {"color": tone[name], "marker": MARKERS[(place + turns) % len(MARKERS)], "label": model}


def _draw_curves(spec: Curves, tone: Mapping[str, str]) -> Panel:
    """Draws curves with their 95% bands.

    Args:
        spec: the curves.
        tone: by model, its colour.
    """

    def fill(axes: Axes) -> None:
        for model, points in spec.models.items():
            eps = [x for x, _ in points]
            style = _style(model, tone)
            axes.fill_between(
                eps,
                [100 * s.low for _, s in points],
                [100 * s.high for _, s in points],
                color=style["color"],
                alpha=0.15,
                lw=0,
            )
            axes.plot(eps, [100 * s.share for _, s in points], markersize=4, linewidth=1.2, clip_on=False, **style)  # type: ignore[arg-type]
        axes.set(xlabel=spec.unit, ylabel="accuracy, %", ylim=(0, 100), xlim=(0, None))
        if spec.names:
            axes.set_xticks(list(spec.names), list(spec.names.values()))

    return fill


def _draw_points(spec: Scatter, tone: Mapping[str, str]) -> Panel:
    """Draws points with their 95% intervals in both directions.

    Args:
        spec: the points.
        tone: by model, its colour.
    """

    def reach(score: Score) -> list[list[float]]:
        return [[100 * (score.share - score.low)], [100 * (score.high - score.share)]]

    def fill(axes: Axes) -> None:
        for model, (x, y) in spec.models.items():
            axes.errorbar(
                [100 * x.share],
                [100 * y.share],
                xerr=reach(x),
                yerr=reach(y),
                elinewidth=0.8,
                markersize=5,
                linestyle="none",
                **_style(model, tone),  # type: ignore[arg-type]
            )
        axes.set(xlabel="clean, %", ylabel=f"{spec.column}, %")

    return fill


def _panels(panels: Mapping[str, Panel], tone: Mapping[str, str]) -> Figure:
    """A figure of panels with one legend below, which has a model's badge if it has one in some panel.

    Args:
        panels: by title.
        tone: by model, its colour, in the order of the legend.
    """
    across = min(ACROSS, len(panels))
    down = ceil(len(panels) / across)
    figure = Figure(layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    titles = {title: [line for part in title.split(", ", 1) for line in wrap(part, LETTERS)] for title in panels}
    lines = max(map(len, titles.values()))
    handles: dict[str, tuple[Any, str]] = {}
    for place, (title, fill) in zip(axes.flat, panels.items(), strict=False):
        fill(place)
        place.set_title("\n".join(titles[title]), fontsize=7 if lines < 3 else 6)
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            name = _name(str(label), tone)
            handles[name] = handle, max(str(label), handles.get(name, (None, ""))[1], key=len)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    first = set(list(handles)[:LEGEND])  # the best rows of the first table
    shown = [handles[name] for name in tone if name in first]
    if len(handles) > LEGEND:
        shown.append((Line2D([], [], linestyle="none"), f"and {len(handles) - LEGEND} more"))
    names = [label for _, label in shown]
    columns, size = _fit_legend(names, 2.6 * across, (1, 3, 4)[across - 1])
    height = (2 + 0.1 * lines) * down + 0.3 + 0.18 * ceil(len(names) / columns)
    figure.set_size_inches(2.6 * across, height)
    figure.legend([handle for handle, _ in shown], names, loc="outside lower center", ncols=columns, fontsize=size)
    return figure


def _fit_legend(names: Sequence[str], width: float, most: int) -> tuple[int, float]:
    """The number of a legend's columns, at most `most`, and its font size, so that it fits the width in inches."""
    letters = max(map(count_columns, names), default=0) + 7  # with the marker
    columns = max(1, min(most, int(14 * width / letters)))
    return columns, min(8, 8 * 14 * width / (columns * letters))


def _heat(heat: Heat) -> Figure:
    """Heat maps of corruptions x severities of up to MAPS models, with the accuracy in each field."""
    names, models = list(next(iter(heat.models.values()))), list(heat.models.items())[:MAPS]
    across = min(BESIDE, len(models))
    down = ceil(len(models) / across)
    means = {model: f"{model} ({100 * fmean(v for row in found.values() for v in row):.1f})" for model, found in models}
    titles = {model: wrap(text, 26) for model, text in means.items()}
    size = 1.4 + 1.75 * across, 0.2 + (0.8 + 0.1 * max(map(len, titles.values())) + 0.19 * len(names)) * down
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for axes, (model, accuracy) in zip(panels.flat, models, strict=False):
        _fill_map(axes, "\n".join(titles[model]), {name: accuracy[name] for name in names})
    for axes in panels.flat[len(models) :]:
        axes.set_visible(False)
    more = f" of {MAPS} of {len(heat.models)} models" if len(heat.models) > MAPS else ""
    figure.suptitle(f"{heat.title}: accuracy in % (mean){more}", fontsize=8)
    return figure


def _fill_map(axes: Axes, title: str, accuracy: Mapping[str, Sequence[float]]) -> None:
    """Draws a heat map.

    Args:
        axes: to draw into.
        title: of the map.
        accuracy: by corruption, the accuracies at severity 1 to 5, in [0, 1].
    """
    values = 100 * np.array(list(accuracy.values()))
    axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        tone = "white" if value < 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color=tone)
    axes.set_title(title, fontsize=8 if "\n" not in title else 7)
    axes.set_xticks(range(5), labels=list("12345"))
    axes.set_yticks(range(len(accuracy)), labels=[name.replace("_", " ") for name in accuracy])
    axes.set_xlabel("severity")
    axes.grid(False)


def _save(figure: Figure, format: str) -> bytes:
    """The bytes of a figure's file, without dates and versions."""
    FigureCanvasAgg(figure)
    buffer, dpi = BytesIO(), min(DPI, PIXELS / max(figure.get_size_inches()))
    with drawable(figure):
        about = {"Software": None} if format == "png" else {"Date": None}
        figure.savefig(buffer, format=format, dpi=dpi, metadata=about)
    return buffer.getvalue()
