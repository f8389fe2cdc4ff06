"""Tables as markdown, CSV and JSON. The same records give the same bytes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from typing import Any

from rlbench.core.badges import DOUBTED, worst_badge
from rlbench.core.markdown import escape, grid
from rlbench.report.boards.averages import Macro
from rlbench.report.boards.ranks import Difference, baseline_row, differences, ranks
from rlbench.report.boards.scores import Score, Table, mark_name
from rlbench.report.boards.tables import COMPARABLE
from rlbench.store.columns import Column

BEFORE = {  # columns before the scores, with their alignment
    **{"rank": "right", "model": "left", "backbone": "left", "anchors": "left", "warning": "left"},
    **{"soundness": "left", "n": "right"},
}


@dataclass(frozen=True)
class Shown:
    """A table with its statistics.

    Attributes:
        table: the scores.
        baseline: full name of the model that differences are to; "" without one.
        ranks: by row, the first and last rank (see `ranks.ranks`); None if they are not known.
        best: by column, the rows that no other row is significantly above.
        minus: by index of the row and column, the difference to the baseline.
    """

    table: Table
    baseline: str = ""
    ranks: Sequence[tuple[int, int] | None] | None = None
    best: Mapping[Column, frozenset[int]] = field(default_factory=dict)
    minus: Mapping[int, Mapping[Column, Difference]] = field(default_factory=dict)

    def rank(self, k: int) -> str:
        """The rank of row k: `1`, or `1-3` if it is tied; `-` for a row that is not on the table's scale."""
        low, high = (self.ranks or [])[k] or (0, 0)
        return "-" if not low else f"{low}" if low == high else f"{low}-{high}"

    def soundness(self, k: int) -> str:
        """The badge of row k."""
        return self.table.rows[k].soundness

    @cached_property
    def before(self) -> list[str]:
        """The columns of BEFORE that the table has; those of backbone and anchors only if rows differ in them."""
        rows = self.table.rows
        present = {
            "rank": bool(self.ranks),
            "backbone": not self.table.backbone,
            "anchors": len({row.anchors for row in rows}) > 1 or (not self.table.backbone and bool(rows[0].anchors)),
            "warning": any(row.warning for row in rows),
            "soundness": any(self.soundness(k) for k in range(len(rows))),
        }
        return [name for name in BEFORE if present.get(name, True)]

    def row(self, k: int) -> dict[str, str]:
        """The values of row k in the columns before the scores."""
        own = self.table.rows[k]
        values = {"model": own.model, "backbone": own.backbone or "-", "anchors": own.anchors[:8] or "-"}
        values |= {"warning": own.warning or "-", "soundness": self.soundness(k) or "-", "n": str(own.n)}
        return {name: self.rank(k) if name == "rank" else values[name] for name in self.before}

    def bold(self, k: int, column: Column) -> bool:
        """Whether the score is bold: no other row is significantly above, there are others, and it is not in doubt."""
        doubted = self.table.rows[k].scores[column].soundness in DOUBTED
        return len(self.table.rows) > 1 and k in self.best.get(column, ()) and not doubted

    @property
    def notes(self) -> list[str]:
        """Lines below the table: failed cells, and limits of its numbers."""
        table = self.table
        found = [f"failed: {line}" for line in table.failures]
        exact = [column for column in table.columns if not column.is_bound]
        usual = tuple(column for column in exact if column.is_worst) or tuple(exact)
        if self.ranks and table.scale != usual:
            found.append(f"note: ranked by the mean of {', '.join(table.scale)}")
        if any(row.warning for row in table.rows):
            found.append(
                "note: rows with other prompts differ by the choice of templates, and not by their encoder alone"
            )
        return [line.replace("\n", " ") for line in (*found, *(f"note: {line}" for line in table.notes))]


def prepare_table(table: Table, baseline: str | None = None) -> Shown:
    """The table with rank intervals, ties, and differences to the baseline if it has one.

    Args:
        table: of scores.
        baseline: a model, or a method without its backbone; None for no differences.
    """
    best = {}
    for column in table.columns:
        found = ranks(table, (column,))
        best[column] = frozenset(k for k, place in enumerate(found or ()) if place and place[0] == 1)
    minus = differences(table, baseline) if baseline else {}
    base = baseline_row(table, baseline) if baseline else None
    return Shown(table, base.model if base else "", ranks(table), best, minus)


def markdown(one: Shown) -> str:
    """A heading, the table, its notes, the differences to the baseline, and the provenance."""
    table = one.table

    def text(k: int, column: Column) -> str:
        score = table.rows[k].scores.get(column)
        if score is None or not one.bold(k, column):
            return "-" if score is None else str(score)
        return str(score).replace(" ", "** ", 1).join(("**", ""))

    rows = [one.row(k) | {column: text(k, column) for column in table.columns} for k in range(len(table.rows))]
    notes = "\n".join(f"- {escape(line)}" for line in one.notes)
    parts = [f"## {escape(table.title)}", grid(rows), notes, _format_minus(one), f"{hashes(one)} · {table.made_with}"]
    return "\n\n".join(part for part in parts if part)


