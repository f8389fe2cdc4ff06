"""Records -> tables of cells that can be compared.

A table holds one suite version, task, data, seed and number of examples; records that differ in one of them go to
tables of their own. A column is one protocol (a perturbation with its constants); another protocol of the same name
gets a column of its own that says so. A row is a model at its checkpoint, with its own backbone and text tower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from hashlib import sha256
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from rlbench.core import Corrupted, Record
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import wilson
from rlbench.report.boards.scores import Row, Score, Table, gravest, most_shared
from rlbench.store.columns import Column, Mean, reading_order
from rlbench.store.flags import unpack
from rlbench.store.perturbations import from_columns, to_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPARABLE = ("modality", "suite", "suite_version", "task", "data", "seed", "n")


ROW = ("model", "checkpoint", "backbone", "anchors", "prompts")


SOURCES = 10  # fewer are named: a bootstrap over them is too sure


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a cell: the record's fields, its provenance, and accuracy, low, high in [0, 1] (NaN if it failed).

    Beside the perturbation's text stand its fields (see `store.perturbations.to_columns`).
    """
    cells: list[dict[str, object]] = []
    for record in sorted(records, key=reading_order):
        own = {one.name: getattr(record, one.name) for one in fields(Record) if one.name != "provenance"}
        scores = {"accuracy": float("nan"), "low": 0.0, "high": 1.0}
        if record.n_correct is not None:
            low, high = _interval(record)
            scores = {"accuracy": record.n_correct / max(record.n, 1), "low": low, "high": high}
        about = {**to_columns(record.perturbation), "perturbation": str(record.perturbation)}
        cells.append({**record.provenance, **own, **about, **scores})
    return pd.DataFrame(cells)


def _interval(record: Record) -> tuple[float, float]:
    """By a bootstrap over the sources, where examples share them; else Wilson's. The wider of both: never too sure.

    All examples of one source say as much of others as one example does.
    """
    low, high = wilson(record.n_correct or 0, record.n)
    if record.provenance.get("sources") == 1:
        return wilson((record.n_correct or 0) / max(record.n, 1), 1)
    clusters = record.provenance.get("clustered_low"), record.provenance.get("clustered_high")
    if clusters[0] is None or clusters[1] is None:
        return low, high
    return min(low, float(clusters[0])), max(high, float(clusters[1]))


Cell = Mapping[str, Any]  # a row of a frame, None where something is not known, and its `column`


def parts(cells: pd.DataFrame) -> Iterator[tuple[dict[str, object], tuple[str, ...], list[Cell]]]:
    """The comparable parts of a frame, in a fixed order: what they share, what keeps them from others, their cells.

    A cell's `column` is its perturbation, with the protocol where the part has several of that perturbation.
    """
    known = cells.assign(**{name: "" for name in (*COMPARABLE, *ROW, "protocol") if name not in cells}).astype(object)
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in known.where(known.notna(), None).to_dict("records") if len(cells) else ():
        found.setdefault(tuple(cell[name] for name in COMPARABLE), []).append(cast(dict[str, Any], cell))
    for place in sorted(found, key=lambda place: [*map(str, place[:-1]), -place[-1]]):
        alike = [other for other in found if other[:4] == place[:4]]
        apart = tuple(name for k, name in enumerate(COMPARABLE) if len({str(other[k]) for other in alike}) > 1)
        yield dict(zip(COMPARABLE, place, strict=True)), apart, _columns(found[place])


def _columns(cells: Iterable[dict[str, Any]]) -> list[Cell]:
    protocols: dict[str, set[object]] = {}
    for cell in cells:
        protocols.setdefault(cell["perturbation"], set()).add(cell["protocol"])
    return [cell | {"column": _column(cell, len(protocols[cell["perturbation"]]) > 1)} for cell in cells]


def _column(cell: Cell, several: bool) -> Column:
    return Column(from_columns(cell), str(cell["protocol"]) if several else "")


def models(part: Iterable[Cell]) -> Iterator[tuple[str, dict[str, str], list[Cell]]]:
    """The rows of a comparable part, in order: a name that no other one has, the values of ROW, and the cells."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in part:
        found.setdefault(tuple("" if cell[name] is None else str(cell[name]) for name in ROW), []).append(cell)
    twins: dict[str, list[tuple[str, ...]]] = {}
    for place in found:
        twins.setdefault(place[0], []).append(place)
    for place in sorted(found):
        yield _called(place, twins[place[0]]), dict(zip(ROW, place, strict=True)), found[place]


def _called(own: tuple[str, ...], twins: Sequence[tuple[str, ...]]) -> str:
    """A row's model, with the hashes that tell it apart from others of that name."""
    apart = [k for k in range(1, len(ROW)) if len({twin[k] for twin in twins}) > 1]
    marks = [own[k][:8] if ROW[k] == "checkpoint" else f"{ROW[k]} {own[k][:8]}" for k in apart]
    return f"{own[0]} ({', '.join(marks)})" if marks else own[0]


