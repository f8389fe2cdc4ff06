"""A budget of time: `30s`, `10m`, `2h`; and the largest number of examples that fits one."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlbench.core.errors import FieldError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Of a time such as `30s`, `10m`, `1.5h`. Raises: FieldError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or float(found[1]) == 0:
        raise FieldError(f"budget is {text!r}; it must be a time above 0 such as 30s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def largest(fits: Callable[[int], bool], most: int, block: int) -> int:
    """The largest number in 1..most that fits, in two digits unless it ends a block or is `most`; 0 where none does.

    Whole blocks may be recorded, so that more examples can take less time: within a block, less always fits.
    """
    for first in range((most - 1) // block * block + 1, 0, -block):
        last = min(first + block - 1, most)
        if fits(last):
            return last
        if fits(first):
            return max(first, _round_down(_within(fits, first, last)))
    return 0


def _within(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest that fits, where `low` does and `high` does not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _round_down(n: int) -> int:
    """Down to two digits."""
    unit: int = 10 ** max(0, len(str(n)) - 2)
    return n // unit * unit
