"""Tables as markdown, LaTeX (booktabs), CSV and JSON: the same records give the same bytes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import pandas as pd

from rlbench.macro import Macro
from rlbench.standing import Difference, baseline_row, differences, ranks
from rlbench.tables import COMPARABLE, Score, Table, gravest

BEFORE = {"rank": "right", "model": "left", "soundness": "left", "n": "right"}  # columns that stand before the scores


@dataclass(frozen=True)
class Shown:
    """A table with what its statistics say.

    Attributes:
        baseline: that `minus` is against; its model's full name, or "" without one.
        ranks: by row; None where they are not known.
        best: by column the rows that no other row is shown to be above.
        minus: by row and column.
    """

    table: Table
    baseline: str = ""
    ranks: Sequence[tuple[int, int]] | None = None
    best: Mapping[str, frozenset[int]] = field(default_factory=dict)
    minus: Mapping[int, Mapping[str, Difference]] = field(default_factory=dict)

    def rank(self, k: int) -> str:
        """`1`, or `1-3` where the row is not told apart from its neighbours."""
        low, high = (self.ranks or [])[k]
        return f"{low}" if low == high else f"{low}-{high}"

    def soundness(self, k: int) -> str:
        """Of a row: the gravest badge of its cells."""
        return gravest(score.soundness for score in self.table.rows[k].scores.values())

    @property
    def before(self) -> list[str]:
        """Those of BEFORE that the table has."""
        audited = any(self.soundness(k) for k in range(len(self.table.rows)))
        return [name for name in BEFORE if name != "rank" or self.ranks if name != "soundness" or audited]

    def row(self, k: int) -> dict[str, str]:
        """What stands before the scores."""
        own = self.table.rows[k]
        values = {"model": own.model, "soundness": self.soundness(k) or "-", "n": str(own.n)}
        return {name: self.rank(k) if name == "rank" else values[name] for name in self.before}


def shown(table: Table, baseline: str | None = None) -> Shown:
    """The table with rank intervals, ties, and differences to the baseline where it has that row."""
    best = {}
    for column in table.columns:
        found = ranks(table, (column,))
        best[column] = frozenset(k for k, (low, _) in enumerate(found or ()) if low == 1)
    minus = differences(table, baseline) if baseline else {}
    base = baseline_row(table, baseline) if baseline else None
    return Shown(table, base.model if base else "", ranks(table), best, minus)


def grid(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a markdown table, every value a text."""
    return str(pd.DataFrame(rows).fillna("-").to_markdown(index=False, disable_numparse=True, colalign=None))


def markdown(one: Shown) -> str:
    """A heading, the table, its failures, the differences to the baseline, and what it was made of."""
    table, tied = one.table, len(one.table.rows) > 1

    def text(k: int, column: str) -> str:
        score = table.rows[k].scores.get(column)
        if score is None or score.error is not None or not tied or k not in one.best.get(column, ()):
            return "-" if score is None else str(score)
        return str(score).replace(" ", "** ", 1).join(("**", ""))

    rows = [one.row(k) | {column: text(k, column) for column in table.columns} for k in range(len(table.rows))]
    failures = [f"- failed: {line}".replace("\n", " ") for line in table.failures]
    hashes = " · ".join(f"{name} {table.facts[name]}" for name in COMPARABLE[5:] if table.facts[name] not in ("", None))
    parts = [f"## {table.title}", grid(rows), "\n".join(failures), _minus(one), f"{hashes} · {table.made_with}"]
    return "\n\n".join(part for part in parts if part)


def _minus(one: Shown) -> str:
    rows = [
        {f"minus {one.baseline}": one.table.rows[k].model} | {column: str(d) for column, d in by.items()}
        for k, by in one.minus.items()
    ]
    return grid(rows) if rows else ""


