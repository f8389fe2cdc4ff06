"""Records -> tables of cells that can be compared.

A table holds one suite version, task, backbone, data, anchors and seed; records that differ in one of them go to tables
of their own. A column is one protocol (a perturbation with its constants); another protocol of the same name gets a
column of its own that says so. A row is a model at its checkpoint and n.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from hashlib import sha256
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rlbench.checks import RANK
from rlbench.core import Record
from rlbench.errors import StoreError
from rlbench.metrics import wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPARABLE = ("modality", "suite", "suite_version", "task", "backbone", "data", "anchors", "seed")
ROW = ("model", "n", "checkpoint")
THREAT = re.compile(r"^(?P<what>.*) (?P<norm>linf|l2) (?P<eps>[\d./]+)$")
CORRUPTED = re.compile(r"^(?P<what>[^+]*) (?P<severity>[1-5])$")


@dataclass(frozen=True)
class Score:
    """A share of correct examples in [0, 1] with its interval, or why there is none.

    Attributes:
        hits: (n,) int, under how many of `of` cells each example is correct; None where the record doesn't say.
        deff: the variance over that of as many independent examples; above 1 where examples share sources.
        soundness: the badge of the soundness checks, if there were any.
        keys: of the records.
    """

    share: float
    low: float
    high: float
    error: str | None = None
    hits: NDArray[Any] | None = field(default=None, compare=False, repr=False)
    of: int = 1
    deff: float = 1.0
    soundness: str = ""
    keys: tuple[str, ...] = field(default=(), compare=False)

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

    def rank(self, columns: Sequence[str]) -> tuple[float, float]:
        """The mean worst case, then the mean of all columns; a cell that failed or is missing counts as 0."""
        shares = {column: self.scores[column].share if column in self.scores else 0.0 for column in columns}
        worst = [share for column, share in shares.items() if column.startswith("worst ")]
        return fmean(worst or [0.0]), fmean(shares.values())


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
        return f"{f['suite']} v{f['suite_version']}: {f['modality']}, backbone {f['backbone']} on {f['task']}{apart}"

    @property
    def failures(self) -> list[str]:
        """One line for each failed cell."""
        return [f"{r.model}, {c}: {s.error}" for r in self.rows for c, s in r.scores.items() if s.error is not None]


def column_order(column: str) -> tuple[Any, ...]:
    """Sorts columns: clean, attacks (by norm, name, eps), worst cases, corruptions, compositions."""
    column, _, protocol = column.partition(" (protocol ")
    if column == "clean":
        return 0, protocol
    threat = THREAT.match(column)
    if threat is None:
        return 3, column[-1], column, protocol
    kind = 4 if " + " in column else 2 if threat["what"] == "worst" else 1
    return kind, threat["norm"] == "l2", threat["what"], Fraction(threat["eps"]), column, protocol


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a cell: the record's fields, its provenance, and accuracy, low, high in [0, 1] (NaN if it failed)."""
    cells: list[dict[str, object]] = []
    for record in sorted(records, key=reading_order):
        own = {k: v for k, v in asdict(record).items() if k != "provenance"}
        scores = {"accuracy": float("nan"), "low": 0.0, "high": 1.0}
        if record.n_correct is not None:
            low, high = _interval(record)
            scores = {"accuracy": record.n_correct / max(record.n, 1), "low": low, "high": high}
        cells.append({**record.provenance, **own, **scores})
    return pd.DataFrame(cells)


def _interval(record: Record) -> tuple[float, float]:
    """By a bootstrap over the sources, where examples share them; else Wilson's. The wider of both: never too sure."""
    low, high = wilson(record.n_correct or 0, record.n)
    clusters = record.provenance.get("clustered_low"), record.provenance.get("clustered_high")
    if clusters[0] is None or clusters[1] is None:
        return low, high
    return min(low, float(clusters[0])), max(high, float(clusters[1]))


def reading_order(record: Record) -> tuple[Any, ...]:
    """Sorts records by suite, model and column."""
    return (
        record.suite,
        record.suite_version,
        record.model,
        column_order(record.perturbation),
        record.n,
        record.key,
    )


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
    corrupted = {c for c in part["column"] if CORRUPTED.match(c) and not THREAT.match(c)}
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
    rows.sort(key=lambda row: (*(-r for r in row.rank(columns)), row.model, row.n))
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
        share, low, high = 0.0 if error else float(cell["accuracy"]), float(cell["low"]), float(cell["high"])
        own = wilson(cell["n_correct"] or 0, cell["n"])
        scores[cell["column"]] = Score(
            share,
            low,
            high,
            error,
            hits=_bits(cell),
            deff=1.0 if error else ((high - low) / (own[1] - own[0])) ** 2,
            soundness=str(cell.get("soundness") or ""),
            keys=(cell["key"],),
        )
    return scores


def _bits(cell: Mapping[Any, Any]) -> NDArray[Any] | None:
    """A record's flags, (n,) of 0 and 1."""
    if not cell.get("flags"):
        return None
    return np.unpackbits(np.frombuffer(bytes.fromhex(cell["flags"]), dtype=np.uint8))[: cell["n"]].astype(np.int64)


def _mean(scores: Sequence[Score], wanted: int, n: int) -> Score:
    """Of corruptions on the same n examples; the variance of a mean of shares is at most a proportion's."""
    keys = tuple(key for score in scores for key in score.keys)
    errors = [score.error for score in scores if score.error]
    if len(scores) < wanted:
        errors.append(f"{len(scores)} of {wanted} corruptions were run")
    if errors:
        return Score(0.0, 0.0, 1.0, errors[0], keys=keys)
    share, deff = fmean(score.share for score in scores), max(score.deff for score in scores)
    known = [score.hits for score in scores if score.hits is not None]
    apart = max(1, round(n / deff))  # as many independent examples say as much
    return Score(
        share,
        *wilson(share * apart, apart),
        hits=np.sum(known, axis=0) if len(known) == wanted else None,
        of=wanted,
        deff=deff,
        soundness=gravest(score.soundness for score in scores),
        keys=keys,
    )


def gravest(badges: Iterable[str]) -> str:
    """Of soundness badges; "" without any, and an unknown one is the gravest."""
    return max(filter(None, badges), key=lambda badge: RANK.index(badge) if badge in RANK else len(RANK), default="")


def _made_with(part: pd.DataFrame) -> str:
    def values(name: str) -> str:
        return ", ".join(sorted({str(v) for v in part[name] if v is not None})) if name in part else ""

    protocols = sorted({f"{p} {protocol}" for p, protocol in zip(part["perturbation"], part["protocol"], strict=True)})
    facts = [("protocol", sha256("\n".join(protocols).encode()).hexdigest()[:16])]
    facts += [(label, values(name)) for label, name in (("rlbench", "rlbench"), ("torch", "torch"), ("on", "device"))]
    return " · ".join(f"{label} {text}" for label, text in facts if text)
