"""The exception tree.

    RLBenchError                 a user's mistake or an unusable input: one line on stderr, exit 2
    ├── UnknownName              no plugin, suite or model of that name ("did you mean ...?")
    ├── SuiteError               a suite file is wrong: file, line, key, value, what is allowed
    ├── FieldError               a field of a plugin or recipe has a wrong name or value
    ├── DataError                a data source is missing, unreadable or inconsistent
    ├── CheckpointError          weights are missing, truncated, altered or have another shape
    ├── ModalityError            an encoder does not support the modality that a task needs
    ├── KnowledgeError           no attack of a suite can run with what a black box gives
    ├── StoreError               the result store can't be read or written
    └── AttackError              an attack broke its contract: the cell is failed, never robust
        └── AnswerError          a black box gave no usable answer, or its queries are spent: likewise

A bug is none of these and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from unicodedata import category

LINE, QUOTED = 400, 80  # the most characters of a message, and of a value that it quotes
LISTED, FIRST = 240, 6  # the most characters of a list of known names, and how many a longer list shows
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (such as bidirectional overrides), surrogates, separators
_JOINERS = "\u200c\u200d"  # format characters that some scripts and emoji need
_ADVICE = "weights_only"  # appears where torch's message explains how to run the code in a pickle


def find_hidden(text: str) -> str:
    """The first character that a terminal would obey rather than show, or "": control, direction, line separator."""
    if text.isprintable():
        return ""
    return next((c for c in text if category(c) in _HIDDEN and c not in _JOINERS), "")


def printable(text: str) -> str:
    """The text with each hidden character (`find_hidden`) as an escape such as `\\x1b`."""
    return "".join(c.encode("unicode_escape", "surrogatepass").decode() if find_hidden(c) else c for c in text)


def suggest(name: str, known: Sequence[str]) -> str:
    """The end of a message, "; did you mean 'x'?", with the nearest known name; "" if none is near."""
    near = get_close_matches(name[:QUOTED], known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


class RLBenchError(Exception):
    """A mistake that the user can correct; the message says what was asked, what is allowed, what to do.

    The message becomes one line: hidden characters are escaped, and any run of white space becomes one space.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(" ".join(message.split())))


class UnknownName(RLBenchError):
    """A name that is not registered; suggests the nearest known one, or shows as many as are easy to read.

    Args:
        kind: what was named, such as "model".
        name: the unknown name.
        known: all names that exist.
        where: the place of the name, which begins the message.
        see: a command that lists the names, or does what was meant.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "", see: str = "") -> None:
        names = sorted(known)
        shown = names if len(", ".join(names)) <= LISTED else names[:FIRST]
        more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
        known_names = f"; known: {', '.join(shown) or 'none'}{more}{f'; see {see}' if see else ''}"
        super().__init__(f"{where}no {kind} named {quote(name)}{suggest(name, names) or known_names}")


class SuiteError(RLBenchError):
    """A suite file is wrong."""


class FieldError(RLBenchError):
    """A field of a plugin or recipe has an unknown name or a value that is not allowed; `field` is its name."""

    def __init__(self, message: object, field: str = "") -> None:
        super().__init__(str(message))
        self.field = field


class DataError(RLBenchError):
    """A data source is missing, unreadable or inconsistent."""


class CheckpointError(RLBenchError):
    """Weights are missing, truncated, altered, or differ in shape from their card."""


class ModalityError(RLBenchError):
    """An encoder does not support the requested modality."""


class KnowledgeError(RLBenchError):
    """No attack of a suite can run with what a black box gives."""


class StoreError(RLBenchError):
    """The result store can't be read or written."""


class AttackError(RLBenchError):
    """An attack broke its contract (shape, dtype, finite, box, ball) or crashed."""


class AnswerError(AttackError):
    """A black box gave no usable answer in time, or the budget of queries is spent."""


def first_line(error: BaseException) -> str:
    """An error's first line (two if the first ends in a colon) without a full stop, or its type if it has no text.

    Advice on how to load an unsafe pickle is replaced.
    """
    if _ADVICE in str(error):
        return "it holds code or more than tensors, which is never loaded"
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end if it is longer than `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit * 2 // 3]} ... {text[len(text) - limit // 3 :]}"


def quote(value: object) -> str:
    """A value as messages show it: its `repr`, shortened in the middle if it is long."""
    if isinstance(value, str) and len(value) > LINE:
        value = value[:LINE] + value[-LINE:]
    try:
        return shorten(repr(value), QUOTED)
    except (ValueError, RecursionError):  # an integer of thousands of digits; endlessly nested lists
        return "a number of many digits" if isinstance(value, int) else type(value).__name__


def one_line(text: object) -> str:
    """A message as one line of at most about LINE characters that are safe to print."""
    return shorten(printable(" ".join(str(text).split())), LINE)


class SoundnessWarning(UserWarning):
    """A robustness number may be too high: a soundness check failed."""
