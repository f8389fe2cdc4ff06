"""Averages over modalities, with the intervals of a stratified bootstrap.

All modalities have the same weight, and so have all tasks of one modality. The bootstrap resamples the examples of each
task separately, or whole sources (recordings, speakers) if they are known (Efron and Tibshirani, 1993, An Introduction
to the Bootstrap, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rlbench.core import Clean
from rlbench.core.badges import worst_badge
from rlbench.core.stats.metrics import bootstrap_means
from rlbench.report.boards.scores import Score, Table
from rlbench.report.boards.tables import COMPARABLE
from rlbench.store.columns import Column, Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sources = Mapping[str, Sequence[str]]  # by data hash of a task, the source of each example


@dataclass(frozen=True)
class Macro:
    """Means over the modalities of a family of suites.

    Attributes:
        family: the common name of the suites, with `*` for the part that differs.
        backbones: by model.
        suites: that the means are taken over.
        modalities: that have the same weight.
        rows: by model and measure (see MEASURES), the mean accuracy; none if a cell is missing or failed.
        minus: by model and measure, the difference to the baseline, in [-1, 1]; none for bounds.
        partial: models that lack a suite or have none of the measures.
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
        """The backbone of all models; "" if they differ."""
        found = set(self.backbones.values())
        return found.pop() if len(found) == 1 else ""


@dataclass
class _Stratum:
    """The examples of one task.

    Attributes:
        modality: of the task.
        data: hash of the task's data.
        values: by measure and model, for each cell (n,) in [0, 1], the share of correct answers per example, or None.
        deff: the largest design effect of its cells (see `Score`).
        badges: soundness badges, by model.
    """

    modality: str
    data: str
    values: dict[str, dict[str, list[NDArray[Any] | None]]] = field(default_factory=dict)
    deff: float = 1.0
    badges: dict[str, list[str]] = field(default_factory=dict)

    def of(self, measure: str, model: str) -> NDArray[Any]:
        """(n,) in [0, 1]: a model's share of correct answers per example, over the cells of a measure."""
        mean: NDArray[Any] = np.mean([one for one in self.values[measure][model] if one is not None], axis=0)
        return mean

    def has(self, measure: str, model: str) -> bool:
        """Whether the model has flags in every cell of the measure."""
        cells = self.values.get(measure, {}).get(model, [])
        return bool(cells) and all(one is not None for one in cells)


BOUND = "robust, descending"
MEASURES = ("clean", "robust", BOUND, "corrupted")


def _measure_of(column: Column) -> str | None:
    """The measure that a column belongs to; None for single attacks, single corruptions and other protocols."""
    if isinstance(column.of, Clean):
        return None if column.protocol else "clean"
    if column.is_worst:
        return BOUND if column.is_bound else "robust"
    return "corrupted" if isinstance(column.of, Mean) else None


def macros(tables: Sequence[Table], *, baseline: str | None = None, sources: Sources | None = None) -> list[Macro]:
    """Macro averages of every family of suites (see `families`), for the models that have all its suites.

    Intervals are those of a bootstrap stratified by task. If records say that examples share sources, but the sources
    are not in `sources`, the deviations are widened by the design effect. If a suite has several tables, with other
    data, seeds or numbers of examples, the one with the most examples is used.

    Args:
        tables: of any suites; those of several sensors are left out.
        baseline: that differences are to, a model or a method; None for no differences.
        sources: of the examples, by data hash.
    """
    members = families(choose_largest([table for table in tables if not table.has_sensors])).items()
    return [one for family, those in members if (one := _macro(family, those, baseline, sources))]


def choose_largest(tables: Sequence[Table]) -> list[Table]:
    """From tables that differ only in data, seed or number of examples, the one with the most examples."""
    largest: dict[tuple[object, ...], Table] = {}
    for table in tables:
        place = tuple(table.facts[name] for name in COMPARABLE if name not in ("data", "seed", "n"))
        if place not in largest or sum(row.n for row in table.rows) > sum(row.n for row in largest[place].rows):
            largest[place] = table
    return list(largest.values())


def families(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """Tables of two or more modalities whose suites have similar names, by the common part of the name.

    First come suites whose names differ only in the modality, such as `claim-*-unseen`; the remaining ones are grouped
    by what comes before the modality, such as `pack-*`. Tables that fit nowhere are left out.
    """
    found: dict[str, list[Table]] = {}
    for table in tables:
        found.setdefault(_family(table)[0], []).append(table)
    single = [table for those in found.values() if not _has_several_modalities(those) for table in those]
    found = {name: those for name, those in found.items() if _has_several_modalities(those)}
    rest: dict[str, list[Table]] = {}
    for table in single:
        rest.setdefault(_family(table)[1], []).append(table)
    return found | {name: those for name, those in rest.items() if _has_several_modalities(those)}


def _family(table: Table) -> tuple[str, str]:
    """`pack-*-digits` and `pack-*` for pack-audio-digits; twice the name itself if it does not contain the modality."""
    suite, modality = str(table.facts["suite"]), str(table.facts["modality"])
    before, found, after = suite.partition(modality)
    return (f"{before}*{after}", f"{before}*") if found else (suite, suite)


def _has_several_modalities(tables: Sequence[Table]) -> bool:
    """Whether the tables have two or more modalities."""
    return len({table.facts["modality"] for table in tables}) > 1


def _macro(family: str, tables: Sequence[Table], baseline: str | None, sources: Sources | None) -> Macro | None:
    """The averages of one family; None if no model has one. Arguments as for `macros`."""
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
            badge = worst_badge(badge for stratum in having for badge in stratum.badges.get(model, ()))
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
    """The strata of some models, in a fixed order; tables of the same data are one stratum."""
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
    """(n,) in [0, 1]: the share of correct answers per example; None for a cell that is missing or has no flags."""
    if score is None or score.error is not None or score.hits is None:
        return None
    return np.asarray(score.hits / score.of)


def _average(values: Sequence[NDArray[Any]], strata: Sequence[_Stratum], sources: Sources | None) -> Score:
    """The weighted mean over strata, with the 95% percentile interval of the bootstrap.

    Args:
        values: by stratum, (n,) values of its examples.
        strata: as long.
        sources: of the examples, by data hash.
    """
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