def macro_markdown(macro: Macro, baseline: str) -> str:
    """A heading, what the means are over, and the table."""
    rows = []
    for model, scores in macro.rows.items():
        minus = {f"{name} minus {baseline}": signed(score) for name, score in macro.minus.get(model, {}).items()}
        rows.append({"model": model} | {name: str(score) for name, score in scores.items()} | minus)
    about = f"Over {', '.join(macro.modalities)}: the suites {', '.join(macro.suites)}."
    left = f" Not in all of them: {', '.join(macro.partial)}." if macro.partial else ""
    return "\n\n".join([f"## Macro average of {macro.family}, backbone {macro.backbone}", about + left, grid(rows)])


def signed(score: Score) -> str:
    """A difference in points with its interval: `+3.9 [-2.7, 9.9]`."""
    return f"{100 * score.share:+.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"})


def latex(tables: Sequence[Shown]) -> str:
    r"""One booktabs table a part, for `\usepackage{booktabs}`; bold: no other row is shown to be above."""
    return "\n".join(map(_tabular, tables))


def _tabular(one: Shown) -> str:
    table = one.table

    def text(k: int, column: str) -> str:
        score = table.rows[k].scores.get(column)
        if score is None or score.error is not None:
            return "--" if score is None else "failed"
        share = f"{100 * score.share:.1f}"
        share = rf"\textbf{{{share}}}" if k in one.best.get(column, ()) else share
        return rf"{share} {{\scriptsize [{100 * score.low:.1f}, {100 * score.high:.1f}]}}"

    head = [name.translate(_LATEX) for name in (*one.before, *table.columns)]
    rows = [
        [v.translate(_LATEX).replace("-", "--" if name == "rank" else "-") for name, v in one.row(k).items()]
        + [text(k, column) for column in table.columns]
        for k in range(len(table.rows))
    ]
    columns = "".join("l" if BEFORE[name] == "left" else "r" for name in one.before) + "r" * len(table.columns)
    body = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{table.title.translate(_LATEX)}; accuracy in \% with 95\% interval}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def cells(one: Shown) -> list[dict[str, Any]]:
    """One row a cell of the table, shares in [0, 1]; None where something is not known."""
    found = []
    for k, row in enumerate(one.table.rows):
        low, high = one.ranks[k] if one.ranks else (None, None)
        for column in one.table.columns:
            if (score := row.scores.get(column)) is None:
                continue
            minus = one.minus.get(k, {}).get(column)
            fields = ("points", "only_own", "only_other", "p", "p_holm")
            found.append(
                {name: one.table.facts[name] for name in COMPARABLE}
                | {"model": row.model, "n": row.n, "column": column, "error": score.error}
                | {name: round(getattr(score, name), 6) for name in ("share", "low", "high")}
                | {"soundness": score.soundness, "rank_low": low, "rank_high": high, "tied_best": k in one.best[column]}
                | {f"minus_{name}": None if minus is None else _rounded(getattr(minus, name)) for name in fields}
            )
    return found


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def as_csv(tables: Sequence[Shown]) -> str:
    """All tables' cells, with a line of names."""
    rows = [row for one in tables for row in cells(one)]
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["suite"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(tables: Sequence[Shown], macros: Sequence[Macro], baseline: str) -> str:
    """{"baseline", "cells": one object a cell, "macro": one object a backbone, model and measure}."""
    means: list[dict[str, Any]] = []
    for macro in macros:
        for model, scores in macro.rows.items():
            for name, score in scores.items():
                minus = macro.minus.get(model, {}).get(name)
                means.append(
                    {
                        "family": macro.family,
                        "backbone": macro.backbone,
                        "suites": macro.suites,
                        "model": model,
                        "measure": name,
                    }
                    | {end: round(getattr(score, end), 6) for end in ("share", "low", "high")}
                    | {f"minus_{e}": minus and round(getattr(minus, e), 6) for e in ("share", "low", "high")}
                )
    whole = {"baseline": baseline, "cells": [row for one in tables for row in cells(one)], "macro": means}
    return json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
