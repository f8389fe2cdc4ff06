"""Records of corruptions at all five severities -> what they say of natural robustness, as markdown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from rlbench.metrics import mean_corruption_error, relative_accuracy, wilson
from rlbench.tables import COMPARABLE, CORRUPTED, ROW, Score

BASELINE = "languagebind"
READING = (
    "`mean` is over all corruptions and severities, with the cautious interval of n examples; `relative` is the mean "
    "over the clean accuracy; `mCE` (Hendrycks and Dietterich, 2019) the errors over those of {baseline}, summed over "
    "severities, then averaged over corruptions: lower is better, 100 is {baseline}. `s` is the mean at severity s. "
    "Where the 15 of ImageNet-C are among them, the first table takes those alone. The second table has each "
    "corruption's mean over its severities."
)
HEADLINE = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


@dataclass(frozen=True)
class Natural:
    """A model under corruptions: its clean accuracy, and by corruption the accuracies at severity 1 to 5, in [0, 1]."""

    model: str
    n: int
    clean: float
    accuracy: Mapping[str, tuple[float, ...]]

    @property
    def every(self) -> list[float]:
        return [a for row in self.accuracy.values() for a in row]

    def of(self, names: Collection[str]) -> Natural:
        """Under these corruptions alone."""
        return replace(self, accuracy={name: row for name, row in self.accuracy.items() if name in names})

    def at(self, severity: int) -> float:
        """The mean over corruptions."""
        return fmean(row[severity - 1] for row in self.accuracy.values())

    def mce(self, baseline: Natural | None) -> float | None:
        """Against a baseline with the same corruptions; None without one."""
        if baseline is None or baseline.accuracy.keys() != self.accuracy.keys():
            return None
        names = list(self.accuracy)
        errors = [[[1 - a for a in one.accuracy[name]] for name in names] for one in (self, baseline)]
        return mean_corruption_error(*errors)


def collect(cells: pd.DataFrame) -> list[tuple[dict[str, object], list[Natural]]]:
    """By comparable part of a frame (see `tables.frame`) its models, best mean first.

    Corruptions count that every model of the part has at all five severities without failure, if there are two or more;
    a part without is left out.
    """
    found = []
    known = cells.assign(**{name: "" for name in (*COMPARABLE, *ROW) if name not in cells}).astype(object)
    known = known.where(known.notna(), None)
    for facts, part in known.groupby(list(COMPARABLE), sort=True, dropna=False) if len(known) else []:
        rows = [_natural(row) for _, row in part.groupby(list(ROW), sort=True, dropna=False)]
        models = [model for model in rows if model is not None]
        shared = set.intersection(*(set(model.accuracy) for model in models)) if models else set()
        if len(shared) > 1:
            cut = [Natural(m.model, m.n, m.clean, {k: v for k, v in m.accuracy.items() if k in shared}) for m in models]
            cut.sort(key=lambda model: (-fmean(model.every), model.model))
            found.append((dict(zip(COMPARABLE, facts, strict=True)), cut))
    return found


def _natural(row: pd.DataFrame) -> Natural | None:
    """A model's corruptions that have all five severities; None without any, or without a clean cell."""
    counted = row[row["error"].isna()]
    scores = dict(zip(counted["perturbation"], counted["accuracy"].astype(float), strict=True))
    table: dict[str, dict[int, float]] = {}
    for column, accuracy in scores.items():
        if hit := CORRUPTED.match(str(column)):
            table.setdefault(hit["what"], {})[int(hit["severity"])] = accuracy
    whole = {k: tuple(v[s] for s in range(1, 6)) for k, v in sorted(table.items()) if len(v) == 5}
    if not whole or "clean" not in scores:
        return None
    return Natural(str(row["model"].iloc[0]), int(row["n"].iloc[0]), scores["clean"], whole)


def sections(cells: pd.DataFrame, baseline: str = BASELINE) -> list[str]:
    """Markdown: for each part two tables, and what they mean above the first."""
    found = collect(cells)
    parts = [part for facts, models in found for part in _section(facts, models, baseline)]
    return [READING.format(baseline=baseline), *parts] if parts else []


def _section(facts: Mapping[str, object], models: list[Natural], baseline: str) -> list[str]:
    common = facts["modality"] == "image" and models[0].accuracy.keys() >= set(HEADLINE)
    names: Collection[str] = HEADLINE if common else models[0].accuracy
    reference = next((m for m in models if m.model.partition(":")[0] == baseline), None)
    title = f"## {facts['suite']} v{facts['suite_version']}: natural robustness, {len(names)} corruptions"
    rows = [_row(m.of(names), reference and reference.of(names)) for m in models]
    each = [{"corruption": k} | {m.model: _percent(fmean(m.accuracy[k])) for m in models} for k in models[0].accuracy]
    tables = [str(pd.DataFrame(t).to_markdown(index=False, disable_numparse=True)) for t in (rows, each)]
    others = [m.of(names) for m in models if m is not reference]
    said = [_against(reference.of(names), others)] if reference and others else []
    return [title, *said, *tables]


def _against(reference: Natural, others: Sequence[Natural]) -> str:
    """One sentence: whether the mean under corruption is another than the baseline's, beyond both intervals."""
    ranges = {m.model: wilson(fmean(m.every) * m.n, m.n) for m in (reference, *others)}
    low, high = ranges[reference.model]
    words = []
    for m in others:
        apart = ranges[m.model][0] > high or ranges[m.model][1] < low
        gain = f"{100 * (fmean(m.every) - fmean(reference.every)):+.1f}"
        words.append(f"{m.model} {gain} ({'apart' if apart else 'intervals overlap'})")
    return f"Points of mean accuracy under corruption against {reference.model}: {', '.join(words)}."


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
