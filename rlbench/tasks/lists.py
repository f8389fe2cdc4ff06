"""Lists: labels, classes, captions and the lists of published data sets, as tables (CSV) or as lines of text.

A list is read as a whole and strictly, since a value in the wrong column is a wrong number later: UTF-8, every row as
many values as the first line, no value missing in a column that is used, every quote closed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlbench.core.errors import DataError
from rlbench.core.guard import guard

LARGEST = 1 << 28  # bytes of a list
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?")
_MISSING = frozenset({"", "nan", "<na>"})  # what pandas writes for a value that is missing
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: its file, its number in it, and its values by column."""

    path: Path
    number: int
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def error(self, text: str) -> DataError:
        """What is wrong with the row, with its place."""
        return DataError(f"{self.path}:{self.number}: {text}")

    def whole(self, column: str) -> int:
        """A whole number, also as pandas writes it beside an empty cell: 1.0. Raises: DataError."""
        found = _WHOLE.fullmatch(self.values[column])
        if found is None:
            raise self.error(f"{column} is {shorten(self.values[column])}; it must be a whole number")
        return int(found[1])


def without_fraction(value: str) -> str:
    """A whole number's text without a fraction of zero: 1.0 -> 1; any other text as it is."""
    found = _WHOLE.fullmatch(value)
    return found[1] if found is not None else value


def shorten(value: str) -> str:
    """A value for a message: quoted, 60 characters at most."""
    return repr(value if len(value) <= 60 else value[:60] + "...")


def read_text(path: Path) -> str:
    """The text of a list, in UTF-8 with or without a byte order mark. Raises: DataError."""
    with guard(f"can't read {path}"):
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes; a list has at most {LARGEST:,}")
        content = path.read_bytes()
    other = _MARKS.get(content[:2])
    if other is not None or b"\0" in content:
        raise DataError(f"{path} is {other or 'binary, or UTF-16'}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{number}: the byte 0x{content[error.start]:02x} is not UTF-8; save the list as UTF-8"
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty, without spaces around them. Raises: DataError."""
    lines = []
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        if _CONTROL.search(line.strip().replace("\t", " ")):
            raise DataError(f"{path}:{number}: a control character; save the list as plain text")
        if line.strip():
            lines.append(line.strip())
    return lines


def read_table(path: Path, columns: Sequence[str], *, head: Sequence[str] = ()) -> Iterator[Line]:
    """The rows of a CSV file; every one of `columns` has a value in each.

    The first line names the columns, in any order and with others among them. Values are separated by commas, or by
    semicolons, tabs or bars where the first line has all columns in that form alone.

    Args:
        path: the file.
        columns: those that are used.
        head: the names of all columns, of a file that has none in its first line.

    Raises:
        DataError: with file and line.
    """
    text = read_text(path)
    delimiter = "," if head else _delimiter(path, text, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = list(head)
    try:
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if not names:
                names = [name.strip() for name in row]
                continue
            yield _line(path, reader.line_num, names, [value.strip() for value in row], columns, delimiter)
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: {error}; check the quotes of this line and of those before"
        ) from error


def _delimiter(path: Path, text: str, columns: Sequence[str]) -> str:
    """What separates the values: under it, the first line has every column once."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    for delimiter in _DELIMITERS:
        with guard(f"{path}:1"):
            names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if set(columns) <= set(names):
            twice = next((name for name in columns if names.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}:1: the column {twice!r} stands twice")
            return delimiter
    names = [name.strip() for name in first.split(",")]
    lacking = next(name for name in columns if name not in names)
    raise DataError(
        f"{path} has no column {lacking!r}; it needs {', '.join(columns)}; its first line is {shorten(first.strip())}"
    )


def _line(
    path: Path, number: int, names: Sequence[str], row: Sequence[str], columns: Sequence[str], delimiter: str
) -> Line:
    if len(row) != len(names):
        quotes = f"; a value with a {_DELIMITERS[delimiter]} in it needs quotes" if len(row) > len(names) else ""
        raise DataError(f"{path}:{number}: {len(row)} value{'s' * (len(row) > 1)} for {len(names)} columns{quotes}")
    line = Line(path, number, {name: value for name, value in zip(names, row, strict=True) if name in columns})
    for column in columns:
        if line[column].casefold() in _MISSING:
            raise line.error(f"no {column!r}; the columns are {','.join(columns)}")
        if _CONTROL.search(line[column]):
            raise line.error(f"a line break or control character in {column!r}; is a quote not closed?")
    return line
