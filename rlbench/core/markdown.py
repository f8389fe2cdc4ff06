"""Markdown with texts that others chose, such as names of models and errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def escape(text: str) -> str:
    """A text without HTML tags of its own."""
    return _TAG.sub("&lt;", text)


def grid(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as a table; `-` for a value that a row lacks. Texts make no further columns or tags."""
    import pandas as pd

    shown = [{_escape_cell(name): _escape_cell(value) for name, value in row.items()} for row in rows]
    return str(pd.DataFrame(shown).fillna("-").to_markdown(index=False, disable_numparse=True))


def _escape_cell(value: object) -> object:
    return escape(value).replace("|", r"\|") if isinstance(value, str) else value
