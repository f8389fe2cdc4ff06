"""A plan on a terminal: a line per suite and model, or per cell in a dry run, and the total cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlbench.cli.console import clock
from rlbench.core import Corrupted
from rlbench.engine.plan.types import Pair, Plan, PlannedCell

LEFT = ("suite", "model", "cell")
PASSES = ("forward passes", "at most", "backward", "at most")


def plan(plan: Plan, out: Console, *, by_cell: bool = False) -> None:
    """Prints a row per suite and model, or per cell: finished blocks, and the passes left, about and at most."""
    parts: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in plan.cells:
        parts.setdefault((_name_part(cell, plan), cell.model), []).append(cell)
    able = {about: [cell for cell in cells if not cell.skipped] for about, cells in parts.items()}
    chosen = {about: cells for about, cells in able.items() if cells}
    if by_cell:
        for (suite, model), cells in chosen.items():
            out.print(Text(f"{suite}, {model}, {cells[0].n} examples", style="bold"))
            out.print(_cells(cells, piloted=plan.piloted))
    else:
        out.print(_parts(chosen, piloted=plan.piloted))
    for (suite, model), cells in parts.items():
        for reason, which in _list_skipped(cells).items():
            what = "" if len(which) == len(cells) else f", {', '.join(which)}"
            out.print(Text(f"skipped: {suite} with {model}{what}: {reason}", style="yellow"))
    for note in plan.notes:
        out.print(Text(f"note: {note}", style="yellow"))
    for line in _totals(plan, by_cell=by_cell):
        out.print(line)


def _name_part(cell: PlannedCell, plan: Plan) -> str:
    """The suite's name, with the task's where several of one suite and model are planned."""
    tasks = {other.task for other in plan.cells if (other.suite, other.model) == (cell.suite, cell.model)}
    return f"{cell.suite}:{cell.task}" if len(tasks) > 1 else cell.suite


def _list_skipped(cells: Sequence[PlannedCell]) -> dict[str, list[str]]:
    """The texts of the skipped cells by reason."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell.skipped:
            found.setdefault(cell.skipped, []).append(str(cell.perturbation))
    return found


def _grid(names: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, justify="left" if name in LEFT else "right")
    return table


def _passes(cells: Sequence[PlannedCell], *, piloted: bool) -> list[str]:
    """Forward and backward passes: each about (`-` without a pilot) and at most."""
    about = sum(c.expected_forwards for c in cells), sum(c.expected_backwards for c in cells)
    most = sum(c.forwards for c in cells), sum(c.backwards for c in cells)
    pairs = zip(about, most, strict=True)
    return [text for a, m in pairs for text in (f"{a:,}" if piloted else "-", f"{m:,}")]


def _parts(parts: dict[tuple[str, str], list[PlannedCell]], *, piloted: bool) -> Table:
    table = _grid(("suite", "model", "examples", "cells", "blocks done", *PASSES))
    for (suite, model), cells in parts.items():
        blocks, done = sum(c.blocks for c in cells), sum(c.done for c in cells)
        counts = (str(cells[0].n), str(len(cells)), f"{done} of {blocks}")
        table.add_row(suite, model, *counts, *_passes(cells, piloted=piloted))
    return table


def _cells(cells: Sequence[PlannedCell], *, piloted: bool) -> Table:
    """A row per cell or corruption; the last column is half the expected width of the 95% interval."""
    table = _grid(("cell", "blocks done", *PASSES, "+- points"))
    rows: dict[tuple[str, float], list[PlannedCell]] = {}
    for cell in cells:
        name = cell.perturbation.call if isinstance(cell.perturbation, Corrupted) else str(cell.perturbation)
        rows.setdefault((name, cell.half_width), []).append(cell)
    for (name, half), group in rows.items():
        done = f"{sum(c.done for c in group)} of {sum(c.blocks for c in group)}"
        many = f"{name}, {len(group)} severities" if len(group) > 1 else str(group[0].perturbation)
        table.add_row(many, done, *_passes(group, piloted=piloted), f"{100 * half:.1f}")
    return table


def _totals(plan: Plan, *, by_cell: bool) -> list[str]:
    processes = f"{plan.workers} process{'es' * (plan.workers > 1)} on {_devices(plan)}"
    usual = f"{'about' if plan.piloted else 'usually under'} {clock(plan.expected)}, "
    known = plan.piloted or clock(plan.expected) != clock(plan.seconds)
    time = f"{usual * known}at most {clock(plan.seconds)} left" if plan.units else "nothing left to compute"
    lines = [
        f"{time}, {processes}; 95% intervals up to +-{100 * plan.half_width:.1f} points; store: {plan.store.path}",
    ]
    sizes = sorted({plan.pairs[unit.pair].batch_size for unit in plan.units})
    if sizes:
        lines[0] += f"; batches of up to {' or '.join(map(str, sizes))} examples"
    used = {unit.pair for unit in plan.units} if by_cell else set()
    if len(used) > 1:
        most = sum(cell.forwards for cell in plan.cells), sum(cell.backwards for cell in plan.cells)
        lines.insert(0, f"at most {most[0]:,} forward and {most[1]:,} backward passes left in all")
    return [_pace(pair) for k, pair in enumerate(plan.pairs) if k in used] + lines


def _devices(plan: Plan) -> str:
    """The devices, and the shard if the run is one."""
    names = ", ".join(dict.fromkeys(plan.devices))
    return names if plan.shard is None else f"{names}, shard {plan.shard}"


def _pace(pair: Pair) -> str:
    each = 1e3 * pair.rates.pace.seconds(1, 1)
    about = f"{pair.suite.name} on {pair.suite.task_name}, {pair.model}"
    pace = f"{about}: {each:.2f} ms per example for a forward and backward pass"
    corrupting = sum(pair.rates.corrupting.values())
    return pace + (f", {1e3 * corrupting:.0f} ms for all its corruptions" if corrupting else "")
