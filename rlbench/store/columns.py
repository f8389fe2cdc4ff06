"""The order of columns and records."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from rlbench.core import Record

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass


def reading_order(record: Record) -> tuple[Any, ...]:
    """Sorts records by suite, model and column."""
    return (
        record.suite,
        record.suite_version,
        record.model,
        column_order(record.perturbation),
        record.n,
        record.key,
    )


THREAT = re.compile(r"^(?P<what>.*) (?P<norm>linf|l2) (?P<eps>[\d./]+)(?P<bound> descending)?$")


CORRUPTED = re.compile(r"^(?P<what>[^+]*) (?P<severity>[1-5])$")


def is_bound(column: str) -> bool:
    """The column takes what survives a larger eps as surviving its own: a bound from above."""
    return column.partition(" (protocol ")[0].endswith(" descending")


def column_order(column: str) -> tuple[Any, ...]:
    """Sorts columns: clean, attacks (by norm, name, eps), worst cases, corruptions, compositions."""
    column, _, protocol = column.partition(" (protocol ")
    if column == "clean":
        return 0, protocol
    threat = THREAT.match(column)
    if threat is None:
        return 3, column[-1], column, protocol
    kind = 4 if " + " in column else 2 if threat["what"] == "worst" else 1
    return (
        kind,
        threat["norm"] == "l2",
        threat["what"],
        bool(threat["bound"]),
        Fraction(threat["eps"]),
        column,
        protocol,
    )
