"""The training curves of a run as a PNG: the loss and the validation accuracies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Validation accuracies, and their labels in the figure.
NAMES = {"clean": "clean", "robust": "robust (PGD-10)", "unseen": "unseen classes, clean"}


def draw_curves(metrics: Path, png: Path, *, title: str) -> None:
    """Plots the loss and the validation accuracies by step, a row of plots per modality.

    Args:
        metrics: the metrics.jsonl of a run. Each line has `modality`, `step`, `loss` and `val`: the accuracies in
            [0, 1] by the keys of NAMES, empty for a step without a validation.
        png: the file to write.
        title: the title of the figure.
    """
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    modalities = sorted({step["modality"] for step in steps})
    figure = Figure(figsize=(9, 3 * len(modalities)), layout="constrained")
    rows = figure.subplots(len(modalities), 2, squeeze=False)
    for modality, (left, right) in zip(modalities, rows, strict=True):
        _draw([step for step in steps if step["modality"] == modality], left, right)
        left.set_title(f"{modality}: loss", loc="left")
        right.set_title(f"{modality}: validation accuracy, %", loc="left")
    figure.suptitle(title, x=0.01, ha="left")
    figure.savefig(png, dpi=110, format="png")


def _draw(steps: list[dict[str, Any]], left: Axes, right: Axes) -> None:
    """Plots one modality: the loss and its moving average on the left, the accuracies on the right."""
    losses = [step["loss"] for step in steps]
    window = max(1, len(losses) // 50)
    smooth = [sum(losses[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(losses))]
    left.plot([step["step"] for step in steps], losses, color="0.8", linewidth=0.8)
    left.plot([step["step"] for step in steps], smooth, linewidth=1.5)
    measured = [step for step in steps if step["val"]]
    for name, label in NAMES.items():
        points = [(step["step"], 100 * step["val"][name]) for step in measured if name in step["val"]]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    right.set_ylim(0, 100)
    if measured:
        right.legend(frameon=False, fontsize="small")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
