"""Records of corruptions at all five severities -> what they say of natural robustness, as markdown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlbench.core import Clean, Corrupted
from rlbench.core.stats.metrics import mean_corruption_error, relative_accuracy, wilson
from rlbench.core.stats.severity_trend import ALPHA, Fall, Flags, compare_means, measure_falls
from rlbench.report.boards.scores import Score, differing, gravest, marked, most_shared
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
class Natural:
    """A model under corruptions: its clean accuracy, and by corruption the accuracies at severity 1 to 5, in [0, 1].

    Attributes:
        classes: of the task; 0 where the records don't say.
        right: by column which examples are correct, (n,); empty where a record doesn't say, or where examples share
            sources, so that no test over examples may be made of them.
    """

    model: str
    n: int
    clean: float
    accuracy: Mapping[str, tuple[float, ...]]
    classes: int = 0
    right: Mapping[str, Flags] = field(default_factory=dict, repr=False, compare=False)

    @property
    def every(self) -> list[float]:
        return [a for row in self.accuracy.values() for a in row]

    def of(self, names: Collection[str]) -> Natural:
        """Under these corruptions alone."""
        return replace(self, accuracy={name: row for name, row in self.accuracy.items() if name in names})

    def at(self, severity: int) -> float:
        """The mean over corruptions."""
        return fmean(row[severity - 1] for row in self.accuracy.values())

    def hits(self) -> np.ndarray:
        """(n,) under how many corruptions and severities each example is correct."""
        counts: np.ndarray = np.sum([self.right[f"{name} {s}"] for name in self.accuracy for s in range(1, 6)], axis=0)
        return counts

    def mce(self, baseline: Natural | None) -> float | None:
        """Against a baseline with the same corruptions; None without one."""
        if baseline is None or baseline.accuracy.keys() != self.accuracy.keys():
            return None
        names = list(self.accuracy)
        errors = [[[1 - a for a in one.accuracy[name]] for name in names] for one in (self, baseline)]
        return mean_corruption_error(*errors)


class Part(NamedTuple):
    """A comparable part: what it shares, what keeps it apart, its models, best mean first, and those left out."""

    facts: Mapping[str, object]
    apart: Sequence[str]
    models: list[Natural]
    left: list[str]


def collect(cells: pd.DataFrame) -> list[Part]:
    """The comparable parts of a frame (see `tables.parts`) that have corruptions at all five severities.

    Corruptions count that most models of a part have without failure, if there are two or more; models that lack one
    of them are left out.
    """
    found = []
    for facts, apart, part in parts(cells):
        rows = [one for name, _, row in models(part) if (one := _natural(name, row)) is not None]
        names = sorted({name for one in rows for name in one.accuracy})
        shared = set(most_shared([set(one.accuracy) for one in rows], names))
        if len(shared) > 1:
            cut = [one.of(shared) for one in rows if shared <= set(one.accuracy)]
            cut.sort(key=lambda one: (-fmean(one.every), one.model))
            found.append(Part(facts, apart, cut, [one.model for one in rows if not shared <= set(one.accuracy)]))
    return found


def _natural(name: str, row: Sequence[Cell]) -> Natural | None:
    """A model's corruptions that have all five severities; None without any, or without a clean cell."""
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
    badge = gravest(str(cell.get("soundness") or "") for cell in row)
    classes = int(clean.get("classes") or 0)
    return Natural(marked(name, badge), clean["n"], clean["accuracy"], whole, classes, _right(counted))


def _right(cells: Mapping[Column, Cell]) -> dict[str, Flags]:
    if any(cell.get("sources") or not cell["flags"] for cell in cells.values()):
        return {}
    return {column: unpack(cell["flags"], cell["n"]) for column, cell in cells.items()}


def sections(cells: pd.DataFrame, baseline: str = BASELINE) -> list[str]:
    """Markdown: what the numbers mean, the sum of the parts, then for each part what was found, and two tables."""
    found = collect(cells)
    texts = [text for part in found for text in _section(part, baseline)]
    measured = [_falls(one) for part in found if (one := _reference(part.models, baseline)) and _is_tested(one)]
    total = [_total(measured, baseline)] if len(measured) > 1 else []
    return [READING.format(baseline=baseline), *total, *texts] if texts else []


