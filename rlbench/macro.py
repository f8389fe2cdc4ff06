"""Averages over modalities, with the intervals of a stratified bootstrap.

Each modality has the same weight, and each task within its modality. The bootstrap draws examples task by task, or
whole sources (recordings, speakers) where they are known (Efron and Tibshirani, 1993, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rlbench.metrics import resampled
from rlbench.tables import COMPARABLE, Row, Score, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sources = Mapping[str, Sequence[str]]  # of a task's examples, in order, by its data hash


@dataclass(frozen=True)
class Macro:
    """Means over modalities of a family of suites with one backbone, and who has all of them.

    Attributes:
        family: the suites' name, with `*` for what differs. suites: that they are taken over.
        modalities: whose means have the same weight.
        rows: by model, by measure ("clean", "robust", "corrupted") the share with its interval.
        minus: by model and measure the difference to the baseline and its interval, in [-1, 1].
        partial: models that lack one of the suites.
    """

    family: str
    backbone: str
    suites: tuple[str, ...]
    modalities: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Score]]
    minus: Mapping[str, Mapping[str, Score]]
    partial: tuple[str, ...] = ()


@dataclass
class _Stratum:
    """The examples of one task: by measure and model the share of correct answers per example, and the effects."""

    modality: str
    data: str
    values: dict[str, dict[str, list[NDArray[Any]]]] = field(default_factory=dict)
    deff: float = 1.0

    def of(self, measure: str, model: str) -> NDArray[Any]:
        """(n,) in [0, 1]."""
        kept = self.values[measure][model]
        n = min(map(len, kept))
        mean: NDArray[Any] = np.mean([one[:n] for one in kept], axis=0)
        return mean


MEASURES = ("clean", "robust", "corrupted")


def _measured(column: str) -> str | None:
    if column == "clean":
        return "clean"
    return "robust" if column.startswith("worst ") else "corrupted" if " corruptions at " in column else None


def macros(tables: Sequence[Table], *, baseline: str | None = None, sources: Sources | None = None) -> list[Macro]:
    """For every family of suites of two modalities or more: the mean over them of each model that has all of them.

    The interval is a bootstrap's over examples, stratified by task, over whole sources where they are known
    (`sources`); where a record only says that examples share some, the deviations are widened by its design effect.
    Of a suite that has several tables (other data or seeds) the one with most examples counts.
    """
    found = []
    for backbone in dict.fromkeys(str(table.facts["backbone"]) for table in tables):
        own = [table for table in _largest(tables) if table.facts["backbone"] == backbone]
        for family, members in families(own).items():
            if one := _macro(family, backbone, members, baseline, sources):
                found.append(one)
    return found


def _largest(tables: Sequence[Table]) -> list[Table]:
    """Of tables that differ in data, anchors or seed alone, the one whose rows have most examples."""
    kept: dict[tuple[object, ...], Table] = {}
    for table in tables:
        place = tuple(table.facts[name] for name in COMPARABLE if name not in ("data", "anchors", "seed"))
        if place not in kept or sum(row.n for row in table.rows) > sum(row.n for row in kept[place].rows):
            kept[place] = table
    return list(kept.values())


def families(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """Tables whose suites differ in the modality's name alone, `claim-*-unseen`; of the rest those with one beginning.

    Each has two modalities or more.
    """
    found: dict[str, list[Table]] = {}
    for table in tables:
        found.setdefault(_family(table)[0], []).append(table)
    single = [table for those in found.values() if not _several(those) for table in those]
    found = {name: those for name, those in found.items() if _several(those)}
    rest: dict[str, list[Table]] = {}
    for table in single:
        rest.setdefault(_family(table)[1], []).append(table)
    return found | {name: those for name, those in rest.items() if _several(those)}


def _family(table: Table) -> tuple[str, str]:
    """`pack-*-digits` and `pack-*` of pack-audio-digits; the name itself where it has no modality."""
    suite, modality = str(table.facts["suite"]), str(table.facts["modality"])
    before, found, after = suite.partition(modality)
    return (f"{before}*{after}", f"{before}*") if found else (suite, suite)


def _several(tables: Sequence[Table]) -> bool:
    return len({table.facts["modality"] for table in tables}) > 1


def _macro(
    family: str, backbone: str, tables: Sequence[Table], baseline: str | None, sources: Sources | None
) -> Macro | None:
    models = {row.model for table in tables for row in table.rows}
    whole = {model for model in models if all(any(row.model == model for row in table.rows) for table in tables)}
    strata = _strata(tables, whole)
    modalities = sorted({stratum.modality for stratum in strata})
    base = next((m for m in sorted(whole) if baseline in (m, m.partition(":")[0])), None)
    rows: dict[str, dict[str, Score]] = {}
    minus: dict[str, dict[str, Score]] = {}
    for measure in MEASURES:
        having = [stratum for stratum in strata if measure in stratum.values]
        if {stratum.modality for stratum in having} != set(modalities):
            continue
        for model in sorted(whole):
            if all(model in stratum.values[measure] for stratum in having):
                own = [stratum.of(measure, model) for stratum in having]
                rows.setdefault(model, {})[measure] = _averaged(own, having, sources)
                if base is not None and model != base:
                    pairs = [a - stratum.of(measure, base) for a, stratum in zip(own, having, strict=True)]
                    minus.setdefault(model, {})[measure] = _averaged(pairs, having, sources)
    suites = tuple(sorted({str(table.facts["suite"]) for table in tables}))
    key = "robust" if any("robust" in row for row in rows.values()) else "corrupted"
    order = sorted(rows, key=lambda m: (-rows[m][key].share if key in rows[m] else 0.0, m))
    partial = tuple(sorted(models - whole))
    return (
        Macro(family, backbone, suites, tuple(modalities), {m: rows[m] for m in order}, minus, partial)
        if rows
        else None
    )


def _strata(tables: Sequence[Table], models: set[str]) -> list[_Stratum]:
    """Tables of the same data are one stratum. A cell that failed has no correct example."""
    found: dict[tuple[str, str], _Stratum] = {}
    for table in tables:
        place = str(table.facts["modality"]), str(table.facts["data"])
        stratum = found.setdefault(place, _Stratum(*place))
        for model in models:
            row = max((row for row in table.rows if row.model == model), key=lambda row: row.n)
            for column in table.columns:
                measure, score = _measured(column), row.scores.get(column)
                if measure and (values := _values(row, score)) is not None:
                    stratum.values.setdefault(measure, {}).setdefault(model, []).append(values)
                    stratum.deff = max(stratum.deff, score.deff if score else 1.0)
    return [found[place] for place in sorted(found)]


def _values(row: Row, score: Score | None) -> NDArray[Any] | None:
    if score is None or score.error is not None:
        return np.zeros(row.n)
    return None if score.hits is None else score.hits / score.of


def _averaged(values: Sequence[NDArray[Any]], strata: Sequence[_Stratum], sources: Sources | None) -> Score:
    """The weighted mean over strata of their means, with the bootstrap's 95% percentile interval."""
    tasks = {s.modality: sum(other.modality == s.modality for other in strata) for s in strata}
    share, draws = 0.0, np.zeros(1)
    for k, (value, stratum) in enumerate(zip(values, strata, strict=True)):
        weight = 1 / len(tasks) / tasks[stratum.modality]
        shared = (sources or {}).get(stratum.data)
        mean = float(value.mean())
        drawn = resampled(value.tolist(), shared[: len(value)] if shared else None, seed=k)
        share += weight * mean
        draws = draws + weight * (drawn - mean) * (1.0 if shared else sqrt(stratum.deff))
    low, high = np.quantile(share + draws, [0.025, 0.975])
    return Score(share, float(low), float(high))
