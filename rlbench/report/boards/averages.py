"""Averages over modalities, with the intervals of a stratified bootstrap.

Each modality has the same weight, and each task within its modality. The bootstrap draws examples task by task, or
whole sources (recordings, speakers) where they are known (Efron and Tibshirani, 1993, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rlbench.core import Clean
from rlbench.core.stats.metrics import bootstrap_means
from rlbench.report.boards.scores import Score, Table, gravest
from rlbench.report.boards.tables import COMPARABLE
from rlbench.store.columns import Column, Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sources = Mapping[str, Sequence[str]]  # of a task's examples, in order, by its data hash


@dataclass(frozen=True)
class Macro:
    """Means over modalities of a family of suites, and who has all of them.

    Attributes:
        family: the suites' name, with `*` for what differs. suites: that they are taken over.
        backbones: by model.
        modalities: whose means have the same weight.
        rows: by model, by measure of MEASURES the share with its interval; none where a cell is missing or failed.
        minus: by model and measure the difference to the baseline and its interval, in [-1, 1]; none of bounds.
        partial: models that lack one of the suites, or have none of the measures.
    """

    family: str
    backbones: Mapping[str, str]
    suites: tuple[str, ...]
    modalities: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Score]]
    minus: Mapping[str, Mapping[str, Score]]
    partial: tuple[str, ...] = ()

    @property
    def backbone(self) -> str:
        """That of all models, or "" where they differ."""
        found = set(self.backbones.values())
        return found.pop() if len(found) == 1 else ""


@dataclass
class _Stratum:
    """The examples of one task: by measure and model the share of correct answers per example, and the effects."""

    modality: str
    data: str
    values: dict[str, dict[str, list[NDArray[Any] | None]]] = field(default_factory=dict)
    deff: float = 1.0
    badges: dict[str, list[str]] = field(default_factory=dict)

    def of(self, measure: str, model: str) -> NDArray[Any]:
        """(n,) in [0, 1]."""
        mean: NDArray[Any] = np.mean([one for one in self.values[measure][model] if one is not None], axis=0)
        return mean

    def has(self, measure: str, model: str) -> bool:
        """It has counts in every cell of the measure."""
        kept = self.values.get(measure, {}).get(model, [])
        return bool(kept) and all(one is not None for one in kept)


BOUND = "robust, descending"
MEASURES = ("clean", "robust", BOUND, "corrupted")


def _measure_of(column: Column) -> str | None:
    if isinstance(column.of, Clean):
        return None if column.protocol else "clean"
    if column.is_worst:
        return BOUND if column.is_bound else "robust"
    return "corrupted" if isinstance(column.of, Mean) else None


def macros(tables: Sequence[Table], *, baseline: str | None = None, sources: Sources | None = None) -> list[Macro]:
    """For every family of suites of two modalities or more: the mean over them of each model that has all of them.

    The interval is a bootstrap's over examples, stratified by task, over whole sources where they are known
    (`sources`); where a record only says that examples share some, the deviations are widened by its design effect.
    Of a suite that has several tables (other data, seeds or numbers of examples) the one with most examples counts.
    """
    members = families(keep_largest(tables)).items()
    return [one for family, those in members if (one := _macro(family, those, baseline, sources))]


def keep_largest(tables: Sequence[Table]) -> list[Table]:
    """Of tables that differ in data, seed or number of examples alone, the one whose rows have most examples."""
    kept: dict[tuple[object, ...], Table] = {}
    for table in tables:
        place = tuple(table.facts[name] for name in COMPARABLE if name not in ("data", "seed", "n"))
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


def _macro(family: str, tables: Sequence[Table], baseline: str | None, sources: Sources | None) -> Macro | None:
    backbones = {row.model: row.backbone for table in tables for row in table.rows}
    whole = {model for model in backbones if all(any(row.model == model for row in table.rows) for table in tables)}
    strata = _strata(tables, whole)
    modalities = sorted({stratum.modality for stratum in strata})
    base = next((m for m in sorted(whole) if baseline in (m, m.partition(":")[0])), None)
    rows: dict[str, dict[str, Score]] = {}
    minus: dict[str, dict[str, Score]] = {}
    for measure in MEASURES:
        having = [stratum for stratum in strata if measure in stratum.values]
        if {stratum.modality for stratum in having} != set(modalities):
            continue
        counted = [model for model in sorted(whole) if all(stratum.has(measure, model) for stratum in having)]
        for model in counted:
            own = [stratum.of(measure, model) for stratum in having]
            badge = gravest(badge for stratum in having for badge in stratum.badges.get(model, ()))
            score = replace(_average(own, having, sources), bound=measure == BOUND, soundness=badge)
            rows.setdefault(model, {})[measure] = score
            if base in counted and base is not None and model != base and measure != BOUND:
                pairs = [a - stratum.of(measure, base) for a, stratum in zip(own, having, strict=True)]
                minus.setdefault(model, {})[measure] = _average(pairs, having, sources)
    suites = tuple(sorted({str(table.facts["suite"]) for table in tables}))
    key = "robust" if any("robust" in row for row in rows.values()) else "corrupted"
    order = sorted(rows, key=lambda m: (-rows[m][key].share if key in rows[m] else 0.0, m))
    partial = tuple(sorted(backbones.keys() - rows.keys()))
    own_backbones = {model: backbones[model] for model in order}
    means = {model: rows[model] for model in order}
    return Macro(family, own_backbones, suites, tuple(modalities), means, minus, partial) if rows else None


def _strata(tables: Sequence[Table], models: set[str]) -> list[_Stratum]:
    """Tables of the same data are one stratum; None stands for a cell that is missing or failed."""
    found: dict[tuple[str, str], _Stratum] = {}
    for table in tables:
        place = str(table.facts["modality"]), str(table.facts["data"])
        stratum = found.setdefault(place, _Stratum(*place))
        for row in (row for row in table.rows if row.model in models):
            for column in table.columns:
                if measure := _measure_of(column):
                    score = row.scores.get(column)
                    stratum.values.setdefault(measure, {}).setdefault(row.model, []).append(_values(score))
                    stratum.deff = max(stratum.deff, score.deff if score else 1.0)
                    stratum.badges.setdefault(row.model, []).append(score.soundness if score else "")
    return [found[place] for place in sorted(found)]


def _values(score: Score | None) -> NDArray[Any] | None:
    if score is None or score.error is not None or score.hits is None:
        return None
    return np.asarray(score.hits / score.of)


def _average(values: Sequence[NDArray[Any]], strata: Sequence[_Stratum], sources: Sources | None) -> Score:
    """The weighted mean over strata of their means, with the bootstrap's 95% percentile interval."""
    tasks = {s.modality: sum(other.modality == s.modality for other in strata) for s in strata}
    share, draws = 0.0, np.zeros(1)
    for k, (value, stratum) in enumerate(zip(values, strata, strict=True)):
        weight = 1 / len(tasks) / tasks[stratum.modality]
        shared = (sources or {}).get(stratum.data)
        mean = float(value.mean())
        drawn = bootstrap_means(value.tolist(), shared[: len(value)] if shared else None, seed=k)
        share += weight * mean
        draws = draws + weight * (drawn - mean) * (1.0 if shared else sqrt(stratum.deff))
    low, high = np.quantile(share + draws, [0.025, 0.975])
    return Score(share, float(low), float(high))
