"""Listings, result tables and progress on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from math import ceil
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.segment import Segment
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from rlbench.core.badges import MARK, is_doubtful
from rlbench.core.errors import printable

if TYPE_CHECKING:
    from rlbench.core import Record
    from rlbench.engine.plan.types import PlannedCell
    from rlbench.report.boards.by_task import TaskTable
    from rlbench.report.boards.scores import Score, Table
    from rlbench.training.loop import Step


EVERY = 5.0  # seconds between two plain lines of progress
WIDE = 400  # columns of a console that is not a terminal, so that a log has no folded lines
FOLDED = 120  # columns above which such a console transposes a table


class _Printable(RenderHook):
    """Removes control characters from everything printed, since names come from files."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Clean(one) for one in renderables]


class _Clean:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self.inner, options):
            yield Segment(text if control else "\n".join(map(printable, text.split("\n"))), style, control)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.inner)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves a closed pipe to the command, where rich exits with 1."""
        raise  # rich calls it while it handles the error


def console(stream: TextIO | None = None) -> Console:
    """A console on a stream (default: stdout), as wide as its terminal, or WIDE; without markup."""
    stream = sys.stdout if stream is None else stream
    width = None if stream.isatty() else WIDE
    out = _Console(file=stream, width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)
    out.push_render_hook(_Printable())
    return out


def listing(rows: Sequence[Mapping[str, object]], out: Console) -> None:
    """Prints rows with the same keys as a table, the first column in bold."""
    lines = any("\n" in str(value) for row in rows for value in row.values())
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), leading=int(lines))
    for index, name in enumerate(rows[0] if rows else ()):
        table.add_column(name, style="bold" if index == 0 else "", no_wrap=name != "about" and name != "summary")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    out.print(table)


def as_json(rows: Iterable[object]) -> str:
    """A JSON array with one row per line."""
    lines = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows]
    return "[" + ",\n ".join(lines) + "]"


def scores(table: Table, out: Console) -> None:
    """Prints one row per model, or one column per model if that is too wide; failures and notes below."""
    width = out.width if out.is_terminal else FOLDED
    layouts = (_upright(table), _transpose(table), _transpose(table, folded=True))
    whole = out.options.update(width=10 * WIDE)
    fitting = [grid for grid in layouts if out.measure(grid, options=whole).maximum <= width]
    out.print(Text(_title(table), style="bold"))
    out.print(fitting[0] if fitting else layouts[-1])
    for line in table.failures:
        out.print(Text(f"failed: {line}", style="bold red"))
    for line in table.notes:
        out.print(Text(f"note: {line}", style="dim"))


def tasks(table: TaskTable, out: Console) -> None:
    """Prints a table per model: a row per task, and the mean over tasks."""
    for model, own in table.scores.items():
        grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        grid.add_column("", no_wrap=True)
        for column in table.columns:
            grid.add_column(column, justify="right", no_wrap=True)
        for k, task in enumerate(table.tasks):
            grid.add_row(task, *(_cell(own[column][k]) for column in table.columns))
        means = [_cell(table.means[model].get(column)) for column in table.columns]
        grid.add_row(f"mean of {len(table.tasks)}", *means, style="bold")
        out.print()
        out.print(Text(f"{table.title}, {model}; accuracy in % [95% interval]", style="bold"))
        out.print(grid)
    for line in (line for one in table.members for line in one.failures):
        out.print(Text(f"failed: {line}", style="bold red"))
    for line in dict.fromkeys(f"{one.facts['task']}: {note}" for one in table.members for note in one.notes):
        out.print(Text(f"note: {line}", style="dim"))


def _cell(score: Score | None, *, folded: bool = False) -> Text:
    if score is None:
        return Text("-", style="dim")
    return Text(_mark(score, folded=folded), style="bold red" if score.error is not None else "")


def _mark(score: Score, *, folded: bool = False) -> str:
    """A score's text, with MARK before it if it is not sound; folded: in two lines."""
    text = str(score).replace(" ", "\n", 1) if folded else str(score)
    return f"{MARK} {text}" if score.error is None and is_doubtful(score.soundness) else text


def _title(table: Table) -> str:
    size = "" if "n" in table.apart else f", n = {table.facts['n']}"
    return f"{table.title}{size}; accuracy in % [Wilson 95% interval]"


