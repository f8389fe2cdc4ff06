"""Where models stand in a table: rank intervals, and differences to a baseline.

A model is put before another one only where a paired test on the same examples says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from rlbench.core.errors import UnknownName
from rlbench.core.stats.metrics import format_p, holm, sign_flips
from rlbench.report.boards.scores import Row, Table
from rlbench.store.columns import Column

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """A row minus the baseline on the same examples.

    Attributes:
        points: 100 times the difference of the shares.
        only_own, only_other: examples on which the row, or the baseline, is right more often than the other.
        p: of the exact paired test, which for a single cell is McNemar's; p_holm: adjusted for the column's rows.
    """

    points: float
    only_own: int
    only_other: int
    p: float
    p_holm: float

    @property
    def verdict(self) -> str:
        """`above`, `below`, or `level` where the adjusted p is not below 0.05."""
        return "level" if self.p_holm >= ALPHA else "above" if self.points > 0 else "below"

    def __str__(self) -> str:
        """`+2.1 (37:18, p .014, Holm .019)`."""
        p = f"p {format_p(self.p)}, Holm {format_p(self.p_holm)}"
        return f"{self.points:+.1f} ({self.only_own}:{self.only_other}, {p})"


def ranks(table: Table, columns: Sequence[Column] = ()) -> list[tuple[int, int] | None] | None:
    """The 95% interval of each row's rank, 1 the best, for all rows at once; None where the flags of one are not known.

    The rank is that of the mean over `columns`, by default the table's scale. A row comes before another one where the
    exact paired test says so, Holm-adjusted over all pairs of rows (as in Mogstad, Romano, Shaikh and Wilhelm, 2024,
    https://doi.org/10.1093/restud/rdad006). A row that lacks one of the columns, failed there, or has a bound there has
    no rank, and the others are ranked without it.
    """
    columns = columns or table.scale
    ranked = [k for k, row in enumerate(table.rows) if columns and row.whole(columns)]
    standing = [hits for k in ranked if (hits := _hits(table.rows[k], columns)) is not None]
    if len(ranked) < 2 or len(standing) < len(ranked):
        return None
    found: list[tuple[int, int] | None] = [None] * len(table.rows)
    for k, place in zip(ranked, _ranks(standing), strict=True):
        found[k] = place
    return found


def _ranks(standing: Sequence[_Standing]) -> list[tuple[int, int]]:
    """Of all of these, from every pair of them."""
    hits, deff, size = np.stack([one for one, _, _ in standing]), np.array([d for _, d, _ in standing]), standing[0][2]
    one, other = np.triu_indices(len(hits), 1)
    if size == 1:
        both = (hits.astype(np.float32) @ hits.T.astype(np.float32)).astype(np.int64)[one, other]  # exact below 2^24
        alone = hits.sum(1)
        counts = np.stack([alone[one] - both, np.zeros_like(both), alone[other] - both], axis=1)
        raw, sums = _tested(counts, np.maximum(deff[one], deff[other]))
    else:
        rest = [
            (_counts(hits[k + 1 :], hits[k], size), np.maximum(deff[k + 1 :], deff[k])) for k in range(len(hits) - 1)
        ]
        tests = [_tested(*those) for those in rest]
        raw, sums = np.concatenate([p for p, _ in tests]), np.concatenate([total for _, total in tests])
    clear, second = np.array(holm(raw.tolist())) < ALPHA, sums > 0  # of each pair: told apart; the second is better
    better, worse = np.where(second, other, one)[clear], np.where(second, one, other)[clear]
    above, below = (np.bincount(those, minlength=len(hits)) for those in (worse, better))
    return [(1 + int(a), len(hits) - int(b)) for a, b in zip(above, below, strict=True)]


_Standing = tuple["NDArray[Any]", float, int]  # per example correct answers, the design effect, and the most answers


def _hits(row: Row, columns: Sequence[Column]) -> _Standing | None:
    """Per example the correct answers over some columns, each column of the same weight."""
    scores = [row.scores[column] for column in columns]
    if any(score.hits is None for score in scores):
        return None
    whole = lcm(*(score.of for score in scores))
    total = np.zeros(row.n, dtype=np.int64)
    for score in scores:
        total += np.asarray(score.hits) * (whole // score.of)
    return total, max(score.deff for score in scores), whole * len(scores)


def _counts(own: NDArray[Any], other: NDArray[Any], size: int) -> NDArray[Any]:
    """How often rows (R, n) minus another one (n,), answers from 0 to `size`, are -size, ..., size: (R, 2 size + 1)."""
    span = 2 * size + 1
    places = own - other + size + span * np.arange(len(own))[:, None]
    return np.bincount(places.ravel(), minlength=span * len(own)).reshape(-1, span)


def _tested(counts: NDArray[Any], deff: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """p of the exact paired tests of such counts, and the sums of the differences.

    Where examples share sources, of as many independent pairs as say as much: dividing the counts by the design effect
    (R,) is Rao and Scott's correction, 1992, https://doi.org/10.2307/2532311, on discordant pairs; the effect of the
    accuracies is taken, which is the cautious choice.
    """
    size = counts.shape[1] // 2
    shrunk = np.where(deff[:, None] > 1, counts / deff[:, None], counts).astype(np.int64)
    return sign_flips(shrunk), counts @ np.arange(-size, size + 1)


def baseline_row(table: Table, name: str) -> Row | None:
    """The row of this model, or of this method where the name has no backbone; of several that with most examples."""
    found = [row for row in table.rows if name in (row.model, row.model.partition(":")[0])]
    return max(found, key=lambda row: row.n, default=None)


def require(tables: Sequence[Table], name: str) -> None:
    """Raises UnknownName where no table has a row of this baseline."""
    if not any(baseline_row(table, name) for table in tables):
        raise UnknownName("baseline", name, sorted({row.model for table in tables for row in table.rows}))


def differences(table: Table, baseline: str) -> dict[int, dict[Column, Difference]]:
    """By row (its index) and column the difference to the baseline; none of bounds, and empty without that baseline."""
    base = baseline_row(table, baseline)
    found: dict[int, dict[Column, Difference]] = {}
    for column in table.columns if base else ():
        compared = [k for k, row in enumerate(table.rows) if row is not base and _paired(row, base, column)]
        if not compared:
            continue
        standing = [one for k in compared if (one := _hits(table.rows[k], [column])) is not None]
        other = _hits(base, [column]) if base else None
        assert other is not None
        hits, deff = np.stack([one for one, _, _ in standing]), np.array([max(d, other[1]) for _, d, _ in standing])
        raw, sums = _tested(_counts(hits, other[0], other[2]), deff)
        lost, gained = (hits < other[0]).sum(1), (hits > other[0]).sum(1)
        for i, (k, p_holm) in enumerate(zip(compared, holm(raw.tolist()), strict=True)):
            points = 100 * float(sums[i]) / other[2] / hits.shape[1]
            minus = Difference(points, int(gained[i]), int(lost[i]), float(raw[i]), p_holm)
            found.setdefault(k, {})[column] = minus
    return found


def _paired(row: Row, base: Row | None, column: Column) -> bool:
    """Both have exact counts there, over as many cells, and flags."""
    own, other = row.scores.get(column), base.scores.get(column) if base else None
    if own is None or other is None or not (own.exact and other.exact):
        return False
    return own.hits is not None and other.hits is not None and own.of == other.of
