"""Labels of recordings as intervals of time, in a CSV or YAML file beside them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path, PurePosixPath

import yaml

from rlbench.core import yaml_source
from rlbench.core.errors import DataError
from rlbench.tasks.lists import read_table, shorten

COLUMNS = ("bag", "start", "end", "label")
SECOND = 10**9  # ns
_FAR = 60 * SECOND  # outside of a bag; a label that ends a little late is no other unit
_LONGEST = 10**10  # seconds: 317 years


@dataclass(frozen=True, slots=True)
class Interval:
    """A labelled stretch of a bag, [start, end) in ns.

    Attributes:
        start: its first ns.
        end: the ns after its last.
        label: of the class.
        where: the file and line that say so.
    """

    start: int
    end: int
    label: str
    where: str


def read_intervals(path: Path) -> dict[str, list[Interval]]:
    """Reads the labelled intervals of bags, sorted by start.

    A CSV file has the columns bag,start,end,label; a YAML file (.yaml, .yml) is a list of mappings with these keys.
    Times are in seconds with up to nine decimals, exact to the nanosecond.

    Raises:
        DataError: with file and line: the file is malformed, a bag lies outside of the folder, an interval is empty, or
            two of a bag overlap.
    """
    rows = _read_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else _read_csv(path)
    found: dict[str, list[Interval]] = {}
    for bag, interval in rows:
        found.setdefault(_check_place(bag, interval.where), []).append(interval)
    if not found:
        raise DataError(f"{path} has no intervals; it must have {','.join(COLUMNS)}")
    for intervals in found.values():
        intervals.sort(key=lambda one: one.start)
        for one, other in pairwise(intervals):
            if other.start < one.end:
                raise DataError(
                    f"{other.where}: the interval of {shorten(other.label)} overlaps that of {shorten(one.label)} in "
                    f"line {one.where.rpartition(':')[2]}; a moment has one label"
                )
    return found


def find_interval(intervals: Sequence[Interval], stamp: int) -> Interval | None:
    """Finds the interval of a sorted list that contains a moment in ns; None if there is none."""
    k = bisect_right(intervals, stamp, key=lambda one: one.start) - 1
    return intervals[k] if k >= 0 and stamp < intervals[k].end else None


def check_times(intervals: Sequence[Interval], bag: Path, first: int, last: int, clock: str) -> None:
    """Checks that no interval lies far outside of a bag, as one with another unit or another zero does.

    Args:
        intervals: of the bag.
        bag: its path, for the message.
        first: the ns of its first message.
        last: the ns of its last message.
        clock: what times count from, "bag" or "epoch".

    Raises:
        DataError: with file and line.
    """
    other = (
        "since the bag's first message; set clock: epoch for times since 1970"
        if clock == "bag"
        else "since 1970; leave out clock: epoch for times since the bag's first message"
    )
    for one in intervals:
        if one.end < first - _FAR or one.start > last + _FAR:
            raise DataError(
                f"{one.where}: the interval from {describe_time(one.start)} to {describe_time(one.end)} lies outside "
                f"of {bag}, whose messages are from {describe_time(first)} to {describe_time(last)}; times are in "
                f"seconds {other}"
            )


def describe_time(stamp: int) -> str:
    """ns -> text in seconds, to the ms."""
    return f"{stamp / SECOND:.3f} s"


def _check_place(bag: str, where: str) -> str:
    """A bag's path in its one spelling, without "./". Raises: DataError: it is not a path in the folder."""
    place = PurePosixPath(bag)
    if place.is_absolute() or Path(bag).is_absolute() or ".." in place.parts:
        raise DataError(f"{where}: the bag {shorten(bag)} must be a path in the labels' folder, such as patrol.mcap")
    return str(place)


def _read_csv(path: Path) -> Iterator[tuple[str, Interval]]:
    for line in read_table(path, COLUMNS):
        yield line["bag"], _make(f"{path}:{line.number}", line["start"], line["end"], line["label"], line.error)


def _read_yaml(path: Path) -> Iterator[tuple[str, Interval]]:
    for part in yaml_source.read(path, "labels", DataError).each():
        keys = part.items()
        yaml_source.check_keys(keys, part, COLUMNS)
        texts = [one.node.value if isinstance(one.node, yaml.ScalarNode) else "" for one in keys.values()]
        values = dict(zip(keys, texts, strict=True))
        where = f"{part.path}:{part.line}"

        def fail(text: str, where: str = where) -> DataError:
            return DataError(f"{where}: {text}")

        for column in ("bag", "label"):
            if not values[column].strip():
                raise fail(f"{column} must be text")
        yield values["bag"], _make(where, values["start"], values["end"], values["label"], fail)


def _make(where: str, start: str, end: str, label: str, fail: Callable[[str], DataError]) -> Interval:
    interval = Interval(_parse_seconds(start, fail), _parse_seconds(end, fail), label, where)
    if interval.start >= interval.end:
        raise fail(f"the interval ends at {end}, not after its start, {start}")
    return interval


def _parse_seconds(text: str, fail: Callable[[str], DataError]) -> int:
    """Seconds as text -> ns, without rounding by binary fractions."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise fail(f"{shorten(text)} is not a time in seconds, such as 12.5") from None
    if not seconds.is_finite() or not 0 <= seconds < _LONGEST or seconds * SECOND % 1:
        raise fail(f"{shorten(text)} is not a time in seconds: at least 0, with at most nine decimals")
    return int(seconds * SECOND)
