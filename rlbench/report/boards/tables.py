"""Records -> tables of cells that can be compared.

All cells of a table have the same suite version, task, data, seed and number of examples; records that differ in one of
them go to different tables. A column is a perturbation; if a table has several protocols of it (other constants), each
has its own column, with the protocol in its name. A row is a model with one set of weights, backbone and text tower.
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
from rlbench.core.badges import worst_badge
from rlbench.core.errors import StoreError
from rlbench.core.stats.metrics import wilson
from rlbench.report.boards.scores import ModelRow, Score, Table, choose_common, interval
from rlbench.store.columns import Column, Mean, reading_order
from rlbench.store.flags import unpack
from rlbench.store.perturbations import from_columns, to_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPARABLE = ("modality", "suite", "suite_version", "task", "data", "seed", "n")  # cells of one table share these
ROW = ("model", "checkpoint", "backbone", "anchors", "prompts")  # cells of one row share these, too
SOURCES = 10  # with fewer sources than this, a bootstrap gives intervals that are too narrow, and a note says so


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """The records as a data frame with one row per cell, in reading order.

    Columns are the fields of the record and of its provenance; the perturbation as text and by field (see
    `store.perturbations.to_columns`); `accuracy` in [0, 1], NaN if the cell failed; `low` and `high`, its 95% interval.
    """
    cells: list[dict[str, object]] = []
    for record in sorted(records, key=reading_order):
        own = {one.name: getattr(record, one.name) for one in fields(Record) if one.name != "provenance"}
        scores = {"accuracy": float("nan"), "low": 0.0, "high": 1.0}
        if record.n_correct is not None:
            low, high = interval(record.n_correct, record.n, record.provenance, "clustered")
            scores = {"accuracy": record.n_correct / max(record.n, 1), "low": low, "high": high}
        about = {**to_columns(record.perturbation), "perturbation": str(record.perturbation)}
        cells.append({**record.provenance, **own, **about, **scores})
    return pd.DataFrame(cells)


Cell = Mapping[str, Any]  # a row of a frame with its `column`; None for values that are not known


def parts(cells: pd.DataFrame) -> Iterator[tuple[dict[str, object], tuple[str, ...], list[Cell]]]:
    """The comparable parts of a frame, in a fixed order.

    Yields:
        The values of COMPARABLE that the cells share; the names of those that differ from other parts of the suite;
        the cells, each with its `column`.
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
    """The cells of a part with their columns, which name the protocol if the part has several of a perturbation."""
    protocols: dict[str, set[object]] = {}
    for cell in cells:
        protocols.setdefault(cell["perturbation"], set()).add(cell["protocol"])
    return [cell | {"column": _column(cell, len(protocols[cell["perturbation"]]) > 1)} for cell in cells]


def _column(cell: Cell, several: bool) -> Column:
    return Column(from_columns(cell), str(cell["protocol"]) if several else "")


def models(part: Iterable[Cell]) -> Iterator[tuple[str, dict[str, str], list[Cell]]]:
    """The rows of a comparable part, in order.

    Yields:
        A name that no other row has; the values of ROW, "" if not known; the cells.
    """
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in part:
        found.setdefault(tuple("" if cell[name] is None else str(cell[name]) for name in ROW), []).append(cell)
    namesakes: dict[str, list[tuple[str, ...]]] = {}
    for place in found:
        namesakes.setdefault(place[0], []).append(place)
    for place in sorted(found):
        yield _make_unique(place, namesakes[place[0]]), dict(zip(ROW, place, strict=True)), found[place]


def _make_unique(own: tuple[str, ...], namesakes: Sequence[tuple[str, ...]]) -> str:
    """A row's model, with the hashes that distinguish it from other rows of that name.

    Args:
        own: the row's values of ROW.
        namesakes: those of all rows with its model's name.
    """
    apart = [k for k in range(1, len(ROW)) if len({one[k] for one in namesakes}) > 1]
    marks = [own[k][:8] if ROW[k] == "checkpoint" else f"{ROW[k]} {own[k][:8]}" for k in apart]
    return f"{own[0]} ({', '.join(marks)})" if marks else own[0]


