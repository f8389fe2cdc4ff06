"""The exception tree.

    RLBenchError                 a user's mistake or an unusable input: one line on stderr, exit 2
    ├── UnknownName              no plugin, suite or model of that name ("did you mean ...?")
    ├── SuiteError               a suite file is wrong: file, line, key, value, what is allowed
    ├── FieldError               a field of a plugin or recipe has a wrong name or value
    ├── DataError                a data source is missing, unreadable or inconsistent
    ├── CheckpointError          weights are missing, truncated, altered or of another shape
    ├── ModalityError            an encoder does not have the modality that a task needs
    ├── StoreError               the result store can't be read or written
    └── AttackError              an attack broke its contract: the cell is failed, never robust

A bug is none of these and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RLBenchError(Exception):
    """A mistake that the user can mend; the message says what was asked, what is allowed, what to do."""


class UnknownName(RLBenchError):
    """A name that is not registered; suggests the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        super().__init__(f"no {kind} named {name!r}; {hint}")


class SuiteError(RLBenchError):
    """A suite file is wrong."""


class FieldError(RLBenchError):
    """A field of a plugin or a recipe has an unknown name or a value that is not allowed."""


class DataError(RLBenchError):
    """A data source is missing, unreadable or inconsistent."""


class CheckpointError(RLBenchError):
    """Weights are missing, truncated, altered, or of another shape than their card says."""


class ModalityError(RLBenchError):
    """An encoder does not have the modality that was asked for."""


class StoreError(RLBenchError):
    """The result store can't be read or written."""


class AttackError(RLBenchError):
    """An attack broke its contract (shape, dtype, finite, box, ball) or crashed."""


def first_line(error: BaseException) -> str:
    """What an error says, cut to its first line, without a full stop; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


class SoundnessWarning(UserWarning):
    """A robustness number may be too high: a soundness check fails."""
