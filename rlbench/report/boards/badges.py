"""The soundness badge of each model of a table, and the reason for a badge other than `sound`."""

from __future__ import annotations

from collections.abc import Sequence

from rlbench.core import Record
from rlbench.core.badges import is_doubtful, worst_badge
from rlbench.report.boards.scores import Table

UNKNOWN = "not checked: its blocks were written by a version without soundness checks; run them again with --fresh"


def lines(table: Table, records: Sequence[Record]) -> list[str]:
    """`MODEL: BADGE` for each row of a table, with the first failed check of a doubtful badge and its cell.

    Args:
        table: of these records.
        records: those of other tables are ignored.
    """
    found = []
    for row in table.rows:
        keys = {key for score in row.scores.values() for key in score.keys}
        own = [record for record in records if record.key in keys and record.error is None]
        found += [f"{row.model}: {_describe(own)}"] if own else []
    return found


def _describe(records: Sequence[Record]) -> str:
    """The worst badge of a model's records, and why it is doubtful."""
    badges = [str(record.provenance.get("soundness") or "") for record in records]
    worst = worst_badge(badges)
    if not is_doubtful(worst):
        return worst or UNKNOWN
    first, others = records[badges.index(worst)], sum(map(is_doubtful, badges)) - 1
    more = f"; {others} more cell{'s are' if others > 1 else ' is'} not sound" if others else ""
    return f"{worst}: {first.provenance.get('soundness_failed', '')} ({first.perturbation}{more})"
