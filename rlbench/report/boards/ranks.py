"""Rank intervals of the rows of a table, and differences to a baseline.

One model ranks above another only if a paired test on the same examples is significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rlbench.core.errors import UnknownName
from rlbench.core.stats.metrics import format_p, holm, sign_flips
from rlbench.report.boards.scores import ModelRow, Table
from rlbench.store.columns import Column

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """A model minus another one, the baseline, on the same examples.

    Attributes:
        points: the difference of the accuracies in percentage points.
        only_own: the number of examples that the model gets right more often than the baseline.
        only_other: the number of examples that the baseline gets right more often.
        p: of the exact paired test, in [0, 1]; for a single cell it is McNemar's.
        p_holm: the same, Holm-adjusted over all models that are compared with the baseline.
    """

    points: float
    only_own: int
    only_other: int
    p: float
    p_holm: float

    @property
    def verdict(self) -> Literal["above", "below", "level"]:
        """Whether the model is better or worse than the baseline; "level" if the adjusted p is 0.05 or more."""
        return "level" if self.p_holm >= ALPHA else "above" if self.points > 0 else "below"

    def __str__(self) -> str:
        """`+2.1 (37:18, p .014, Holm .019)`."""
        p = f"p {format_p(self.p)}, Holm {format_p(self.p_holm)}"
        return f"{self.points:+.1f} ({self.only_own}:{self.only_other}, {p})"


def ranks(table: Table, columns: Sequence[Column] = ()) -> list[tuple[int, int] | None] | None:
    """Simultaneous 95% intervals of the rows' ranks by their mean accuracy; 1 is the best.

    A row is above another if the exact paired test on their examples is significant, Holm-adjusted over all pairs of
    rows (as in Mogstad, Romano, Shaikh and Wilhelm, 2024, https://doi.org/10.1093/restud/rdad006).

    Args:
        table: with the rows.
        columns: that the mean is taken over; by default the table's scale.

    Returns:
        By row, the first and last rank that it may have; None for a row without an exact score in each column, which
        is left out. None instead of the list with fewer than two rows to rank, or if the flags of one are not known.
    """
    columns = columns or table.scale
    ranked = [k for k, row in enumerate(table.rows) if columns and row.has_exact(columns)]
    counts = [hits for k in ranked if (hits := _sum_hits(table.rows[k], columns)) is not None]
    if len(ranked) < 2 or len(counts) < len(ranked):
        return None
    found: list[tuple[int, int] | None] = [None] * len(table.rows)
    for k, interval in zip(ranked, _rank_pairwise(counts), strict=True):
        found[k] = interval
    return found


def _rank_pairwise(rows: Sequence[_Hits]) -> list[tuple[int, int]]:
    """The rank intervals of rows, from the tests of all pairs of them."""
    hits, deff, size = np.stack([row.counts for row in rows]), np.array([row.deff for row in rows]), rows[0].most
    one, other = np.triu_indices(len(hits), 1)
    if size == 1:
        both = (hits.astype(np.float32) @ hits.T.astype(np.float32)).astype(np.int64)[one, other]  # exact below 2^24
        alone = hits.sum(1)
        counts = np.stack([alone[one] - both, np.zeros_like(both), alone[other] - both], axis=1)
        raw, sums = _test_pairs(counts, np.maximum(deff[one], deff[other]))
    else:
        tests = [
            _test_pairs(_count_differences(hits[k + 1 :], hits[k], size), np.maximum(deff[k + 1 :], deff[k]))
            for k in range(len(hits) - 1)
        ]
        raw, sums = np.concatenate([p for p, _ in tests]), np.concatenate([total for _, total in tests])
    clear, second = np.array(holm(raw.tolist())) < ALPHA, sums > 0  # by pair: significant; the second one is better
    better, worse = np.where(second, other, one)[clear], np.where(second, one, other)[clear]
    above, below = (np.bincount(those, minlength=len(hits)) for those in (worse, better))
    return [(1 + int(a), len(hits) - int(b)) for a, b in zip(above, below, strict=True)]


class _Hits(NamedTuple):
    """How often a row is right on each example, over some columns of equal weight.

    Attributes:
        counts: (n,) int, from 0 to `most`.
        deff: the design effect (see `Score`).
        most: the count of an example that is correct in every cell.
    """

    counts: NDArray[Any]
    deff: float
    most: int


def _sum_hits(row: ModelRow, columns: Sequence[Column]) -> _Hits | None:
    """The hits of a row; None if the flags of one column are not known."""
    scores = [row.scores[column] for column in columns]
    if any(score.hits is None for score in scores):
        return None
    whole = lcm(*(score.of for score in scores))
    total = np.zeros(row.n, dtype=np.int64)
    for score in scores:
        total += np.asarray(score.hits) * (whole // score.of)
    return _Hits(total, max(score.deff for score in scores), whole * len(scores))


def _count_differences(own: NDArray[Any], other: NDArray[Any], size: int) -> NDArray[Any]:
    """(R, 2 size + 1): for each row, the number of examples with a difference of -size, ..., size.

    Args:
        own: (R, n) int in [0, size], the counts of R rows.
        other: (n,) int in [0, size], the counts that are subtracted.
        size: the largest count.
    """
    span = 2 * size + 1
    places = own - other + size + span * np.arange(len(own))[:, None]
    return np.bincount(places.ravel(), minlength=span * len(own)).reshape(-1, span)


def _test_pairs(counts: NDArray[Any], deff: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The p-values (R,) of exact paired tests, and the sums (R,) of the differences.

    If examples share sources, the test takes fewer pairs: the counts divided by the design effect, which is the
    correction of Rao and Scott, 1992, https://doi.org/10.2307/2532311, on discordant pairs. The design effect is that
    of the accuracies, not of their difference, which is conservative.

    Args:
        counts: (R, 2k + 1), from `_count_differences`.
        deff: (R,) design effects.
    """
    size = counts.shape[1] // 2
    shrunk = np.where(deff[:, None] > 1, counts / deff[:, None], counts).astype(np.int64)
    return sign_flips(shrunk), counts @ np.arange(-size, size + 1)


def baseline_row(table: Table, name: str) -> ModelRow | None:
    """The row of a baseline, the one with the most examples if there are several; None if there is none.

    Args:
        table: to search.
        name: of a model, or of a method without its backbone, such as "languagebind".
    """
    found = [row for row in table.rows if name in (row.model, row.model.partition(":")[0])]
    return max(found, key=lambda row: row.n, default=None)


def check_baseline(tables: Sequence[Table], name: str) -> None:
    """Raises UnknownName if no table has a row of this baseline."""
    if not any(baseline_row(table, name) for table in tables):
        raise UnknownName("baseline", name, sorted({row.model for table in tables for row in table.rows}))


def differences(table: Table, baseline: str) -> dict[int, dict[Column, Difference]]:
    """By index of the row and column, the difference to the baseline.

    Bounds and the baseline's own row have none. Empty if the table has no row of the baseline.
    """
    base = baseline_row(table, baseline)
    found: dict[int, dict[Column, Difference]] = {}
    for column in table.columns if base else ():
        compared = [k for k, row in enumerate(table.rows) if row is not base and _can_pair(row, base, column)]
        if not compared:
            continue
        rows = [one for k in compared if (one := _sum_hits(table.rows[k], [column])) is not None]
        other = _sum_hits(base, [column]) if base else None
        assert other is not None
        hits, deff = np.stack([row.counts for row in rows]), np.array([max(row.deff, other.deff) for row in rows])
        raw, sums = _test_pairs(_count_differences(hits, other.counts, other.most), deff)
        lost, gained = (hits < other.counts).sum(1), (hits > other.counts).sum(1)
        for i, (k, p_holm) in enumerate(zip(compared, holm(raw.tolist()), strict=True)):
            points = 100 * float(sums[i]) / other.most / hits.shape[1]
            minus = Difference(points, int(gained[i]), int(lost[i]), float(raw[i]), p_holm)
            found.setdefault(k, {})[column] = minus
    return found


def _can_pair(row: ModelRow, base: ModelRow | None, column: Column) -> bool:
    """Whether both have exact scores with flags in the column, over the same number of cells."""
    own, other = row.scores.get(column), base.scores.get(column) if base else None
    if own is None or other is None or not (own.exact and other.exact):
        return False
    return own.hits is not None and other.hits is not None and own.of == other.of