def tables(cells: pd.DataFrame) -> list[Table]:
    """The comparable parts of a frame (see `frame`) as tables, in a fixed order.

    Raises:
        StoreError: a row has two records of one column, or two models have the same key and different results.
    """
    return [_table(facts, apart, part) for facts, apart, part in parts(cells)]


def _table(facts: dict[str, object], apart: tuple[str, ...], part: Sequence[Cell]) -> Table:
    scored = [(model, own, _scores(cells, model)) for model, own, cells in models(part)]
    groups = {severity: _choose_mean([scores.keys() for _, _, scores in scored], severity) for severity in range(1, 6)}
    rows, n = [], int(part[0]["n"])
    for model, own, scores in scored:
        for severity, members in groups.items():
            present = [scores.pop(member) for member in members if member in scores]
            if present:
                scores[Column(Mean(len(members), severity))] = _mean(present, len(members), n)
        rows.append(ModelRow(model, n, scores, **{name: own[name] for name in ROW[2:]}))
    columns = sorted({c for row in rows for c in row.scores}, key=lambda column: column.order)
    notes = (*_note_gaps(part), *_note_duplicates(part), *_note_last_search(part))
    table = Table(facts, tuple(columns), tuple(_warn_of_prompts(rows)), _describe_setup(part), apart, notes)
    return replace(table, rows=tuple(sorted(table.rows, key=lambda row: _order(row, table))))


def _choose_mean(columns: Sequence[Iterable[Column]], severity: int) -> tuple[Column, ...]:
    """The corruptions at a severity that are shown as one mean, two or more; the others keep their columns.

    Args:
        columns: by row, those that it has.
        severity: 1 to 5.
    """
    having = [
        {c for c in row if isinstance(c.of, Corrupted) and c.of.severity == severity and not c.protocol}
        for row in columns
    ]
    members = choose_common(having, sorted(set().union(*having)))
    return members if len(members) > 1 else ()


def _order(row: ModelRow, table: Table) -> tuple[Any, ...]:
    """Sorts rows: those on the scale by its mean, then by the mean of all columns that they share; others by name."""
    if not (table.scale and row.has_exact(table.scale)):
        return 1, 0.0, 0.0, row.model
    return 0, -row.mean(table.scale), -row.mean(table.shared), row.model


