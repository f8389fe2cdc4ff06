"""Counts what a copy corrupts and what it only copies, and reports the progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

Advance = Callable[[int, int, str], None]  # how many are done, of how many (0: unknown), and of what


@dataclass
class Tally:
    """What happened to the parts of a recording.

    Attributes:
        corrupted: how many messages, frames or files, by topic, camera or kind.
        copied: how many were copied unchanged, by reason.
        advance: shows progress.
    """

    corrupted: Counter[str] = field(default_factory=Counter)
    copied: Counter[str] = field(default_factory=Counter)
    advance: Advance = lambda done, total, what: None
