"""Records -> tables -> markdown: the same records give the same bytes, in any order.

A table holds the cells that can be compared: one suite version, task, backbone, data, anchors and seed; records that
differ in one of them go to tables of their own. A column is one protocol (a perturbation with its constants); another
protocol of the same name gets a column of its own that says so. A row is a model at its checkpoint and n.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from hashlib import sha256
from importlib.resources import files
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

import pandas as pd

from rlbench.core import Record
from rlbench.errors import StoreError
from rlbench.metrics import wilson
from rlbench.records import read_records, timeless

COMPARABLE = ("modality", "suite", "suite_version", "task", "backbone", "data", "anchors", "seed")
ROW = ("model", "n", "checkpoint")
MINI = (
    "Backbone `mini` is a model organism: a small encoder that a laptop trains in minutes, to compare methods with. "
    "Its numbers are not LanguageBind's."
)
READING = (
    "Accuracy in %, with its Wilson 95% interval. `worst` counts an example as correct only if it is correct under "
    "every attack of that threat model. `k corruptions at s` is their mean at severity s; its interval takes n "
    "examples, not k n, which is the cautious choice. Rows are in order of the mean of their `worst` columns; a cell "
    "that failed counts as 0."
)
_THREAT = re.compile(r"^(?P<what>.*) (?P<norm>linf|l2) (?P<eps>[\d./]+)$")
_CORRUPTED = re.compile(r"^(?P<what>[^+]*) (?P<severity>[1-5])$")


@dataclass(frozen=True)
class Score:
    """A share of correct examples in [0, 1] with its interval, or why there is none."""

    share: float
    low: float
    high: float
    error: str | None = None

    def __str__(self) -> str:
        """In %: `88.2 [85.1, 90.7]`, or `failed`."""
        if self.error is not None:
            return "failed"
        return f"{100 * self.share:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Row:
    """A model at its n and weights, with its scores by column."""

    model: str
    n: int
    scores: Mapping[str, Score]

    def rank(self) -> tuple[float, float]:
        """The mean worst case, then the mean of all columns; a failed cell counts as 0."""
        worst = [score.share for column, score in self.scores.items() if column.startswith("worst ")]
        return fmean(worst or [0.0]), fmean(score.share for score in self.scores.values())


@dataclass(frozen=True)
class Table:
    """Cells that can be compared.

    Attributes:
        facts: the values of COMPARABLE that they share.
        made_with: the versions and devices that they came from.
        apart: the facts, if any, that keep this table from being one with another of the same suite and backbone.
    """

    facts: Mapping[str, object]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    made_with: str
    apart: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        f = self.facts
        apart = "".join(f", {name} {f[name]}" for name in self.apart)
        return f"{f['suite']} v{f['suite_version']}: {f['modality']}, backbone {f['backbone']}, data {f['task']}{apart}"

    @property
    def failures(self) -> list[str]:
        """One line for each failed cell."""
        return [f"{r.model}, {c}: {s.error}" for r in self.rows for c, s in r.scores.items() if s.error is not None]


def column_order(column: str) -> tuple[Any, ...]:
    """Sorts columns: clean, attacks (by norm, name, eps), worst cases, corruptions, compositions."""
    column, _, protocol = column.partition(" (protocol ")
    if column == "clean":
        return 0, protocol
    threat = _THREAT.match(column)
    if threat is None:
        return 3, column[-1], column, protocol
    kind = 4 if " + " in column else 2 if threat["what"] == "worst" else 1
    return kind, threat["norm"] == "l2", threat["what"], Fraction(threat["eps"]), column, protocol


def load(paths: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """The records of result stores or .jsonl files as a tidy frame, one row a cell (see `frame`).

    Raises:
        StoreError: a path that is no store, or a line that is no record.
    """
    return frame(read_records([paths] if isinstance(paths, str | Path) else paths))


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a cell: the record's fields, its provenance, and accuracy, low, high in [0, 1] (NaN if it failed)."""
    cells: list[dict[str, object]] = []
    for record in sorted(records, key=_order):
        own = {k: v for k, v in asdict(record).items() if k != "provenance"}
        scores = {"accuracy": float("nan"), "low": 0.0, "high": 1.0}
        if record.n_correct is not None:
            low, high = wilson(record.n_correct, record.n)
            scores = {"accuracy": record.n_correct / max(record.n, 1), "low": low, "high": high}
        cells.append({**record.provenance, **own, **scores})
    return pd.DataFrame(cells)


