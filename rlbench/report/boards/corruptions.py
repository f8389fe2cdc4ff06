"""Natural robustness as markdown, from records of corruptions at all five severities."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlbench.core import Clean, Corrupted
from rlbench.core.badges import worst_badge
from rlbench.core.markdown import grid
from rlbench.core.stats.metrics import format_p, mean_corruption_error, relative_accuracy, wilson
from rlbench.core.stats.severity_trend import ALPHA, Fall, Flags, compare_means, measure_falls
from rlbench.report.boards.scores import Score, choose_common, describe_distinction, mark_name
from rlbench.report.boards.tables import Cell, models, parts
from rlbench.store.columns import Column
from rlbench.store.flags import unpack

BASELINE = "languagebind"
READING = (
    "`mean` is over all corruptions and severities, with the cautious interval of n examples; `relative` is the mean "
    "over the clean accuracy; `mCE` (Hendrycks and Dietterich, 2019) the errors over those of {baseline}, summed over "
    "severities, then averaged over corruptions: lower is better, 100 is {baseline}. `s` is the mean at severity s. "
    "Where the 15 of ImageNet-C are among them, the first table takes those alone. The second table has each "
    "corruption's mean over its severities. p-values are those of exact paired randomisation tests over examples, "
    "adjusted by Holm over the models, or the corruptions, of a suite. Accuracy *falls with severity* where its "
    "least-squares line over clean and severities 1 to 5 goes down with p below 0.05, and *at every step* where each "
    "of the five is below the one before."
)
HEADLINE = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


@dataclass(frozen=True)
class CorruptionScores:
    """A model under corruptions.

    Attributes:
        model: its name, with its badge if that is doubtful.
        n: the number of examples.
        clean: accuracy without a corruption, in [0, 1].
        accuracy: by corruption, the accuracies at severity 1 to 5, in [0, 1].
        classes: the number of classes of the task; 0 if not known.
        correct: by column, (n,) bool; empty if not known, or if examples share sources, so that they can't be tested.
    """

    model: str
    n: int
    clean: float
    accuracy: Mapping[str, tuple[float, ...]]
    classes: int = 0
    correct: Mapping[str, Flags] = field(default_factory=dict, repr=False, compare=False)

    @property
    def every(self) -> list[float]:
        """The accuracies under all corruptions and severities."""
        return [a for row in self.accuracy.values() for a in row]

    @property
    def mean(self) -> float:
        """The mean accuracy over all corruptions and severities."""
        return fmean(self.every)

    @property
    def testable(self) -> bool:
        """Whether the trend over severities can be tested."""
        return bool(self.correct and self.classes)

    def of(self, names: Collection[str]) -> CorruptionScores:
        """The same model with only these corruptions."""
        return replace(self, accuracy={name: row for name, row in self.accuracy.items() if name in names})

    def at(self, severity: int) -> float:
        """The mean accuracy over corruptions at one severity, 1 to 5."""
        return fmean(row[severity - 1] for row in self.accuracy.values())

    def hits(self) -> np.ndarray:
        """(n,) int: the number of corruptions and severities under which each example is correct."""
        counts: np.ndarray = np.sum(
            [self.correct[f"{name} {s}"] for name in self.accuracy for s in range(1, 6)], axis=0
        )
        return counts

    def mce(self, baseline: CorruptionScores | None) -> float | None:
        """The mean corruption error; None without a baseline, or if that has other corruptions."""
        if baseline is None or baseline.accuracy.keys() != self.accuracy.keys():
            return None
        names = list(self.accuracy)
        errors = [[[1 - a for a in one.accuracy[name]] for name in names] for one in (self, baseline)]
        return mean_corruption_error(*errors)


class CorruptionTable(NamedTuple):
    """Models under the same corruptions, on the same examples.

    Attributes:
        facts: the values of `tables.COMPARABLE`.
        apart: names of the facts in which it differs from other tables of its suite.
        models: best mean first.
        left: names of models without all of the corruptions.
    """

    facts: Mapping[str, object]
    apart: Sequence[str]
    models: list[CorruptionScores]
    left: list[str]


def collect(cells: pd.DataFrame) -> list[CorruptionTable]:
    """A table for each comparable part of a frame (see `tables.parts`) that has corruptions at all five severities.

    A table has the corruptions that most models have at all severities without a failure (see `scores.choose_common`),
    two or more; models that lack one of them are left out.
    """
    found = []
    for facts, apart, part in parts(cells):
        rows = [one for name, _, row in models(part) if (one := _read_row(name, row)) is not None]
        names = sorted({name for one in rows for name in one.accuracy})
        common = set(choose_common([set(one.accuracy) for one in rows], names))
        if len(common) > 1:
            whole = [one.of(common) for one in rows if common <= set(one.accuracy)]
            whole.sort(key=lambda one: (-one.mean, one.model))
            left = [one.model for one in rows if not common <= set(one.accuracy)]
            found.append(CorruptionTable(facts, apart, whole, left))
    return found


def _read_row(name: str, row: Sequence[Cell]) -> CorruptionScores | None:
    """A model's scores under the corruptions that it has at all severities; None without any or without a clean cell.

    Args:
        name: of the model.
        row: its cells.
    """
    counted: dict[Column, Cell] = {
        cell["column"]: cell for cell in row if cell["error"] is None and cell["n_correct"] is not None
    }
    table: dict[str, dict[int, float]] = {}
    for column, cell in counted.items():
        if isinstance(column.of, Corrupted) and not column.protocol:
            table.setdefault(column.of.call, {})[column.of.severity] = float(cell["accuracy"])
    whole = {k: tuple(v[s] for s in range(1, 6)) for k, v in sorted(table.items()) if len(v) == 5}
    clean = counted.get(Column(Clean()))
    if not whole or clean is None:
        return None
    badge = worst_badge(str(cell.get("soundness") or "") for cell in row)
    classes = int(clean.get("classes") or 0)
    return CorruptionScores(mark_name(name, badge), clean["n"], clean["accuracy"], whole, classes, _unpack(counted))


def _unpack(cells: Mapping[Column, Cell]) -> dict[str, Flags]:
    """By column, (n,) bool; empty if a cell has no flags or its examples share sources."""
    if any(cell.get("sources") or not cell["flags"] for cell in cells.values()):
        return {}
    return {column: unpack(cell["flags"], cell["n"]) for column, cell in cells.items()}


def sections(cells: pd.DataFrame, baseline: str = BASELINE) -> list[str]:
    """Markdown: what the numbers mean, the result over all suites, then for each suite its results and two tables.

    Args:
        cells: a frame of records, see `tables.frame`.
        baseline: the method that models are compared with, in every suite that has it.
    """
    found = collect(cells)
    texts = [text for table in found for text in _describe_table(table, baseline)]
    references = [one for table in found if (one := _find_baseline(table.models, baseline)) and one.testable]
    total = [_describe_all_falls([_falls_of(one) for one in references], baseline)] if len(references) > 1 else []
    return [READING.format(baseline=baseline), *total, *texts] if texts else []


def _describe_table(table: CorruptionTable, baseline: str) -> list[str]:
    """A heading, the comparison with the baseline, two tables, and how the baseline's accuracy falls."""
    facts, models = table.facts, table.models
    common = facts["modality"] == "image" and models[0].accuracy.keys() >= set(HEADLINE)
    names: Collection[str] = HEADLINE if common else models[0].accuracy
    reference = _find_baseline(models, baseline)
    suite = f"{facts['suite']} v{facts['suite_version']}"
    title = f"## {suite}: natural robustness, {len(names)} corruptions{describe_distinction(facts, table.apart)}"
    left = [f"Left out, since they lack or failed some of these: {', '.join(table.left)}."] if table.left else []
    rows = [_row(m.of(names), reference and reference.of(names)) for m in models]
    each = [{"corruption": k} | {m.model: _percent(fmean(m.accuracy[k])) for m in models} for k in models[0].accuracy]
    others = [m.of(names) for m in models if m is not reference]
    comparison = [_compare_means(reference.of(names), others)] if reference and others else []
    trend = [_describe_falls(reference)] if reference and reference.testable else []
    return [title, *left, *comparison, grid(rows), grid(each), *trend]