def _upright(table: Table) -> RichTable:
    grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid.add_column("model", style="bold", no_wrap=True)
    for column in table.columns:
        grid.add_column(column, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(row.model, *(_cell(row.scores.get(column)) for column in table.columns))
    return grid


def _transpose(table: Table, *, folded: bool = False) -> RichTable:
    """One column per model; folded: a cell takes two lines."""
    grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for row in table.rows:
        grid.add_column(row.model.replace(":", ":\n") if folded else row.model, justify="right")
    for column in table.columns:
        cells = (_cell(row.scores.get(column), folded=folded) for row in table.rows)
        grid.add_row(Text(column), *cells, style="bold" if column.is_worst else "")
    return grid


def records_json(records: Iterable[Record]) -> str:
    """The records as a JSON array."""
    return cells_json(records)


def cells_json(cells: Iterable[Record | PlannedCell]) -> str:
    """Records or planned cells as a JSON array, their perturbations as text and as fields."""
    from rlbench.store.perturbations import to_mapping

    kept = [{one.name: getattr(cell, one.name) for one in fields(cell)} for cell in cells]
    return as_json(
        {**values, **to_mapping(cell.perturbation), "perturbation": str(cell.perturbation)}
        for cell, values in zip(cells, kept, strict=True)
    )


def results(records: Sequence[Record], out: Console) -> None:
    """Prints the tables of these records, one per suite and number of examples, with each model's badge."""
    from rlbench.report.boards.badges import lines
    from rlbench.report.boards.by_task import by_task
    from rlbench.report.boards.tables import frame, tables

    whole = tables(frame(records)) if records else []
    found = [table for table in whole if not table.has_sensors]
    several = by_task(found)
    joined = [table for one in several for table in one.members]
    for one in several:
        tasks(one, out)
        badges(list(dict.fromkeys(line for table in one.members for line in lines(table, records))), out)
    for table in (table for table in found if table not in joined):
        out.print()
        scores(table, out)
        badges(lines(table, records), out)
    together(whole, records, out)
    recalls = [row for record in records if (row := describe_recalls(record))]
    for columns in dict.fromkeys(map(tuple, recalls)):
        out.print()
        listing([row for row in recalls if tuple(row) == columns], out)
    for name in sorted({record.backbone for record in records if record.backbone.startswith("mini")}):
        out.print(f"{name} is a small model organism: its numbers are not LanguageBind's.", style="dim")


def together(found: Sequence[Table], records: Sequence[Record], out: Console) -> None:
    """Prints the tables of tasks with several sensors, their summary, and the badges."""
    from rlbench.report.boards import sensors
    from rlbench.report.boards.badges import lines

    own = sensors.sensor_tables(found)
    for table in own:
        out.print()
        out.print(Text(f"{table.title}; accuracy in % [95% interval]", style="bold"))
        listing(table.grid(_mark), out)
    for group, those in sensors.groups(own).items():
        out.print()
        out.print(Text(f"sensors together, {group}; accuracy in % [95% interval]", style="bold"))
        listing(sensors.summary(those, _mark), out)
        for line in sensors.verdicts(those):
            out.print(line)
    fused = [table for table in found if table.has_sensors]
    for line in (f"failed: {line}" for table in fused for line in table.failures):
        out.print(Text(line, style="bold red"))
    badges(list(dict.fromkeys(line for table in fused for line in lines(table, records))), out)


def doubts(records: Sequence[Record], out: Console) -> None:
    """Prints only the badges that are not sound."""
    from rlbench.report.boards.badges import lines
    from rlbench.report.boards.tables import frame, tables

    found = [line for table in tables(frame(records)) for line in lines(table, records)]
    badges([line for line in found if not line.endswith(": sound")], out)


def badges(found: Sequence[str], out: Console) -> None:
    """Prints the lines of `rlbench.report.boards.badges` and the meaning of the mark in the table."""
    for line in found:
        out.print(Text(line, style="" if line.endswith(": sound") else "bold red"), soft_wrap=True)
    if any(not line.endswith(": sound") for line in found):
        out.print(f"{MARK} not sound; run `rlbench audit` for the reasons", style="dim")


def describe_recalls(record: Record) -> dict[str, str]:
    """A record's recalls in %, bounds with ≤ (see `recalls`); empty if it has none."""
    from rlbench.report.boards.recall import recalls

    facts = {"n": record.n, "task": record.task, **record.provenance}
    shown = {name: text for name, text in recalls(facts, record.perturbation).items() if "R@" in name}
    about = {"model": record.model, "queries": record.modality, "task": record.task}
    return {**about, "retrieval, %": str(record.perturbation), **shown} if shown else {}


Advance = Callable[[str, int, int, str], None]  # what is running, done, total, and a remark


@contextmanager
def progress(*, quiet: bool) -> Iterator[Advance]:
    """A progress bar on stderr if it is a terminal, else a plain line every EVERY seconds; quiet: nothing."""
    if quiet:
        yield lambda what, done, total, remark: None
    elif sys.stderr.isatty():
        what = TextColumn(
            "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        )
        remark = TextColumn("{task.fields[remark]}", markup=False, table_column=Column(no_wrap=True))
        with Bar(what, BarColumn(16), remark, console=console(sys.stderr), transient=True, expand=True) as bar:
            task = bar.add_task("", total=None, remark="")
            yield lambda what, done, total, remark: bar.update(
                task, description=what, completed=done, total=total, remark=remark
            )
    else:
        yield _lines()


def remark(step: Step) -> str:
    """`step 3 of 10, loss 0.523`, or `example 512 of 6000` while they are rendered."""
    loss = "" if step.loss is None else f", loss {step.loss:.3f}"
    return f"{step.what} {step.step} of {step.steps}{loss}"


def _lines() -> Advance:
    last = time.monotonic()

    def line(what: str, done: int, total: int, remark: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            console(sys.stderr).print(f"{100 * done // max(total, 1):3d}%  {what}  {remark}")

    return line


def clock(seconds: float) -> str:
    """Seconds as `1:05` (minutes) or `2:01:05` (hours), rounded up."""
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
