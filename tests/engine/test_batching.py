"""Bundles of attacks: every unit is in one, and none is empty."""

from __future__ import annotations

import pytest
from columns import column

from rlbench.engine.cells.groups import group_of
from rlbench.engine.plan.planner import Unit
from rlbench.engine.run.batching import bundle_units


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("passes", [0, 5])
def test_no_bundle_is_empty(workers: int, passes: int) -> None:
    """Nothing is expected of attacks on an encoder that is never right."""
    names = ("pgd linf 1/255", "pgd linf 2/255", "apgd-t linf 2/255", "fog 3")
    units = [
        Unit(
            pair=0,
            group=group_of(column(name)),
            start=0,
            stop=4,
            passes=passes,
            usual=passes,
            seconds=1.0,
            expected=1.0,
        )
        for name in names
    ]
    found = bundle_units(units, dict.fromkeys(units, passes), workers)
    assert all(found) and sorted(map(units.index, sum(found, ()))) == [0, 1, 2, 3]
