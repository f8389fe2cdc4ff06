"""Tables in LaTeX, for the package booktabs. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from rlbench.report.boards.by_task import TaskTable, rows_of
from rlbench.report.boards.formats import BEFORE, Shown
from rlbench.store.columns import Column

_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≤": r"$\leq$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def latex(tables: Sequence[Shown], several: Sequence[TaskTable]) -> str:
    r"""One table environment per suite of several tasks, then one per table, for `\usepackage{booktabs}`.

    Args:
        tables: of all comparable parts.
        several: from `by_task.by_task`.
    """
    return "\n".join([*map(_tabulate_tasks, several), *map(_tabular, tables)])


def _tabulate_tasks(one: TaskTable) -> str:
    """The rows of `by_task.rows_of`."""
    rows = rows_of(one)
    caption = f"{one.title}, task by task; accuracy in %, the mean with 95% interval".translate(_LATEX)
    columns = "".join("l" if name in ("under", "model") else "r" for name in rows[0])
    body = [["--" if text == "-" else text.translate(_LATEX) for text in row.values()] for row in rows]
    return _environment(caption, columns, [name.translate(_LATEX) for name in rows[0]], body)


def _tabular(one: Shown) -> str:
    """A table environment; bold as in markdown."""
    table = one.table

    def text(k: int, column: Column) -> str:
        score = table.rows[k].scores.get(column)
        if score is None or score.error is not None:
            return "--" if score is None else "failed"
        share = r"$\leq$ " * score.bound + f"{100 * score.share:.1f}"
        share = rf"\textbf{{{share}}}" if one.bold(k, column) else share
        return rf"{share} {{\scriptsize [{100 * score.low:.1f}, {100 * score.high:.1f}]}}"

    head = [name.translate(_LATEX) for name in (*one.before, *table.columns)]
    body = [
        [v.translate(_LATEX).replace("-", "--" if name == "rank" else "-") for name, v in one.row(k).items()]
        + [text(k, column) for column in table.columns]
        for k in range(len(table.rows))
    ]
    columns = "".join("l" if BEFORE[name] == "left" else "r" for name in one.before) + "r" * len(table.columns)
    notes = "".join(f"; {line}" for line in one.notes).translate(_LATEX)
    caption = rf"{table.title.translate(_LATEX)}; accuracy in \% with 95\% interval{notes}"
    return _environment(caption, columns, head, body)


def _environment(caption: str, columns: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table environment of texts in LaTeX."""
    first, *rows = (" & ".join(row) + r" \\" for row in (head, *body))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            first,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
