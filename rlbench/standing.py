"""Where models stand in a table: rank intervals, and differences to a baseline.

A model is put before another one only where a paired test on the same examples says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from rlbench.errors import UnknownName
from rlbench.metrics import holm, sign_flip
from rlbench.tables import Row, Table

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
        return f"{self.points:+.1f} ({self.only_own}:{self.only_other}, p {said(self.p)}, Holm {said(self.p_holm)})"


def said(p: float) -> str:
    """A p-value in few letters: `.014`, `<.001`."""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def _p(differences: NDArray[Any], deff: float) -> float:
    """Of the exact paired test; where examples share sources, of as many independent pairs as say as much.

    Dividing the counts by the design effect is Rao and Scott's correction, 1992, https://doi.org/10.2307/2532311, on
    discordant pairs; the effect of the accuracies is taken, which is the cautious choice.
    """
    if deff <= 1:
        return sign_flip(differences.tolist())
    values, counts = np.unique(differences[differences != 0], return_counts=True)
    return sign_flip(np.repeat(values, (counts / deff).astype(int)).tolist())


def ranks(table: Table, columns: Sequence[str] = ()) -> list[tuple[int, int]] | None:
    """The 95% interval of each row's rank, 1 the best, for all rows at once; None where the flags of one are not known.

    The rank is that of the mean over `columns`; by default over the worst cases, or all where there is none. A row
    comes before another one where the exact paired test says so, Holm-adjusted over all pairs of rows (as in Mogstad,
    Romano, Shaikh and Wilhelm, 2024, https://doi.org/10.1093/restud/rdad006). A cell that failed or is missing has no
    correct example.
    """
    worst = tuple(column for column in table.columns if column.startswith("worst "))
    standing = [_hits(row, columns or worst or table.columns) for row in table.rows]
    if len(standing) < 2 or any(one is None for one in standing):
        return None
    pairs = list(combinations(range(len(standing)), 2))
    differences = [_minus(standing[i], standing[j]) for i, j in pairs]
    above = [0] * len(standing)
    below = [0] * len(standing)
    adjusted = holm([_p(d, deff) for d, deff in differences])
    for (i, j), (d, _), p in zip(pairs, differences, adjusted, strict=True):
        if p < ALPHA:
            better, worse = (i, j) if d.sum() > 0 else (j, i)
            below[better] += 1
            above[worse] += 1
    return [(1 + a, len(standing) - b) for a, b in zip(above, below, strict=True)]


_Standing = tuple["NDArray[Any]", float]  # per example a number of correct answers, and the design effect


def _hits(row: Row, columns: Sequence[str]) -> _Standing | None:
    """Per example the correct answers over some columns, each column of the same weight."""
    scores = [row.scores[column] for column in columns if column in row.scores]
    counted = [score for score in scores if score.error is None]
    if any(score.hits is None for score in counted):
        return None
    whole = lcm(*(score.of for score in counted)) if counted else 1
    total = np.zeros(row.n, dtype=np.int64)
    for score in counted:
        total += np.asarray(score.hits) * (whole // score.of)
    return total, max((score.deff for score in counted), default=1.0)


def _minus(own: Any, other: Any) -> _Standing:
    """Paired on the examples that both have: a task's first examples never change."""
    n = min(len(own[0]), len(other[0]))
    return own[0][:n] - other[0][:n], max(own[1], other[1])


def baseline_row(table: Table, name: str) -> Row | None:
    """The row of this model, or of this method where the name has no backbone; of several that with most examples."""
    found = [row for row in table.rows if name in (row.model, row.model.partition(":")[0])]
    return max(found, key=lambda row: row.n, default=None)


def require(tables: Sequence[Table], name: str) -> None:
    """Raises UnknownName where no table has a row of this baseline."""
    if not any(baseline_row(table, name) for table in tables):
        raise UnknownName("baseline", name, sorted({row.model for table in tables for row in table.rows}))


def differences(table: Table, baseline: str) -> dict[int, dict[str, Difference]]:
    """By row (its index) and column the difference to the baseline; empty without that baseline."""
    base = baseline_row(table, baseline)
    found: dict[int, dict[str, Difference]] = {}
    for column in table.columns if base else ():
        compared = [
            (k, *pair) for k, row in enumerate(table.rows) if row is not base and (pair := _pair(row, base, column))
        ]
        raw = [_p(d, deff) for _, d, deff, _ in compared]
        for (k, d, _, of), p, p_holm in zip(compared, raw, holm(raw), strict=True):
            points = 100 * float(d.sum()) / of / len(d)
            one = Difference(points, int((d > 0).sum()), int((d < 0).sum()), p, p_holm)
            found.setdefault(k, {})[column] = one
    return found


def _pair(row: Row, base: Row | None, column: str) -> tuple[NDArray[Any], float, int] | None:
    own, other = row.scores.get(column), base.scores.get(column) if base else None
    if own is None or other is None or own.hits is None or other.hits is None or own.of != other.of:
        return None
    return *_minus((own.hits, own.deff), (other.hits, other.deff)), own.of
