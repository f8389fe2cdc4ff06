"""The board `paper`: numbers that papers report, and what rlbench measured on the same tasks, in separate tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from rlbench.core import Record, yaml_source
from rlbench.core.errors import StoreError, quote
from rlbench.core.markdown import grid
from rlbench.core.yaml_source import YamlPart
from rlbench.report.boards import by_task, formats, recall
from rlbench.report.boards.tables import frame, tables

NAME, REPORTED = "paper", "reported.yaml"
ABOUT = (
    "Rows under **reported** are what the named papers say of their own experiments, in %; rlbench measured none of "
    "them, and their protocols differ from its own where the line above them says so. Rows under **measured** come "
    "from rlbench's records, with 95% intervals. The two are never ranked against each other."
)


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A source of reported numbers.

    Attributes:
        cite: authors, year and title.
        url: its web page.
    """

    cite: str
    url: str


@dataclass(frozen=True, kw_only=True)
class ReportedRow:
    """A model with its reported numbers.

    Attributes:
        model: as its source names it.
        source: key of its citation.
        values: by column, in %; None if the source has no such number.
    """

    model: str
    source: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A table of reported numbers that can be compared with each other; tables of one suite follow each other.

    Attributes:
        title: its heading.
        protocol: how the numbers were obtained.
        columns: what they are, such as "clean".
        rows: one per model and source.
        suite: the suite of rlbench that measures the same; "" if there is none.
    """

    title: str
    protocol: str
    columns: tuple[str, ...]
    rows: tuple[ReportedRow, ...]
    suite: str = ""


def read(path: Path) -> tuple[dict[str, Citation], list[Reported]]:
    """The citations by key and the tables of a file such as `leaderboards/reported.yaml`.

    Raises:
        StoreError: the file is not readable; a key is unknown or missing; a value has the wrong type; a citation is
            missing, not used or has no https address; a row does not have one value per column, in [0, 100] or null;
            a title, suite, column or row appears twice.
    """
    keys = (root := yaml_source.read(path, "board", StoreError)).items()
    yaml_source.check_keys(keys, root, ("sources", "tables"))
    sources = {name: part.make(Citation) for name, part in keys["sources"].items().items()}
    found = [_read_table(part) for part in keys["tables"].each()]
    for name, part in keys["sources"].items().items():
        url = sources[name].url
        _check(url.startswith("https://"), part, f"{name} has the url {quote(url)}; it must be https://...")
    used = {row.source for table in found for row in table.rows}
    for name in sorted(used ^ set(sources)):
        keys["sources"].fail(f"the source {quote(name)} is {'not used' if name in sources else 'not listed'}")
    _check_unique([table.title for table in found], keys["tables"])
    _check_unique([suite for suite, _ in groupby(table.suite for table in found) if suite], keys["tables"])
    return sources, found


def _read_table(part: YamlPart) -> Reported:
    parts = part.items()
    rows = tuple(row.make(ReportedRow) for row in parts.pop("rows").each()) if "rows" in parts else ()
    table = part.make(Reported, parts, rows=rows)
    _check(bool(rows), part, "a table needs rows")
    _check_unique(table.columns, part)
    _check_unique([row.model for row in rows], part)
    for row in rows:
        fits = len(row.values) == len(table.columns)
        _check(fits, part, f"{row.model} has {len(row.values)} values for {len(table.columns)} columns")
        inside = all(value is None or 0 <= value <= 100 for value in row.values)
        _check(inside, part, f"{row.model} has the values {list(row.values)}; they must lie in [0, 100]")
    return table


def _check(valid: bool, part: YamlPart, problem: str) -> None:
    if not valid:
        part.fail(problem)


def _check_unique(names: Iterable[str], part: YamlPart) -> None:
    seen: set[str] = set()
    for name in names:
        _check(name not in seen, part, f"{quote(name)} appears twice")
        seen.add(name)


def render(path: Path, records: Iterable[Record]) -> str:
    """The board's markdown: for each table the reported rows, then what was measured by its suite.

    Args:
        path: of `reported.yaml`.
        records: that were measured; those of suites that no table names come last.

    Raises: as `read` and `tables.tables`.
    """
    sources, reported = read(path)
    cells = frame(records)
    measured = _measured(cells) if len(cells) else {}
    parts = ["# Leaderboard: paper", "<!-- Generated by `rlbench leaderboard` from reported.yaml and records. -->"]
    parts.append(ABOUT)
    for table, following in zip(reported, [*reported[1:], None], strict=True):
        parts += [f"## {table.title}", _describe(table), "### reported", _grid(table, sources)]
        if table.suite and following is not None and following.suite == table.suite:
            continue  # what was measured follows the suite's last table
        none = "Nothing yet." if table.suite else "No suite measures this."
        parts += ["### measured", *measured.pop(table.suite, [none])]
    if measured:
        parts += ["## Of no paper", "### measured", *(text for texts in measured.values() for text in texts)]
    return "\n\n".join(parts) + "\n"


def _measured(cells: pd.DataFrame) -> dict[str, list[str]]:
    """By suite, what the records measured, as markdown with headings two levels lower."""
    found = tables(cells)
    measured: dict[str, list[str]] = {}
    for suite, texts in by_task.grids(found).items():
        measured.setdefault(suite, []).extend([by_task.READING, *map(_lower, texts)])
    for table in found:
        text = formats.markdown(formats.prepare_table(table))
        measured.setdefault(str(table.facts["suite"]), []).append(_lower(text))
    for suite, (_, *texts) in recall.grids(cells).items():
        measured[suite] += [recall.READING, *map(_lower, texts)]
    return measured


def _lower(text: str) -> str:
    """The text with its heading, if it begins with one, two levels lower."""
    return f"##{text}" if text.startswith("## ") else text


def _describe(table: Reported) -> str:
    here = f" Measured here by `rlbench run --suite {table.suite}`." if table.suite else ""
    return f"{table.protocol[:1].upper()}{table.protocol[1:]}.{here}"


def _grid(table: Reported, sources: dict[str, Citation]) -> str:
    rows = []
    for row in table.rows:
        values = ["-" if value is None else f"{value:.2f}".removesuffix("0") for value in row.values]
        source = sources[row.source]
        scores = dict(zip(table.columns, values, strict=True))
        rows.append({"model": row.model, **scores, "reported by": f"[{source.cite}]({source.url})"})
    return grid(rows)
