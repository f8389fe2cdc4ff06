"""The rows of a plan: each cell of a pair, what of it is recorded and what the rest costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rlbench.core import Perturbation
from rlbench.engine import cells
from rlbench.engine.plan.types import Pair, PlannedCell, half_width
from rlbench.store.perturbations import simplify


def plan_cells(pair: Pair, present: Mapping[Perturbation, set[tuple[int, int]]]) -> list[PlannedCell]:
    """A row per column of the pair's suite, in its order.

    Args:
        pair: a suite and a model.
        present: the spans that the store has, of every cell.
    """
    rows = []
    for p in pair.suite.perturbations:
        done, cell = present[cells.canonical(p)], cells.canonical(p)
        left = sum(stop - start for start, stop in pair.spans if (start, stop) not in done)
        row = PlannedCell(pair.suite.name, pair.suite.task_name, pair.model, simplify(p), pair.n)
        row = replace(row, blocks=len(pair.spans), done=len(done))
        if not cells.is_aggregate(cell):
            most, about = pair.bounds.cells[cell], pair.rates.cells[cell]
            row = replace(
                row,
                forwards=round(left * most.forwards),
                backwards=round(left * most.backwards),
                expected_forwards=round(left * about.forwards),
                expected_backwards=round(left * about.backwards),
            )
            share = about.correct
        else:
            share = None
        rows.append(replace(row, half_width=half_width(0.5 if share is None else share, pair.n)))
    return rows
