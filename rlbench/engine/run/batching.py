"""Which work units run together in one pool, so that batches stay full and every worker is busy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlbench.engine.plan.planner import Unit

Bundle = tuple[Unit, ...]


def bundle_units(units: Sequence[Unit], expected: Mapping[Unit, int], workers: int) -> list[Bundle]:
    """Bundles the attacks of a pair's block, in enough parts for four per worker; a corruption is a bundle by itself.

    Args:
        units: the work units of a run, without those of the clean group.
        expected: forward passes of every unit, to balance the parts; the most expensive bundle comes first.
        workers: number of processes.
    """
    found: list[Bundle] = [(unit,) for unit in units if unit.group.corrupted]
    places: dict[tuple[int, int], list[Unit]] = {}
    for unit in (unit for unit in units if not unit.group.corrupted):
        places.setdefault((unit.pair, unit.start), []).append(unit)
    for together in places.values():
        parts = 1 if workers == 1 else math.ceil(4 * workers / len(places))
        found += _parts(together, expected, min(parts, len(together)))
    cost = {bundle: sum(expected[unit] for unit in bundle) for bundle in found}
    return sorted(found, key=lambda bundle: -cost[bundle]) if workers > 1 else found


def _parts(units: list[Unit], expected: Mapping[Unit, int], n: int) -> list[Bundle]:
    parts: list[list[Unit]] = [[] for _ in range(n)]
    for unit in sorted(units, key=lambda unit: -expected[unit]):
        min(parts, key=lambda part: sum(expected[other] for other in part)).append(unit)
    return [tuple(sorted(part, key=units.index)) for part in parts if part]  # units without passes may share one
