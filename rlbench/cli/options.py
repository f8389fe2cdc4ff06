"""Types of options: their help and their errors are in plain words."""

from __future__ import annotations

from typing import Any

import click


class OneOf(click.Choice[str]):
    """One of several words, shown as `a|b` as all other options show theirs."""

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "|".join(self.choices)


class Count(click.IntRange):
    """A whole number between two bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        low, high = self.min, self.max
        if (low is not None and number < low) or (high is not None and number > high):
            self.fail(f"{number} must be {self._describe_range()}", param, ctx)
        return number

    def _describe_range(self) -> str:  # shown by --help
        return f"at least {self.min}" if self.max is None else f"{self.min} to {self.max}"
