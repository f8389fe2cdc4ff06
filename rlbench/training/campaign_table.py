"""The results of a campaign's runs as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlbench.encoders.models import resolve
from rlbench.training.campaign import CampaignRun

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
        trained = resolve(str(out / task.name)).weights[task.modality].trained
        shares = {name: trained["validation"].get(name) for name in columns}
        passes = trained.get("since") or trained.get("passes") or {"forwards": 0, "backwards": 0}
        settings = [f"{key}={value}" for key, value in task.settings.items() if key not in _COMMON]
        row: dict[str, object] = {"run": task.name, "method": task.method, "settings": ", ".join(settings) or "-"}
        row |= {name: "-" if share is None else f"{100 * share:.1f}" for name, share in shares.items()}
        row["passes"] = f"{passes['forwards'] / 1000:.0f}k f, {passes['backwards'] / 1000:.0f}k b"
        rows.append({**row, "sees": ", ".join(trained.get("sees", [])) or "-"})
    return str(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