def _find_baseline(models: Sequence[CorruptionScores], baseline: str) -> CorruptionScores | None:
    return next((m for m in models if m.model.partition(":")[0] == baseline), None)


def _compare_means(reference: CorruptionScores, others: Sequence[CorruptionScores]) -> str:
    """A sentence on which models' mean accuracies are significantly above or below the reference's, and which not."""
    tested = [m for m in others if m.correct and reference.correct]
    ps = compare_means(reference.hits(), {m.model: m.hits() for m in tested}) if tested else {}
    groups: dict[str, list[str]] = {"above": [], "below": [], "not apart": []}
    for m in others:
        gain, p = m.mean - reference.mean, ps.get(m.model)
        group = "not apart" if p is None or p >= ALPHA else "above" if gain > 0 else "below"
        test = "not tested" if p is None else format_p(p, equation=True)
        groups[group].append(f"{m.model} ({100 * gain:+.1f}, {test})")
    text = "; ".join(f"{group}: {', '.join(names)}" for group, names in groups.items() if names)
    return f"Points of mean accuracy under corruption against {reference.model}: {text}."


def _falls_of(m: CorruptionScores) -> dict[str, Fall]:
    """By corruption, how the accuracy falls with severity."""
    rows = {name: [m.correct[f"{name} {s}"] for s in range(1, 6)] for name in m.accuracy}
    return measure_falls(m.correct["clean"], rows, m.classes)