def _section(part: Part, baseline: str) -> list[str]:
    facts, models = part.facts, part.models
    common = facts["modality"] == "image" and models[0].accuracy.keys() >= set(HEADLINE)
    names: Collection[str] = HEADLINE if common else models[0].accuracy
    reference = _reference(models, baseline)
    suite = f"{facts['suite']} v{facts['suite_version']}"
    title = f"## {suite}: natural robustness, {len(names)} corruptions{differing(facts, part.apart)}"
    left = [f"Left out, since they lack or failed some of these: {', '.join(part.left)}."] if part.left else []
    rows = [_row(m.of(names), reference and reference.of(names)) for m in models]
    each = [{"corruption": k} | {m.model: _percent(fmean(m.accuracy[k])) for m in models} for k in models[0].accuracy]
    tables = [str(pd.DataFrame(t).to_markdown(index=False, disable_numparse=True)) for t in (rows, each)]
    others = [m.of(names) for m in models if m is not reference]
    said = [_against(reference.of(names), others)] if reference and others else []
    checked = [_severities(reference)] if reference and _is_tested(reference) else []
    return [title, *left, *said, *tables, *checked]


def _reference(models: Sequence[Natural], baseline: str) -> Natural | None:
    return next((m for m in models if m.model.partition(":")[0] == baseline), None)


def _is_tested(m: Natural) -> bool:
    return bool(m.right and m.classes)


def _against(reference: Natural, others: Sequence[Natural]) -> str:
    """One sentence: which models' means under corruption are above or below the baseline's, and which are not apart."""
    tested = [m for m in others if m.right and reference.right]
    ps = compare_means(reference.hits(), {m.model: m.hits() for m in tested}) if tested else {}
    said: dict[str, list[str]] = {"above": [], "below": [], "not apart": []}
    for m in others:
        gain, p = fmean(m.every) - fmean(reference.every), ps.get(m.model)
        where = "not apart" if p is None or p >= ALPHA else "above" if gain > 0 else "below"
        said[where].append(f"{m.model} ({100 * gain:+.1f}, {'not tested' if p is None else _chance(p)})")
    listed = "; ".join(f"{where}: {', '.join(names)}" for where, names in said.items() if names)
    return f"Points of mean accuracy under corruption against {reference.model}: {listed}."


def _falls(m: Natural) -> dict[str, Fall]:
    rows = {name: [m.right[f"{name} {s}"] for s in range(1, 6)] for name in m.accuracy}
    return measure_falls(m.right["clean"], rows, m.classes)


def _total(parts: Sequence[Mapping[str, Fall]], baseline: str) -> str:
    """The parts together: corruptions count once in each suite."""
    every = [fall for part in parts for fall in part.values()]
    down, steps, well = (sum(flags) for flags in zip(*((f.falls, f.steps, f.begins_well) for f in every), strict=True))
    return (
        f"All suites together: {baseline}'s accuracy falls with severity under {down} of {len(every)} corruptions "
        f"({100 * down / len(every):.0f} %), at every step under {steps}; severity 1 costs more than 0 and less than "
        f"60 % of what lies between clean and chance under {well}."
    )


def _severities(m: Natural) -> str:
    """Whether accuracy falls with severity, and whether severity 1 is neither nothing nor nearly all."""
    found, k = _falls(m), len(m.accuracy)
    rises = [f"{name} ({100 * f.slope:+.1f} a severity, {_chance(f.p)})" for name, f in found.items() if not f.falls]
    odd = [f"{name} ({100 * f.first:+.1f} %)" for name, f in found.items() if not f.begins_well]
    return (
        f"{m.model}: accuracy falls with severity under {k - len(rises)} of {k} corruptions{_but(rises)}; at every "
        f"step under {sum(f.steps for f in found.values())}. Severity 1 costs more than 0 and less than 60 % of what "
        f"lies between clean and chance under {k - len(odd)} of {k}{_but(odd)}."
    )


def _but(names: Sequence[str]) -> str:
    return f", not under {', '.join(names)}" if names else ""


def _chance(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _row(m: Natural, reference: Natural | None) -> dict[str, str]:
    mean, mce = fmean(m.every), m.mce(reference)
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
