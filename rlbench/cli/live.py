"""What `rlbench run` shows while it computes: the table as it fills, or in a log a line per finished cell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlbench.cli.console import clock, console
from rlbench.core import Adversarial, Clean, Composed, Corrupted, Edited, Perturbation
from rlbench.core.stats.metrics import wilson

if TYPE_CHECKING:
    from rlbench.engine.run.progress import CellProgress, Progress

Pair = tuple[str, str, str]  # names of a suite, a task and a model
SINGLE_STEP = ("fgsm", "noise", "pgd")
SECOND = 2  # updates of the screen per second, at most
SETTLED = 3.0  # seconds of passes after which their rate is shown
ABOUT = "accuracy in % [Wilson 95% interval]; ≤ can still fall"


class Row(NamedTuple):
    """A row of the table, as text: what was run, accuracy, interval and number of finished examples."""

    name: str
    accuracy: str
    interval: str
    n: str


@contextmanager
def loading(*, quiet: bool) -> Iterator[None]:
    """Says on a terminal that a run begins while the block loads what it needs; quiet: says nothing."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with console(sys.stderr).status("loading"):
        yield


@contextmanager
def watch(results: Console, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Yields a function that shows the progress on stderr: a table on a terminal, else lines; quiet: nothing.

    At Ctrl-C, the tables so far are printed where the results of a whole run would be.
    """
    latest: list[Progress] = []
    try:
        with _display(quiet=quiet) as show:

            def report(progress: Progress) -> None:
                latest[:] = [progress]
                show(progress)

            yield report
    except KeyboardInterrupt:
        for progress in latest:
            snapshot(progress, results)
        raise


@contextmanager
def _display(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        out, screen = console(sys.stderr), Screen()
        with Live(screen, console=out, refresh_per_second=SECOND, transient=True):
            yield screen.show
    else:
        yield Lines(console(sys.stderr)).show


class Screen:
    """The table of the pair that makes progress, with the remaining time below; rich renders it."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.pair: Pair | None = None
        self.decided: dict[Pair, int] = {}

    def show(self, progress: Progress) -> None:
        """Takes the newest progress."""
        parts = _pairs(progress.cells)
        new = {pair: sum(cell.decided + cell.finished for cell in cells) for pair, cells in parts.items()}
        moved = [pair for pair, decided in new.items() if decided != self.decided.get(pair, 0)]
        if self.pair is None or (moved and self.pair not in moved):
            waiting = [pair for pair, cells in parts.items() if not all(cell.finished for cell in cells)]
            self.pair = next(iter([*moved, *waiting, *parts]), None)
        self.progress, self.decided = progress, new

    def __rich__(self) -> Group | Text:
        if self.progress is None or self.pair is None:
            return Text("starting", style="dim")
        parts = _pairs(self.progress.cells)
        done = sum(all(cell.finished for cell in cells) for cells in parts.values())
        count = f"{done} of {len(parts)} tables finished; " if len(parts) > 1 else ""
        return Group(*table(self.pair, parts[self.pair]), Text(count + time_left(self.progress), style="dim"))


class Lines:
    """A line per cell that finishes."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self.finished: set[int] | None = None  # indices of the cells; None before the first report

    def show(self, progress: Progress) -> None:
        """Prints the cells that have finished since the last call, and none at the first one."""
        now = {k for k, cell in enumerate(progress.cells) if cell.finished}
        before = now if self.finished is None else self.finished
        for done, k in enumerate(sorted(now - before), len(before) + 1):
            cell = progress.cells[k]
            row = describe([cell])
            at = f"{done} of {len(progress.cells)} cells, {time_left(progress)}"
            self.out.print(
                f"{cell.suite} {cell.task} {cell.model}  {row.name}  {row.accuracy} {row.interval}  n = {row.n}  ({at})"
            )
        self.finished = now


def snapshot(progress: Progress, out: Console) -> None:
    """Prints the tables so far, of the pairs of which anything is known."""
    for pair, cells in _pairs(progress.cells).items():
        if any(cell.decided for cell in cells):
            out.print()
            for part in table(pair, cells):
                out.print(part)


def table(pair: Pair, cells: Sequence[CellProgress]) -> tuple[Text, Table]:
    """A heading, and a row per cell in the order of `turn`; corruptions are one row per severity."""
    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for name in ("accuracy", "interval", "n"):
        grid.add_column(name, justify="right", no_wrap=True)
    merged: dict[object, list[CellProgress]] = {}
    for cell in sorted(cells, key=lambda cell: turn(cell.perturbation)):
        p = cell.perturbation
        merged.setdefault(p.severity if isinstance(p, Corrupted) else p, []).append(cell)
    for group in merged.values():
        row = describe(group)
        style = "" if all(cell.finished for cell in group) else "dim"
        grid.add_row(*(Text(text, style="bold red" if text == "failed" else style) for text in row))
    suite, task, model = pair
    return Text(f"{suite} on {task}, {model}: {ABOUT}", style="bold"), grid


def turn(p: Perturbation) -> tuple[int, int]:
    """The place of a perturbation in the table: clean, corruptions, PGD, APGD, targeted attacks, worst cases."""
    if isinstance(p, Clean):
        return 0, 0
    if isinstance(p, Corrupted):
        return 1, p.severity
    if isinstance(p, Edited):
        return 1, 6
    attack = p.adversarial if isinstance(p, Composed) else p
    if not isinstance(attack, Adversarial):
        return 6, 0
    untargeted = attack.attack in ("apgd-ce", "apgd-dlr")
    return 2 + isinstance(p, Composed), 0 if attack.attack in SINGLE_STEP else 1 if untargeted else 2


def describe(cells: Sequence[CellProgress]) -> Row:
    """The row of a cell, or of the mean over several corruptions at one severity."""
    first = cells[0]
    if len(cells) == 1:
        return Row(str(first.perturbation), *_score(first))
    name = f"{len(cells)} corruptions at {getattr(first.perturbation, 'severity', '')}"
    done = [cell for cell in cells if cell.finished and cell.share is not None]
    count = f"{len(done)} of {len(cells)} cells" if len(done) < len(cells) else str(first.n)
    if not done:
        return Row(name, "-", "", count)
    share = fmean(cell.share or 0.0 for cell in done)
    return Row(name, f"{100 * share:.1f}", _percent(*wilson(share * first.n, first.n)), count)


def _score(cell: CellProgress) -> tuple[str, str, str]:
    n = f"{cell.decided} of {cell.n}" if cell.decided < cell.n else str(cell.n)
    if cell.error is not None:
        return "failed", "", n
    if cell.share is None:
        return "-", "", n
    return f"{'≤ ' * cell.is_bound}{100 * cell.share:.1f}", _percent(*cell.interval), n


def _percent(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def time_left(progress: Progress) -> str:
    """`1,250 passes/s, usually under 0:40 left`, or `starting` while the first passes are no measure of the rate.

    `at most` where that is as short, or where the passes are more than usual.
    """
    if progress.left is None or progress.seconds < SETTLED:
        return "starting"
    usual = progress.usual is not None and 0 < progress.usual < progress.left
    left = f"usually under {clock(progress.usual or 0)}" if usual else f"at most {clock(progress.left)}"
    return f"{progress.rate:,.0f} passes/s, {left} left"


def _pairs(cells: Sequence[CellProgress]) -> dict[Pair, list[CellProgress]]:
    found: dict[Pair, list[CellProgress]] = {}
    for cell in cells:
        found.setdefault((cell.suite, cell.task, cell.model), []).append(cell)
    return found
