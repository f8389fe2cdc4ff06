"""Fonts for the characters of a figure that matplotlib's own font lacks, such as Chinese class names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unicodedata import east_asian_width

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from rlbench.core.files import LOG

OWN = "DejaVu Sans"  # comes with matplotlib
PLACEHOLDER = "Last Resort"  # has a box for every character
SHOWN = 20  # characters in a message
_reported: set[str] = set()


def count_columns(text: str) -> int:
    """Counts the columns of a text in a font of fixed width, where a Chinese character takes two."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


@contextmanager
def drawable(figure: Figure) -> Iterator[None]:
    """Gives the texts of a figure fonts that have their characters; a message names characters that no font has.

    Each character gets one message per process. Save the figure in the block, where matplotlib does not warn.
    """
    texts: list[Text] = figure.findobj(Text)
    families, missing = find_fonts("".join(sorted(set("".join(text.get_text() for text in texts)))))
    if families:
        for text in texts:
            text.set_fontfamily([OWN, *families])
    if new := "".join(c for c in missing if c not in _reported):
        _reported.update(new)
        LOG.warning("figures: no installed font has %s; install one, such as Noto Sans CJK", new[:SHOWN])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@cache
def find_fonts(characters: str) -> tuple[tuple[str, ...], str]:
    """Finds installed fonts for the characters that OWN lacks.

    Args:
        characters: each once, sorted.

    Returns:
        The names of the fonts, the one with the most of the characters first, and the characters that none has.
    """
    left = _lacks(font_manager.findfont(OWN), characters.replace("\n", ""))
    families: list[str] = []
    entries = [e for e in font_manager.fontManager.ttflist if not e.name.startswith(PLACEHOLDER)] if left else []
    lacking = {e.name: _lacks(e.fname, left) for e in entries if e.style == "normal" and e.weight in (400, "normal")}
    while left and lacking:
        name = min(lacking, key=lambda name: (sum(c in lacking[name] for c in left), name))
        rest = "".join(c for c in left if c in lacking[name])
        if rest == left:
            break
        families.append(name)
        left = rest
    return tuple(families), left


def _lacks(file: str, characters: str) -> str:
    """The characters that a font does not have; all if it can't be read."""
    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):
        return characters
    return "".join(c for c in characters if not font.get_char_index(ord(c)))
