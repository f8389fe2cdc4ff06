"""The data of figures, for the page and for papers: robustness curves, clean against robust accuracy, heat maps.

Of several sensors also the accuracy by the number of attacked ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar, get_args

import pandas as pd

from rlbench.core import Adversarial, Clean, Norm, Worst
from rlbench.core.threat import text_of
from rlbench.report.boards import corruptions
from rlbench.report.boards.scores import Score, Table, describe_distinction
from rlbench.report.boards.sensors import sensor_tables
from rlbench.store.columns import Column, Mean, describe_attack

Figure = TypeVar("Figure")

CLEAN = Column(Clean())
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#6B6B6B")
"""Colours for colour-blind readers (Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/), and two more."""


@dataclass(frozen=True)
class Curves:
    """Accuracy against eps, or against the number of attacked sensors.

    Attributes:
        title: of the table.
        what: "worst" or an attack.
        norm: "linf", with eps in 1/255, "l2" or "l0"; "sensors" for the number of attacked sensors.
        models: by model, points (eps, score) in order of eps, the clean accuracy at 0 first.
        names: of places on the x axis, if they have names.
    """

    title: str
    what: str
    norm: str
    models: Mapping[str, Sequence[tuple[float, Score]]]
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The label of the x axis."""
        units = {"linf": "eps, Linf, in 1/255", "l2": "eps, L2", "l0": "pixels or bins, L0"}
        return units.get(self.norm, "attacked sensors")


@dataclass(frozen=True)
class Scatter:
    """Clean accuracy against that of another column.

    Attributes:
        title: of the table.
        column: the other column.
        models: by model, its clean score and that of the column.
    """

    title: str
    column: str
    models: Mapping[str, tuple[Score, Score]]


@dataclass(frozen=True)
class Heat:
    """Accuracy under corruptions.

    Attributes:
        title: of the table.
        facts: of the table, see `tables.COMPARABLE`.
        models: by model and corruption, the accuracies at severity 1 to 5, in [0, 1].
    """

    title: str
    facts: Mapping[str, object]
    models: Mapping[str, Mapping[str, Sequence[float]]]


def curves(table: Table) -> list[Curves]:
    """One for each attack and norm of a table, the worst cases first.

    Columns of bounds, and of perturbations with several protocols, are left out.
    """
    found: dict[tuple[bool, int, str, str], list[tuple[Fraction, Column]]] = {}
    for column in table.columns:
        one = column.of
        if (
            isinstance(one, Adversarial | Worst)
            and text_of(one) is None
            and not column.is_bound
            and not column.protocol
        ):
            place = not column.is_worst, get_args(Norm).index(one.threat.norm), describe_attack(one), one.threat.norm
            found.setdefault(place, []).append((one.threat.eps, column))
    return [_curves(table, what, norm, sorted(columns)) for (_, _, what, norm), columns in sorted(found.items())]


def _curves(table: Table, what: str, norm: str, columns: Sequence[tuple[Fraction, Column]]) -> Curves:
    ladder = [(Fraction(0), CLEAN), *columns]
    scale = 255 if norm == "linf" else 1
    models = {}
    for row in table.rows:
        name, scores = row.marked_name, row.scores
        points = [(float(eps * scale), scores[column]) for eps, column in ladder if _is_counted(scores.get(column))]
        if len(points) > 1:
            models[name] = points
    return Curves(table.title, what, norm, models)


def attacked_sensors(table: Table) -> list[Curves]:
    """For each attack on any 1 or all sensors of a table, the accuracy by the number of attacked sensors."""
    found: dict[str, dict[str, list[tuple[float, Score]]]] = {}
    for one in sensor_tables([table]):
        for attack, scores in one.numbers.items():
            if len(scores) > 1:
                found.setdefault(attack, {})[one.model] = [(float(j), score) for j, score in scores.items()]
    most = str(table.facts["modality"]).count("+") + 1
    names = {0: "none", **{j: f"any {j}" for j in range(1, most)}, most: f"all {most}"}
    return [Curves(table.title, attack, "sensors", models, names) for attack, models in found.items()]


def _is_counted(score: Score | None) -> bool:
    """Whether a cell was run and did not fail."""
    return score is not None and score.error is None


def scatters(table: Table) -> list[Scatter]:
    """One for each worst case and each mean of corruptions of a table; none for fewer than two models."""
    columns = [c for c in table.columns if (c.is_worst or isinstance(c.of, Mean)) and not c.is_bound]
    found = []
    for column in columns if CLEAN in table.columns else ():
        models = {
            row.marked_name: (row.scores[CLEAN], row.scores[column])
            for row in table.rows
            if row.has_exact((CLEAN, column))
        }
        if len(models) > 1:
            found.append(Scatter(table.title, column, models))
    return found


def heats(cells: pd.DataFrame) -> list[Heat]:
    """One for each comparable part of a frame with corruptions at all five severities (see `corruptions.collect`)."""
    found = []
    for facts, apart, models, _ in corruptions.collect(cells):
        title = f"{facts['suite']} v{facts['suite_version']}: {facts['modality']}{describe_distinction(facts, apart)}"
        found.append(Heat(title, facts, {m.model: m.accuracy for m in models}))
    return found


def headline(figures: Sequence[Figure]) -> Figure:
    """The figure to show first: the middle one, such as the second of three eps."""
    return figures[(len(figures) - 1) // 2]


def colours(models: Iterable[str]) -> dict[str, str]:
    """By model, its colour in every figure."""
    return {model: PALETTE[k % len(PALETTE)] for k, model in enumerate(sorted(set(models)))}
