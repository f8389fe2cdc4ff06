"""Suites of several tasks: every model's accuracies task by task, and their unweighted mean.

The mean's interval is made of the tasks' own intervals, by the squares of their halves (Zou and Donner, 2008,
https://doi.org/10.1002/sim.3095), so that it is not empty where all shares are 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import fmean
from typing import Any

from rlbench.core.badges import worst_badge
from rlbench.core.markdown import grid
from rlbench.report.boards.averages import choose_largest
from rlbench.report.boards.scores import Score, Table, mark_name
from rlbench.store.columns import Column

READING = (
    "Suites of several tasks, task by task: accuracy in %; `mean` is their unweighted mean, with an interval "
    "that is made of the tasks' own ones (Zou and Donner, 2008). It is missing where a task is missing or failed."
)


@dataclass(frozen=True)
class TaskTable:
    """A suite's tasks side by side.

    Attributes:
        title: the suite, its version and the modality.
        suite: its name.
        tasks: their names, without what all have in common.
        columns: what was measured.
        scores: by model and column one for each task; None where it was not measured.
        means: by model and column; none where a task is missing or failed.
        members: the tables that it is made of.
    """

    title: str
    suite: str
    tasks: tuple[str, ...]
    columns: tuple[Column, ...]
    scores: Mapping[str, Mapping[Column, Sequence[Score | None]]]
    means: Mapping[str, Mapping[Column, Score]]
    members: tuple[Table, ...]

    def order(self, column: Column) -> list[str]:
        """The models that have the column, those with the highest mean first, those without a mean last."""
        having = [model for model, own in self.scores.items() if any(own[column])]
        return sorted(having, key=lambda model: (-_share(self.means[model].get(column)), model))


def _share(score: Score | None) -> float:
    return -1.0 if score is None else score.share


def by_task(tables: Sequence[Table]) -> list[TaskTable]:
    """The suites that have two tasks or more of one modality, in the order of the tables.

    Of a task that has several tables (other data, seeds or numbers of examples) the one with most examples counts.
    Tables with several sensors are left out: their suites compare fusions, which nothing is a mean of.
    """
    found: dict[tuple[object, ...], list[Table]] = {}
    for table in choose_largest([table for table in tables if not table.has_sensors]):
        found.setdefault(tuple(table.facts[name] for name in ("modality", "suite", "suite_version")), []).append(table)
    return [_task_table(those) for those in found.values() if len(those) > 1]


def _task_table(tables: Sequence[Table]) -> TaskTable:
    facts, models = tables[0].facts, sorted({row.model for table in tables for row in table.rows})
    columns = sorted({column for table in tables for column in table.columns}, key=lambda column: column.order)
    scores = {
        model: {column: [_score(table, model, column) for table in tables] for column in columns} for model in models
    }
    means = {
        model: {column: mean for column, row in own.items() if (mean := _mean(row)) is not None}
        for model, own in scores.items()
    }
    n = sorted({str(table.facts["n"]) for table in tables}, key=int)
    title = (
        f"{facts['suite']} v{facts['suite_version']}: {facts['modality']}, {len(tables)} tasks, n = {' or '.join(n)}"
    )
    names = shorten_names([str(table.facts["task"]) for table in tables])
    return TaskTable(title, str(facts["suite"]), names, tuple(columns), scores, means, tuple(tables))


def shorten_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks without their first parts, if they stay different: wds/vtab/pets becomes pets."""
    short = tuple(name.rpartition("/")[2] for name in names)
    return short if len(set(short)) == len(names) else tuple(names)


def _score(table: Table, model: str, column: Column) -> Score | None:
    return next((row.scores[column] for row in table.rows if row.model == model and column in row.scores), None)


def _mean(row: Sequence[Score | None]) -> Score | None:
    """The mean of shares with an interval; None where one is missing or failed."""
    there = [score for score in row if score is not None and score.error is None]
    if len(there) < len(row):
        return None
    share = fmean(score.share for score in there)
    below, above = (
        hypot(*(getattr(score, end) - score.share for score in there)) / len(there) for end in ("low", "high")
    )
    badge = worst_badge(score.soundness for score in there)
    bound = any(score.bound for score in there)
    return Score(share, max(share - below, 0.0), min(share + above, 1.0), bound=bound, soundness=badge)


def rows_of(table: TaskTable) -> list[dict[str, str]]:
    """One row a column and model, the accuracy on each task without its interval."""
    rows = []
    for column in table.columns:
        for model in table.order(column):
            mean = table.means[model].get(column)
            own = table.scores[model][column]
            badge = worst_badge(score.soundness for score in own if score is not None)
            values = {task: _percent(score) for task, score in zip(table.tasks, own, strict=True)}
            about = {"under": str(column), "model": mark_name(model, badge)}
            rows.append(about | {"mean": str(mean) if mean is not None else "-"} | values)
    return rows


def _percent(score: Score | None) -> str:
    if score is None:
        return "-"
    return "failed" if score.error is not None else f"{'≤ ' * score.bound}{100 * score.share:.1f}"


def mean_cells(several: Sequence[TaskTable]) -> list[dict[str, Any]]:
    """One dictionary per column and model with a mean, in the order of `rows_of`, with shares in [0, 1].

    `tasks` has the share on each task by its full name; if `bound` is true, shares are upper bounds.
    """
    found = []
    for table in several:
        facts = {name: table.members[0].facts[name] for name in ("modality", "suite", "suite_version")}
        names = [str(member.facts["task"]) for member in table.members]
        for column in table.columns:
            for model in table.order(column):
                if (mean := table.means[model].get(column)) is None:
                    continue
                shares = [round(score.share, 6) for score in table.scores[model][column] if score is not None]
                found.append(
                    facts
                    | {"task": f"mean of {len(names)} tasks", "model": model, "column": column}
                    | {end: round(getattr(mean, end), 6) for end in ("share", "low", "high")}
                    | {"bound": mean.bound, "soundness": mean.soundness}
                    | {"tasks": dict(zip(names, shares, strict=True))}
                )
    return found


def grids(tables: Sequence[Table]) -> dict[str, list[str]]:
    """By suite of several tasks, a heading and a markdown table for each modality."""
    found: dict[str, list[str]] = {}
    for one in by_task(tables):
        found.setdefault(one.suite, []).extend([f"## {one.title}, task by task", grid(rows_of(one))])
    return found


def sections(tables: Sequence[Table]) -> list[str]:
    """Markdown: what the numbers mean, then the suites of several tasks; nothing without any."""
    found = [text for texts in grids(tables).values() for text in texts]
    return [READING, *found] if found else []