def hashes(one: Shown) -> str:
    """The hashes and the seed that all rows share: `data 12ab · anchors 34cd · seed 0`."""
    facts = dict(one.table.facts) | {"anchors": "" if "anchors" in one.before else one.table.rows[0].anchors}
    named = [(name, facts[name]) for name in ("data", "anchors", "seed")]
    return " · ".join(f"{name} {value}" for name, value in named if value not in ("", None))


def _format_minus(one: Shown) -> str:
    """The markdown table of differences to the baseline; "" without any."""
    rows = [
        {f"minus {one.baseline}": one.table.rows[k].marked_name} | {column: str(d) for column, d in by.items()}
        for k, by in one.minus.items()
    ]
    return grid(rows) if rows else ""


def macro_markdown(macro: Macro, baseline: str) -> str:
    """A heading, the suites that the means are over, and the table.

    Args:
        macro: the averages of a family of suites.
        baseline: name of the model that differences are to, for the headings of their columns.
    """
    rows = []
    for model, scores in macro.rows.items():
        minus = {
            f"{name} minus {baseline}": format_difference(score) for name, score in macro.minus.get(model, {}).items()
        }
        badge = worst_badge(score.soundness for score in scores.values())
        rows.append({"model": mark_name(model, badge)} | {name: str(score) for name, score in scores.items()} | minus)
    about = f"Over {', '.join(macro.modalities)}: the suites {', '.join(macro.suites)}."
    left = f" Not in all of them: {', '.join(macro.partial)}." if macro.partial else ""
    backbone = f", backbone {macro.backbone}" if macro.backbone else ""
    return "\n\n".join([f"## Macro average of {macro.family}{backbone}", about + left, grid(rows)])


def format_difference(score: Score) -> str:
    """A difference in points with its interval: `+3.9 [-2.7, 9.9]`."""
    return f"{100 * score.share:+.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def cells(one: Shown) -> list[dict[str, Any]]:
    """One dictionary per cell of the table, with shares in [0, 1]; None for what is not known.

    A failed cell has its error and no share; if `bound` is true, the share is an upper bound.
    """
    found = []
    facts = {name: one.table.facts[name] for name in COMPARABLE}
    for k, row in enumerate(one.table.rows):
        low, high = (one.ranks[k] if one.ranks else None) or (None, None)
        for column in one.table.columns:
            if (score := row.scores.get(column)) is None:
                continue
            minus = one.minus.get(k, {}).get(column)
            names = ("points", "only_own", "only_other", "p", "p_holm")
            values = {
                name: None if score.error else round(getattr(score, name), 6) for name in ("share", "low", "high")
            }
            found.append(
                facts
                | {"model": row.model, "backbone": row.backbone, "anchors": row.anchors, "warning": row.warning}
                | {"n": row.n, "column": column, "error": score.error, **values, "bound": score.bound}
                | {"soundness": score.soundness, "rank_low": low, "rank_high": high, "tied_best": k in one.best[column]}
                | {f"minus_{name}": None if minus is None else _round(getattr(minus, name)) for name in names}
            )
    return found


def _round(value: float) -> float:
    """To six significant digits, so that bytes do not depend on the machine; counts stay as they are."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def as_csv(tables: Sequence[Shown], means: Sequence[Mapping[str, Any]]) -> str:
    """The cells of all tables (see `cells`), one per line, after a line of names; then the means over tasks.

    Args:
        tables: of all comparable parts.
        means: from `by_task.mean_cells`; their task is such as "mean of 13 tasks", and what only a cell has is empty.
    """
    rows = [row for one in tables for row in cells(one)]
    text = StringIO()
    names = list(rows[0]) if rows else ["suite"]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, *means])
    return text.getvalue()


def as_json(
    tables: Sequence[Shown], macros: Sequence[Macro], baseline: str, by_task: Sequence[Mapping[str, Any]]
) -> str:
    """An object with the keys `baseline`, `cells`, `notes`, `by_task` and `macro`.

    `cells` has one object per cell (see `cells`), `notes` the notes by title of the table, `by_task` one object per
    mean over the tasks of a suite, and `macro` one object per model and measure.

    Args:
        tables: of all comparable parts.
        macros: averages over modalities.
        baseline: that differences are to, as the caller named it; "" without one.
        by_task: from `by_task.mean_cells`.
    """
    means: list[dict[str, Any]] = []
    for macro in macros:
        for model, scores in macro.rows.items():
            for name, score in scores.items():
                minus = macro.minus.get(model, {}).get(name)
                means.append(
                    {
                        "family": macro.family,
                        "backbone": macro.backbones[model],
                        "suites": macro.suites,
                        "model": model,
                        "measure": name,
                        "bound": score.bound,
                        "soundness": score.soundness,
                    }
                    | {end: round(getattr(score, end), 6) for end in ("share", "low", "high")}
                    | {f"minus_{e}": minus and round(getattr(minus, e), 6) for e in ("share", "low", "high")}
                )
    notes = {one.table.title: one.notes for one in tables if one.notes}
    document = {
        "baseline": baseline,
        "cells": [row for one in tables for row in cells(one)],
        "notes": notes,
        "by_task": by_task,
        "macro": means,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
