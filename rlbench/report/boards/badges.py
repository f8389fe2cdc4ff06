"""What the soundness checks of a run say of a table's models: a badge each, and why it is not `sound`."""

from __future__ import annotations

from collections.abc import Sequence

from rlbench.core import Record
from rlbench.core.badges import is_doubtful
from rlbench.report.boards.scores import Table, gravest

UNKNOWN = "not checked: its blocks are older than the checks; --fresh renews them"


def lines(table: Table, records: Sequence[Record]) -> list[str]:
    """`MODEL: BADGE` for each row of a table of these records; of a badge that is not sound, what failed, and where."""
    found = []
    for row in table.rows:
        keys = {key for score in row.scores.values() for key in score.keys}
        own = [record for record in records if record.key in keys and record.error is None]
        found += [f"{row.model}: {_said(own)}"] if own else []
    return found


def _said(records: Sequence[Record]) -> str:
    badges = [str(record.provenance.get("soundness") or "") for record in records]
    worst = gravest(badges)
    if not is_doubtful(worst):
        return worst or UNKNOWN
    first, others = records[badges.index(worst)], sum(map(is_doubtful, badges)) - 1
    more = f"; {others} more cell{'s are' if others > 1 else ' is'} not sound" if others else ""
    return f"{worst}: {first.provenance.get('soundness_failed', '')} ({first.perturbation}{more})"
