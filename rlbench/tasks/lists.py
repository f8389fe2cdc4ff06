"""Strict readers of lists, as tables (CSV) or lines of text: labels, classes, captions, lists of published data sets.

Reading is strict, since a value in the wrong column becomes a wrong number later. A list is UTF-8, every row has as
many values as the header, no value of a required column is missing, and every quote is closed.
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
# Narrower than `core.errors.find_hidden`: U+2028 and invisible format characters are allowed in captions and labels.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?")
_MISSING = frozenset({"", "nan", "<na>"})  # what pandas writes for a missing value
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: the file, the line number, and the values by column."""

    path: Path
    number: int
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def error(self, text: str) -> DataError:
        """Makes an error about the row, with file and line number."""
        return DataError(f"{self.path}:{self.number}: {text}")

    def parse_whole(self, column: str) -> int:
        """Reads a whole number, also written as 1.0, as pandas does in a column with empty cells. Raises: DataError."""
        match = _WHOLE.fullmatch(self.values[column])
        if match is None:
            raise self.error(f"{column} is {shorten(self.values[column])}; it must be a whole number")
        return int(match[1])


def drop_fraction(value: str) -> str:
    """Drops a zero fraction from a whole number (1.0 -> 1); returns any other text unchanged."""
    match = _WHOLE.fullmatch(value)
    return match[1] if match is not None else value


def shorten(value: str) -> str:
    """Quotes a value for a message, cut to 60 characters."""
    return repr(value if len(value) <= 60 else value[:60] + "...")


def read_text(path: Path) -> str:
    """Reads a UTF-8 list, with or without a byte order mark. Raises: DataError."""
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
    """Reads the non-empty lines of a list, without surrounding spaces. Raises: DataError."""
    lines = []
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        if _CONTROL.search(line.strip().replace("\t", " ")):
            raise DataError(f"{path}:{number}: a control character; save the list as plain text")
        if line.strip():
            lines.append(line.strip())
    return lines


def read_table(path: Path, columns: Sequence[str], *, head: Sequence[str] = ()) -> Iterator[Line]:
    """Reads the rows of a CSV file; each has a value in every one of `columns`.

    The first line names the columns, in any order; there may be others. Values are separated by commas, or by
    semicolons, tabs or bars if only then the first line contains all columns.

    Args:
        path: the file.
        columns: required columns.
        head: names of all columns, for a file without a header.

    Raises:
        DataError: with file and line.
    """
    if not path.exists():
        raise DataError(f"there is no {path}; it is a list with the columns {','.join(columns)}")
    text = read_text(path)
    delimiter = "," if head else _find_delimiter(path, text, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = list(head)
    try:
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if not names:
                names = [name.strip() for name in row]
                continue
            yield _make_line(path, reader.line_num, names, [value.strip() for value in row], columns, delimiter)
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: {error}; check the quotes of this line and of earlier lines"
        ) from error


def _find_delimiter(path: Path, text: str, columns: Sequence[str]) -> str:
    """Finds the delimiter with which the first line has every column once. Raises: DataError."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    for delimiter in _DELIMITERS:
        with guard(f"{path}:1"):
            names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if set(columns) <= set(names):
            twice = next((name for name in columns if names.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}:1: the column {twice!r} appears twice")
            return delimiter
    names = [name.strip() for name in first.split(",")]
    lacking = next(name for name in columns if name not in names)
    raise DataError(
        f"{path} has no column {lacking!r}; it needs {', '.join(columns)}; its first line is {shorten(first.strip())}"
    )


def _make_line(
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
