"""The results of a campaign's runs as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from rlbench.core import Modality
from rlbench.encoders.models import resolve
from rlbench.training.campaign_file import CampaignRun
from rlbench.training.validation import choose_radius

_COMMON = ("init", "original", "validation", "validate")  # the same in all trials of a method


def tabulate(tasks: Sequence[CampaignRun], out: Path, *, columns: Sequence[str] = ("clean", "robust", "unseen")) -> str:
    """Renders the finished runs as a markdown table.

    The columns are the settings, the validation accuracies in %, the forward (f) and backward (b) passes since the
    backbone in thousands, and what the training saw of unseen classes. Where runs of one modality were validated on
    different data or at different radii, columns name these: such accuracies are not comparable.
    """
    rows = []
    finished = [task for task in tasks if (out / task.name / "card.yaml").is_file()]
    radii = {task.name: _list_radii(task) for task in finished}
    differ = _differ([radii[task.name] for task in finished])
    several = _differ([dict.fromkeys(task.modalities, task.suite) for task in finished])
    for task in finished:
        weights = resolve(str(out / task.name)).weights
        for modality in task.modalities:
            row = _make_row(task, modality, weights[modality].trained, columns)
            row |= {"robust at": str(radii[task.name][modality])} if differ else {}
            rows.append(row | ({"suite": task.suite or "-"} if several else {}))
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


def _list_radii(task: CampaignRun) -> dict[Modality, Fraction]:
    return {modality: choose_radius(recipe, modality) for modality, recipe in task.load_recipes().items()}


def _differ(facts: Sequence[Mapping[Modality, object]]) -> bool:
    """Whether a modality has several values."""
    return any(len({one[m] for one in facts if m in one}) > 1 for m in {m for one in facts for m in one})


def _make_row(
    task: CampaignRun, modality: Modality, trained: Mapping[str, Any], columns: Sequence[str]
) -> dict[str, object]:
    shares = {name: trained["validation"].get(name) for name in columns}
    passes = trained.get("since") or trained.get("passes") or {"forwards": 0, "backwards": 0}
    settings = [f"{key}={value}" for key, value in task.settings.items() if key not in _COMMON]
    name = f"{task.name} {modality}" if task.together else task.name
    row: dict[str, object] = {"run": name, "method": task.method, "settings": ", ".join(settings) or "-"}
    row |= {name: "-" if share is None else f"{100 * share:.1f}" for name, share in shares.items()}
    row["passes"] = f"{passes['forwards'] / 1000:.0f}k f, {passes['backwards'] / 1000:.0f}k b"
    return {**row, "sees": ", ".join(trained.get("sees", [])) or "-"}