def _warn_of_prompts(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """The rows, with a warning for each one whose prompts are known and differ from the most common ones."""
    counts = Counter(row.prompts for row in rows if row.prompts).most_common()
    usual = counts[0][0] if len(counts) == 1 or (counts and counts[0][1] > counts[1][1]) else None
    odd = [bool(row.prompts) and len(counts) > 1 and row.prompts != usual for row in rows]
    return [replace(r, warning=f"other prompts: {r.prompts[:8]}") if o else r for r, o in zip(rows, odd, strict=True)]


def _note_gaps(part: Sequence[Cell]) -> Iterator[str]:
    """Notes on classes without examples, and on too few sources."""
    n = part[0]["n"]
    for seen, classes in sorted({(int(cell.get("seen") or 0), int(cell.get("classes") or 0)) for cell in part}):
        if 0 < seen < classes:
            yield f"the {n} examples are of {seen} of the {classes} classes: the others are not tested"
    for sources in sorted({int(cell.get("sources") or SOURCES) for cell in part}):
        if sources < SOURCES:
            few = "one source" if sources == 1 else f"{sources} sources"
            yield f"the {n} examples are of {few} (recordings, speakers): too few for sure intervals and tests"


def _note_last_search(part: Sequence[Cell]) -> Iterator[str]:
    """A note for each model whose attacks searched in low precision: what the last search in float32 broke."""
    for model in sorted({str(cell["model"]) for cell in part}):
        own = [cell for cell in part if cell["model"] == model and cell.get("searched_again") is not None]
        again, broke = (sum(int(cell[name]) for cell in own) for name in ("searched_again", "broke_again"))
        if own:
            low = ", ".join(sorted({str(cell["precision"]) for cell in own}))
            yield f"{model}: attacks search in {low}; a last search in float32 broke {broke} of their {again} survivors"


def _note_duplicates(part: Sequence[Cell]) -> list[str]:
    """Notes on models whose cells have the same keys, so that they are one encoder.

    Raises:
        StoreError: their results differ.
    """
    first: dict[str, Cell] = {}
    found = set()
    for cell in part:
        other = first.setdefault(cell["key"], cell)
        if cell["model"] != other["model"]:
            names = " and ".join(sorted((str(cell["model"]), str(other["model"]))))
            found.add(f"{names} are one model under two names: their cells have the same keys")
            if any(cell[name] != other[name] for name in ("n_correct", "error", "flags")):
                raise StoreError(
                    f"{names} have one key but different results ({cell['suite']}, {cell['perturbation']}): the key "
                    "does not depend on their weights; state sha256 or identity() in the encoder and run them again, "
                    "or leave one out"
                )
    return sorted(found)


def _scores(cells: Iterable[Cell], model: str) -> dict[Column, Score]:
    """The scores of a row by column. Raises: StoreError: a column has two records."""
    scores: dict[Column, Score] = {}
    for cell in cells:
        if cell["column"] in scores:
            raise StoreError(
                f"{model}, {cell['suite']}, {cell['perturbation']}: two records with the same n, checkpoint and "
                "protocol, perhaps of different devices or versions; render one store at a time"
            )
        error = cell["error"] or (None if cell["n_correct"] is not None else "no counts")
        share, low, high = 0.0 if error else float(cell["accuracy"]), float(cell["low"]), float(cell["high"])
        own = wilson(cell["n_correct"] or 0, cell["n"])
        scores[cell["column"]] = Score(
            share,
            low,
            high,
            error,
            hits=_unpack_flags(cell),
            deff=1.0 if error else ((high - low) / (own[1] - own[0])) ** 2,
            soundness=str(cell.get("soundness") or ""),
            bound=cell["column"].is_bound,
            keys=(cell["key"],),
            certified=_certified(cell),
        )
    return scores


def _certified(cell: Cell) -> Score | None:
    """The share of examples with a takeover certificate, of a cell that has it."""
    count, n = cell.get("certified"), cell["n"]
    return None if count is None else Score(count / n, *interval(count, n, cell, "certified"))


def _unpack_flags(cell: Cell) -> NDArray[Any] | None:
    """A cell's flags as (n,) int of 0 and 1; None without flags."""
    if not cell.get("flags"):
        return None
    return unpack(cell["flags"], cell["n"]).astype(np.int64)


def _mean(scores: Sequence[Score], wanted: int, n: int) -> Score:
    """The mean score of corruptions on the same examples, with Wilson's interval of a single cell.

    That interval is conservative, since the variance of a mean of shares is at most that of a single share.

    Args:
        scores: of the corruptions that were run.
        wanted: the number of corruptions of the mean; with fewer scores it is an error.
        n: the number of examples.
    """
    keys = tuple(key for score in scores for key in score.keys)
    errors = [score.error for score in scores if score.error]
    if len(scores) < wanted:
        errors.append(f"{len(scores)} of {wanted} corruptions were run")
    if errors:
        return Score(0.0, 0.0, 1.0, errors[0], keys=keys)
    share, deff = fmean(score.share for score in scores), max(score.deff for score in scores)
    known = [score.hits for score in scores if score.hits is not None]
    independent = max(1, round(n / deff))  # the effective sample size
    return Score(
        share,
        *wilson(share * independent, independent),
        hits=np.sum(known, axis=0) if len(known) == wanted else None,
        of=wanted,
        deff=deff,
        soundness=worst_badge(score.soundness for score in scores),
        keys=keys,
    )


def _describe_setup(part: Sequence[Cell]) -> str:
    """The hash of all protocols of a part, its versions and devices: `protocol 12ab · rlbench 1.0 · ... on cpu`."""
    protocols = sorted({f"{cell['perturbation']} {cell['protocol']}" for cell in part})
    facts = [("protocol", sha256("\n".join(protocols).encode()).hexdigest()[:16])]
    for label, name in (("rlbench", "rlbench"), ("torch", "torch"), ("on", "device")):
        facts.append((label, ", ".join(sorted({str(cell[name]) for cell in part if cell.get(name) is not None}))))
    return " · ".join(f"{label} {text}" for label, text in facts if text)
