"""Which blocks of a plan are in the store already."""

from __future__ import annotations

from collections.abc import Callable

from rlbench.core import Perturbation
from rlbench.core.errors import StoreError
from rlbench.core.machine import code
from rlbench.engine import cells
from rlbench.engine.plan.types import Pair

Span = tuple[int, int]
CodeOf = Callable[[str, Span], str | None]  # a block's code hash, or None where the store lacks the block


def find_present(pair: Pair, code_of: CodeOf, notes: list[str]) -> dict[Perturbation, set[Span]]:
    """The complete blocks of every perturbation in the store."""
    found: dict[Perturbation, set[Span]] = {p: set() for p in pair.keys}
    others = 0
    for p, span in ((p, span) for p in pair.keys for span in pair.spans if not cells.is_aggregate(p)):
        try:
            by = code_of(pair.keys[p], span)
        except StoreError as error:
            notes.append(str(error))
            continue
        if by is not None:
            found[p].add(span)
            others += by != code()
    if others:
        notes.append(f"{pair.suite.name}, {pair.model}: {others} blocks are from another rlbench; --fresh renews them")
    for worst in (p for p in pair.keys if cells.is_aggregate(p)):
        members = cells.members_of(worst, pair.suite.perturbations)
        found[worst] = set.intersection(*(found[m] for m in members))
    return found