def _order(record: Record) -> tuple[Any, ...]:
    return record.suite, record.suite_version, record.model, column_order(record.perturbation), record.n, record.key


def tables(cells: pd.DataFrame) -> list[Table]:
    """The comparable parts of a frame, in a fixed order.

    Raises:
        StoreError: a row has two records of one column.
    """
    known = cells.assign(**{name: "" for name in (*COMPARABLE, *ROW, "protocol") if name not in cells}).astype(object)
    known = known.where(known.notna(), None)
    parts = known.groupby(list(COMPARABLE), sort=False, dropna=False)
    found = [_table(dict(zip(COMPARABLE, facts, strict=True)), part) for facts, part in parts]
    found.sort(key=lambda table: [str(value) for value in table.facts.values()])
    return [replace(table, apart=_apart(table, found)) for table in found]


def _apart(table: Table, others: Sequence[Table]) -> tuple[str, ...]:
    alike = [other.facts for other in others if other.title == table.title]
    return tuple(name for name in COMPARABLE if len({str(facts[name]) for facts in alike}) > 1)


def _table(facts: dict[str, object], part: pd.DataFrame) -> Table:
    part = part.assign(column=_columns(part))
    corrupted = {c for c in part["column"] if _CORRUPTED.match(c) and not _THREAT.match(c)}
    groups = {s: sorted(c for c in corrupted if c.endswith(s)) for s in "12345"}
    rows = []
    for _, cells in part.groupby(list(ROW), sort=True, dropna=False):
        model, n, weights = str(cells["model"].iloc[0]), int(cells["n"].iloc[0]), str(cells["checkpoint"].iloc[0])
        twins = part.loc[(part["model"] == model) & (part["n"] == n), "checkpoint"].nunique() > 1
        scores = _scores(cells, model)
        for severity, members in groups.items():
            there = [score for member in members if (score := scores.pop(member, None))]
            if there and len(members) > 1:
                scores[f"{len(members)} corruptions at {severity}"] = _mean(there, len(members), n)
            elif there:
                scores[members[0]] = there[0]
        rows.append(Row(f"{model} ({weights[:8]})" if twins else model, n, scores))
    columns = sorted({c for row in rows for c in row.scores}, key=column_order)
    rows.sort(key=lambda row: (*(-r for r in row.rank()), row.model, row.n))
    return Table(facts, tuple(columns), tuple(rows), _made_with(part))


def _columns(part: pd.DataFrame) -> list[str]:
    """Each cell's column: its perturbation, with the protocol where the table has several of that perturbation."""
    several = part.groupby("perturbation")["protocol"].nunique()
    pairs = zip(part["perturbation"], part["protocol"], strict=True)
    return [p if several[p] <= 1 else f"{p} (protocol {str(protocol)[:8]})" for p, protocol in pairs]


def _scores(cells: pd.DataFrame, model: str) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    for cell in cells.to_dict("records"):
        if cell["column"] in scores:
            raise StoreError(
                f"{model}, {cell['suite']}, {cell['perturbation']}: two records with the same n, checkpoint and "
                "protocol (another device or version?); render one store at a time"
            )
        error = cell["error"] or (None if cell["n_correct"] is not None else "no counts")
        share = 0.0 if error else float(cell["accuracy"])
        scores[cell["column"]] = Score(share, float(cell["low"]), float(cell["high"]), error)
    return scores


