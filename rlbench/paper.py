"""The board `paper`: what papers report and what rlbench measured of the same, side by side and never in one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import yaml

from rlbench import formats, recalls
from rlbench.core import Record
from rlbench.errors import StoreError
from rlbench.fields import checked
from rlbench.tables import frame, tables

NAME, REPORTED = "paper", "reported.yaml"
ABOUT = (
    "Rows under **reported** are what the named papers say of their own experiments, in %; rlbench measured none of "
    "them, and their protocols differ from its own where the line above them says so. Rows under **measured** come "
    "from rlbench's records, with 95% intervals. The two are never ranked against each other."
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where numbers stand: authors, year and title; a page."""

    cite: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model with what its source reports of each column, in %; None: nothing."""

    model: str
    source: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Numbers that can be compared with each other; `suite` measures the same here, if there is one."""

    title: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    suite: str = ""


@dataclass(frozen=True, kw_only=True)
class _Page:
    sources: dict  # type: ignore[type-arg]
    tables: list  # type: ignore[type-arg]


def _made(kind: Any, values: object, what: str) -> Any:
    if not isinstance(values, dict):
        raise StoreError(f"{what} is {values!r}; it must be a mapping")
    return kind(**checked(kind, values, what))


def read(path: Path) -> tuple[dict[str, Source], list[Reported]]:
    """The sources by name, and the tables.

    Raises:
        StoreError: not readable; a source that is not there, not used or no page; a row whose values do not fit the
            columns or leave [0, 100]; a title, suite, column or row that stands twice. FieldError: an unknown or
            missing key, or a value of another type.
    """
    try:
        page = _made(_Page, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StoreError(f"{path} can't be read: {error}".replace("\n", " ")) from error
    sources = {str(name): _made(Source, value, f"{path}: source {name}") for name, value in page.sources.items()}
    found = [_table(values, f"{path}: table {k + 1}") for k, values in enumerate(page.tables)]
    for name, source in sources.items():
        _check(source.url.startswith("https://"), f"{path}: {name} has the url {source.url!r}; it must be https://...")
    used = {row.source for table in found for row in table.rows}
    for name in sorted(used ^ set(sources)):
        raise StoreError(f"{path}: the source {name!r} is {'not used' if name in sources else 'not listed'}")
    _once([table.title for table in found], path)
    _once([table.suite for table in found if table.suite], path)
    return sources, found


def _table(values: object, what: str) -> Reported:
    raw = values.get("rows") if isinstance(values, dict) else None
    rows = tuple(_made(Row, row, f"{what}, row {k + 1}") for k, row in enumerate(raw if isinstance(raw, list) else []))
    _check(bool(rows), f"{what} needs rows")
    made: Reported = replace(_made(Reported, {**cast(Any, values), "rows": []}, what), rows=rows)
    _once(made.columns, what)
    _once([row.model for row in rows], what)
    for row in rows:
        fits = len(row.values) == len(made.columns)
        _check(fits, f"{what}: {row.model} has {len(row.values)} values for {len(made.columns)} columns")
        inside = all(value is None or 0 <= value <= 100 for value in row.values)
        _check(inside, f"{what}: {row.model} has the values {list(row.values)}; they must lie in [0, 100]")
    return made


def _check(fits: bool, problem: str) -> None:
    if not fits:
        raise StoreError(problem)


def _once(names: Iterable[str], what: object) -> None:
    seen: set[str] = set()
    for name in names:
        _check(name not in seen, f"{what}: {name!r} stands twice")
        seen.add(name)


def render(path: Path, records: Iterable[Record]) -> str:
    """The board's markdown: every table's reported rows, then what the records measured by its suite.

    Args:
        path: of `reported.yaml`.
        records: those of suites that no table names stand at the end.

    Raises: as `read`, and StoreError where records contradict each other.
    """
    sources, reported = read(path)
    measured: dict[str, list[str]] = {}
    cells = frame(records)
    for found in tables(cells) if len(cells) else []:
        text = formats.markdown(formats.shown(found))
        measured.setdefault(str(found.facts["suite"]), []).append(f"##{text}")  # a heading two levels lower
    for suite, (_, *texts) in recalls.grids(cells).items():
        measured[suite] += [recalls.READING, *(f"##{text}" if text.startswith("## ") else text for text in texts)]
    parts = ["# Leaderboard: paper", "<!-- Generated by `rlbench leaderboard` from reported.yaml and records. -->"]
    parts.append(ABOUT)
    for table in reported:
        parts += [f"## {table.title}", _told(table), "### reported", _grid(table, sources)]
        none = "Nothing yet." if table.suite else "No suite measures this."
        parts += ["### measured", *measured.pop(table.suite, [none])]
    if measured:
        parts += ["## Of no paper", "### measured", *(text for texts in measured.values() for text in texts)]
    return "\n\n".join(parts) + "\n"


def _told(table: Reported) -> str:
    here = f" Measured here by `rlbench run --suite {table.suite}`." if table.suite else ""
    return f"{table.protocol[:1].upper()}{table.protocol[1:]}.{here}"


def _grid(table: Reported, sources: dict[str, Source]) -> str:
    rows = []
    for row in table.rows:
        values = ["-" if value is None else f"{value:.2f}".removesuffix("0") for value in row.values]
        source = sources[row.source]
        kept = dict(zip(table.columns, values, strict=True))
        rows.append({"model": row.model, **kept, "reported by": f"[{source.cite}]({source.url})"})
    return formats.grid(rows)
