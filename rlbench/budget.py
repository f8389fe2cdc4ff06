"""A budget of time: `30s`, `10m`, `2h`; and the largest number of examples that fits one."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlbench.errors import FieldError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Of a time such as `30s`, `10m`, `1.5h`. Raises: FieldError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if found is None or float(found[1]) == 0:
        raise FieldError(f"budget is {text!r}; it must be a time above 0 such as 30s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number in 1..most that fits, in two digits unless it is `most`; 0 where 1 does not fit.

    What fits also fits when there is less of it.
    """
    if fits(most):
        return most
    low, high = 0, most  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    digits = int(10 ** max(0, len(str(low)) - 2))
    return low // digits * digits
