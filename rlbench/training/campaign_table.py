"""The results of a campaign's runs as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rlbench.core import Modality
from rlbench.encoders.models import resolve
from rlbench.training.campaign_file import CampaignRun

_COMMON = ("init", "original", "validation", "validate")  # the same in all trials of a method


def tabulate(tasks: Sequence[CampaignRun], out: Path, *, columns: Sequence[str] = ("clean", "robust", "unseen")) -> str:
    """Renders the finished runs as a markdown table.

    The columns are the settings, the validation accuracies in %, the forward (f) and backward (b) passes since the
    backbone in thousands, and what the training saw of unseen classes.
    """
    rows = []
    for task in tasks:
        if not (out / task.name / "card.yaml").is_file():
            continue
        weights = resolve(str(out / task.name)).weights
        rows += [_make_row(task, modality, weights[modality].trained, columns) for modality in task.modalities]
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


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