def _mean(scores: Sequence[Score], wanted: int, n: int) -> Score:
    """Of corruptions on the same n examples; the variance of a mean of shares is at most a proportion's."""
    errors = [score.error for score in scores if score.error]
    if len(scores) < wanted:
        errors.append(f"{len(scores)} of {wanted} corruptions were run")
    if errors:
        return Score(0.0, 0.0, 1.0, errors[0])
    share = fmean(score.share for score in scores)
    return Score(share, *wilson(share * n, n))


def _made_with(part: pd.DataFrame) -> str:
    def values(name: str) -> str:
        return ", ".join(sorted({str(v) for v in part[name] if v is not None})) if name in part else ""

    protocols = sorted({f"{p} {protocol}" for p, protocol in zip(part["perturbation"], part["protocol"], strict=True)})
    facts = [("protocol", sha256("\n".join(protocols).encode()).hexdigest()[:16])]
    facts += [(label, values(name)) for label, name in (("rlbench", "rlbench"), ("torch", "torch"), ("on", "device"))]
    return " · ".join(f"{label} {text}" for label, text in facts if text)


def render(cells: pd.DataFrame, title: str) -> str:
    """Markdown: a heading, what the numbers are, and one table for each comparable part, with its provenance."""
    found = tables(cells) if len(cells) else []
    parts = [f"# {title}", "<!-- Generated by `rlbench leaderboard`: change the records, not this file. -->"]
    if any(table.facts["backbone"] == "mini" for table in found):
        parts.append(MINI)
    return "\n\n".join([*parts, READING, *(map(_markdown, found) if found else ["No records."])]) + "\n"


def _markdown(table: Table) -> str:
    rows = [
        {"model": r.model, "n": r.n} | {c: str(r.scores[c]) if c in r.scores else "-" for c in table.columns}
        for r in table.rows
    ]
    text = str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, colalign=None))
    failures = [f"- failed: {line}".replace("\n", " ") for line in table.failures]
    hashes = " · ".join(f"{name} {table.facts[name]}" for name in COMPARABLE[5:] if table.facts[name] not in ("", None))
    parts = [f"## {table.title}", text, "\n".join(failures), f"{hashes} · {table.made_with}"]
    return "\n\n".join(part for part in parts if part)


def freeze(records: Iterable[Record]) -> str:
    """Records as the lines of a reference file: sorted, without times, without paths of this machine.

    Raises:
        StoreError: a model or suite that only this machine has; or two records of one cell (see `tables`).
    """
    kept = [timeless(record) for record in sorted(records, key=_order)]
    tables(frame(kept))
    return "".join(json.dumps(_portable(record), sort_keys=True, ensure_ascii=False) + "\n" for record in kept)


def _portable(record: Record) -> dict[str, object]:
    for what, text in (("model", record.model), ("suite", record.suite), ("task", record.task)):
        if "/" in text or "\\" in text:
            raise StoreError(
                f"a reference record can't name the {what} {text}, a path of this machine; bundle it first"
            )
    kept = {k: v for k, v in record.provenance.items() if not PurePath(str(v)).is_absolute()}
    return {**asdict(record), "provenance": kept}


@dataclass(frozen=True)
class Board:
    """A board of this installation: its reference records and the markdown that they make."""

    name: str
    records: Path
    page: Path

    def text(self) -> str:
        """The markdown as it should be. Raises: StoreError."""
        return render(load(self.records), f"Leaderboard: {self.name}")

    def stale(self) -> bool:
        """The page's bytes are not those that the records make."""
        return not self.page.is_file() or self.page.read_bytes() != self.text().encode()


def boards() -> list[Board]:
    """The boards in `leaderboards/`: of the checkout in an editable install, else of the installed package."""
    home = Path(str(files("rlbench.leaderboards")))
    found = sorted((home / "records").glob("*.jsonl"))
    return [Board(path.stem, path, home / f"{path.stem}.md") for path in found]


def is_checkout(board: Board) -> bool:
    """Whether the board is part of a source tree, and not of an installed package, where nothing is written."""
    return (board.page.parent.parent / "pyproject.toml").is_file()