def _describe_all_falls(suites: Sequence[Mapping[str, Fall]], baseline: str) -> str:
    """A sentence on all suites together; a corruption counts once per suite."""
    every = [fall for falls in suites for fall in falls.values()]
    down, steps, well = (sum(flags) for flags in zip(*((f.falls, f.steps, f.begins_well) for f in every), strict=True))
    return (
        f"All suites together: {baseline}'s accuracy falls with severity under {down} of {len(every)} corruptions "
        f"({100 * down / len(every):.0f} %), at every step under {steps}; severity 1 costs more than 0 and less than "
        f"60 % of what lies between clean and chance under {well}."
    )


def _describe_falls(m: CorruptionScores) -> str:
    """Sentences on whether accuracy falls with severity, and whether severity 1 costs neither nothing nor too much."""
    found, k = _falls_of(m), len(m.accuracy)
    rises = [
        f"{name} ({100 * f.slope:+.1f} a severity, {format_p(f.p, equation=True)})"
        for name, f in found.items()
        if not f.falls
    ]
    odd = [f"{name} ({100 * f.first:+.1f} %)" for name, f in found.items() if not f.begins_well]
    return (
        f"{m.model}: accuracy falls with severity under {k - len(rises)} of {k} corruptions{_list_exceptions(rises)}; "
        f"at every step under {sum(f.steps for f in found.values())}. Severity 1 costs more than 0 and less than 60 % "
        f"of what lies between clean and chance under {k - len(odd)} of {k}{_list_exceptions(odd)}."
    )


def _list_exceptions(names: Sequence[str]) -> str:
    return f", not under {', '.join(names)}" if names else ""


def _row(m: CorruptionScores, reference: CorruptionScores | None) -> dict[str, str]:
    """A model's line of the first table."""
    mean, mce = m.mean, m.mce(reference)
    return {
        "model": m.model,
        "n": str(m.n),
        "clean": _percent(m.clean),
        "mean": str(Score(mean, *wilson(mean * m.n, m.n))),
        "relative": _percent(relative_accuracy(m.every, m.clean)),
        "mCE": "-" if mce is None else _percent(mce),
        **{str(s): _percent(m.at(s)) for s in range(1, 6)},
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
