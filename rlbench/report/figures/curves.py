"""What the figures show, for the page and for papers alike: robustness curves, clean against robust, heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pandas as pd

from rlbench.core import Adversarial, Clean, Worst
from rlbench.report.boards import corruptions
from rlbench.report.boards.scores import Score, Table, describe_distinction
from rlbench.store.columns import Column, Mean, describe_attack

CLEAN = Column(Clean())
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#6B6B6B")
"""Colours that colour-blind people tell apart (Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/), and two more."""


@dataclass(frozen=True)
class Curves:
    """Accuracy against eps: by model points (eps, score), from the clean accuracy at 0 on.

    Attributes:
        what: "worst" or an attack. norm: "linf" (its eps in 1/255) or "l2".
    """

    title: str
    what: str
    norm: str
    models: Mapping[str, Sequence[tuple[float, Score]]]

    @property
    def unit(self) -> str:
        """The label of the axis of eps."""
        return "eps, Linf, in 1/255" if self.norm == "linf" else "eps, L2"


@dataclass(frozen=True)
class Scatter:
    """Clean accuracy against that of another column, by model."""

    title: str
    column: str
    models: Mapping[str, tuple[Score, Score]]


@dataclass(frozen=True)
class Heat:
    """Accuracy under corruptions: by model and corruption that at severity 1 to 5, in [0, 1].

    `facts` are those of the table (see `tables.COMPARABLE`).
    """

    title: str
    facts: Mapping[str, object]
    models: Mapping[str, Mapping[str, Sequence[float]]]


def curves(table: Table) -> list[Curves]:
    """One for each norm and attack of the table, the worst case first; bounds and several protocols are left out."""
    found: dict[tuple[bool, bool, str, str], list[tuple[Fraction, Column]]] = {}
    for column in table.columns:
        one = column.of
        if isinstance(one, Adversarial | Worst) and not column.is_bound and not column.protocol:
            place = not column.is_worst, one.threat.norm == "l2", describe_attack(one), one.threat.norm
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


def _is_counted(score: Score | None) -> bool:
    return score is not None and score.error is None


def scatters(table: Table) -> list[Scatter]:
    """One for each worst case and mean of corruptions; a table of one model has none."""
    columns = [c for c in table.columns if (c.is_worst or isinstance(c.of, Mean)) and not c.is_bound]
    found = []
    for column in columns if CLEAN in table.columns else ():
        models = {
            row.marked_name: (row.scores[CLEAN], row.scores[column]) for row in table.rows if row.whole((CLEAN, column))
        }
        if len(models) > 1:
            found.append(Scatter(table.title, column, models))
    return found


def heats(cells: pd.DataFrame) -> list[Heat]:
    """One for each comparable part with corruptions at all five severities (see `natural.collect`)."""
    found = []
    for facts, apart, models, _ in corruptions.collect(cells):
        title = f"{facts['suite']} v{facts['suite_version']}: {facts['modality']}{describe_distinction(facts, apart)}"
        found.append(Heat(title, facts, {m.model: m.accuracy for m in models}))
    return found


def headline(of: Sequence[Any]) -> Any:
    """The one to show first: in the middle, such as of three eps the second."""
    return of[(len(of) - 1) // 2]


def colours(models: Iterable[str]) -> dict[str, str]:
    """Each model's colour, the same in every figure."""
    return {model: PALETTE[k % len(PALETTE)] for k, model in enumerate(sorted(set(models)))}