def tables(cells: pd.DataFrame) -> list[Table]:
    """The comparable parts of a frame as tables, in a fixed order.

    Raises:
        StoreError: a row has two records of one column; two models have one cell's key and other results.
    """
    return [_table(facts, apart, part) for facts, apart, part in parts(cells)]


def _table(facts: dict[str, object], apart: tuple[str, ...], part: Sequence[Cell]) -> Table:
    scored = [(model, own, _scores(cells, model)) for model, own, cells in models(part)]
    groups = {severity: _averaged([scores.keys() for _, _, scores in scored], severity) for severity in range(1, 6)}
    rows, n = [], int(part[0]["n"])
    for model, own, scores in scored:
        for severity, members in groups.items():
            there = [scores.pop(member) for member in members if member in scores]
            if there:
                scores[Column(Mean(len(members), severity))] = _mean(there, len(members), n)
        rows.append(Row(model, n, scores, **{name: own[name] for name in ROW[2:]}))
    columns = sorted({c for row in rows for c in row.scores}, key=lambda column: column.order)
    table = Table(
        facts, tuple(columns), tuple(warned(rows)), _describe_setup(part), apart, (*_few(part), *_one_key(part))
    )
    return replace(table, rows=tuple(sorted(table.rows, key=lambda row: _place(row, table))))


def _averaged(columns: Sequence[Iterable[Column]], severity: int) -> tuple[Column, ...]:
    """The corruptions at a severity, two or more, that most rows have together; others are columns of their own."""
    having = [
        {c for c in row if isinstance(c.of, Corrupted) and c.of.severity == severity and not c.protocol}
        for row in columns
    ]
    members = most_shared(having, sorted(set().union(*having)))
    return members if len(members) > 1 else ()


def _place(row: Row, table: Table) -> tuple[Any, ...]:
    """Rows on the scale by its mean, then by that of all columns that each of them has; the others behind, by name."""
    if not (table.scale and row.whole(table.scale)):
        return 1, 0.0, 0.0, row.model
    return 0, -row.mean(table.scale), -row.mean(table.shared), row.model


def warned(rows: Sequence[Row]) -> list[Row]:
    """The rows, with a warning where one's prompts are known to be other than those of most."""
    counts = Counter(row.prompts for row in rows if row.prompts).most_common()
    usual = counts[0][0] if len(counts) == 1 or (counts and counts[0][1] > counts[1][1]) else None
    odd = [bool(row.prompts) and len(counts) > 1 and row.prompts != usual for row in rows]
    return [replace(r, warning=f"other prompts: {r.prompts[:8]}") if o else r for r, o in zip(rows, odd, strict=True)]


def _few(part: Sequence[Cell]) -> Iterator[str]:
    """Sentences on the classes and sources that the examples lack."""
    n = part[0]["n"]
    for seen, classes in sorted({(int(cell.get("seen") or 0), int(cell.get("classes") or 0)) for cell in part}):
        if 0 < seen < classes:
            yield f"the {n} examples are of {seen} of the {classes} classes: the others are not tested"
    for sources in sorted({int(cell.get("sources") or SOURCES) for cell in part}):
        if sources < SOURCES:
            few = "one source" if sources == 1 else f"{sources} sources"
            yield f"the {n} examples are of {few} (recordings, speakers): too few for sure intervals and tests"


def _one_key(part: Sequence[Cell]) -> list[str]:
    """Models whose cells have one key: as good as one model. Raises: StoreError where their results differ."""
    first: dict[str, Cell] = {}
    found = set()
    for cell in part:
        other = first.setdefault(cell["key"], cell)
        if cell["model"] != other["model"]:
            names = " and ".join(sorted((str(cell["model"]), str(other["model"]))))
            found.add(f"{names} are one model under two names: their cells have the same keys")
            if any(cell[name] != other[name] for name in ("n_correct", "error", "flags")):
                raise StoreError(
                    f"{names} have one key but other results ({cell['suite']}, {cell['perturbation']}): their encoder "
                    "does not tell its weights; run them again, or leave one out"
                )
    return sorted(found)


def _scores(cells: Iterable[Cell], model: str) -> dict[Column, Score]:
    scores: dict[Column, Score] = {}
    for cell in cells:
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
            bound=cell["column"].is_bound,
            keys=(cell["key"],),
        )
    return scores


def _bits(cell: Cell) -> NDArray[Any] | None:
    """A record's flags, (n,) of 0 and 1."""
    if not cell.get("flags"):
        return None
    return unpack(cell["flags"], cell["n"]).astype(np.int64)


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


def _describe_setup(part: Sequence[Cell]) -> str:
    protocols = sorted({f"{cell['perturbation']} {cell['protocol']}" for cell in part})
    facts = [("protocol", sha256("\n".join(protocols).encode()).hexdigest()[:16])]
    for label, name in (("rlbench", "rlbench"), ("torch", "torch"), ("on", "device")):
        facts.append((label, ", ".join(sorted({str(cell[name]) for cell in part if cell.get(name) is not None}))))
    return " · ".join(f"{label} {text}" for label, text in facts if text)
