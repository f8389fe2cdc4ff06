"""Sheets as pictures: examples clean and perturbed, their difference, labels and predictions.

Stills stand in columns, clean over perturbed over difference; a video is a strip of its frames, three strips a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from rlbench.core import Box, Modality

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIGHT, WRONG = "#1a7f37", "#c1121f"
PER_LINE: dict[Modality, int] = {"audio": 4, "video": 2}  # examples side by side; 8 otherwise
COLOURS: dict[Modality, str] = {"thermal": "inferno", "audio": "magma", "depth": "viridis"}


@dataclass(frozen=True)
class Guess:
    """A predicted class name, and whether it is correct: a tie with another class is not."""

    name: str
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Examples of one task under one perturbation.

    Attributes:
        title: what is shown: suite, model, perturbation.
        modality, box: of the examples.
        x, x_adv: (B, *box.shape) in the box, clean and perturbed.
        labels: the B true class names.
        clean, perturbed: the B predictions.
    """

    title: str
    modality: Modality
    box: Box
    x: Tensor
    x_adv: Tensor
    labels: tuple[str, ...]
    clean: tuple[Guess, ...]
    perturbed: tuple[Guess, ...]


def draw(sheet: Sheet) -> bytes:
    """The sheet as a PNG."""
    examples, size = len(sheet.labels), sheet.box.high - sheet.box.low
    across = min(examples, PER_LINE.get(sheet.modality, 8))
    lines = -(-examples // across)
    width, height = _panel(sheet)
    figure = Figure(figsize=(across * width + 0.6, lines * 3 * height + 0.7), dpi=110, layout="constrained")
    axes = figure.subplots(3 * lines, across, squeeze=False)
    clean, perturbed = _unit(sheet.x, sheet.box), _unit(sheet.x_adv, sheet.box)
    factor = amplification(perturbed - clean)
    for panel in axes.flat:
        panel.set_visible(False)
    for k in range(examples):
        top = 3 * (k // across)
        _example(list(axes[top : top + 3, k % across]), sheet, k, clean[k], perturbed[k], factor)
    for top in range(0, 3 * lines, 3):
        for row, name in enumerate(("clean", "perturbed", f"difference x {factor:g}")):
            _name_row(axes[top + row, 0], name, sheet)
    unit = "" if size == 1 else f", box [{sheet.box.low:g}, {sheet.box.high:g}]"
    figure.suptitle(f"{sheet.title}{unit}", fontsize=10)
    return _png(figure)


def _example(
    panels: Sequence[Axes], sheet: Sheet, k: int, clean: NDArray[Any], perturbed: NDArray[Any], factor: float
) -> None:
    """Fills the three panels of example k."""
    _caption(_show(panels[0], clean, sheet), sheet.clean[k], sheet.labels[k], sheet, first=True)
    _caption(_show(panels[1], perturbed, sheet), sheet.perturbed[k], sheet.labels[k], sheet, first=False)
    panel = _show(panels[2], factor * (perturbed - clean), sheet, signed=True)
    if not (perturbed != clean).any():
        panel.text(0.5, 0.5, "unchanged", transform=panel.transAxes, ha="center", va="center", fontsize=8)


def amplification(delta: NDArray[Any]) -> float:
    """1, 2 or 5 times a power of ten: the largest such factor that keeps |factor * delta| <= 0.5; 1 if delta is 0."""
    top = float(np.abs(delta).max(initial=0.0))
    if top == 0:
        return 1.0
    limit = 0.5 / top
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max((m * power for m in (1, 2, 5) if m * power <= limit * (1 + 1e-9)), default=power))


def _panel(sheet: Sheet) -> tuple[float, float]:
    """Width and height of one example's picture, in inches."""
    if sheet.modality == "video":
        return 0.75 * sheet.box.shape[1], 1.0
    return (2.6, 2.3) if sheet.modality == "audio" else (1.5, 1.75)


def _unit(x: Tensor, box: Box) -> NDArray[Any]:
    """(B, *box.shape) in the box -> the same in [0, 1], float64."""
    unit: NDArray[Any] = (x.detach().cpu().double().numpy() - box.low) / (box.high - box.low)
    return unit


def _show(panel: Axes, picture: NDArray[Any], sheet: Sheet, *, signed: bool = False) -> Axes:
    panel.set_visible(True)
    if sheet.box.unit == "waveform":
        panel.plot(np.arange(picture.shape[-1]), picture[0], linewidth=0.5)
        panel.set_xlabel("sample", fontsize=7)
        return panel
    still = _strip(picture) if sheet.modality == "video" else picture
    if still.shape[0] == 1:
        colours, low = ("RdBu_r", -0.5) if signed else (COLOURS.get(sheet.modality, "gray"), 0.0)
        up, shape = ("lower", "auto") if sheet.modality == "audio" else ("upper", "equal")
        panel.imshow(still[0], cmap=colours, vmin=low, vmax=low + 1.0, origin=up, aspect=shape)  # type: ignore[arg-type]
    else:
        shown = np.clip(still + (0.5 if signed else 0.0), 0.0, 1.0)
        panel.imshow(shown.transpose(1, 2, 0))
    _ticks(panel, sheet)
    return panel


def _strip(clip: NDArray[Any]) -> NDArray[Any]:
    """(C, T, H, W) -> (C, H, T W + gaps): the frames side by side, first on the left."""
    frames = [np.pad(clip[:, t], ((0, 0), (0, 0), (0, 2)), constant_values=1.0) for t in range(clip.shape[1])]
    return np.concatenate(frames, axis=2)[..., :-2]


def _ticks(panel: Axes, sheet: Sheet) -> None:
    if sheet.modality != "audio":
        panel.set_xticks([])
        panel.set_yticks([])
        return
    panel.tick_params(labelsize=6)
    panel.set_xlabel("frame", fontsize=7)
    panel.set_ylabel("mel band", fontsize=7)


def _caption(panel: Axes, guess: Guess, label: str, sheet: Sheet, *, first: bool) -> None:
    letters = int(14 * _panel(sheet)[0])
    tie = " (tie)" if guess.name == label and not guess.correct else ""
    text = fill(f"{'✓' if guess.correct else '✗'} {guess.name}{tie}", letters)
    panel.set_title(text, fontsize=8, color=RIGHT if guess.correct else WRONG, pad=3)
    if first:
        above = 5 + 11 * (text.count("\n") + 1)
        name = fill(label, letters)
        panel.annotate(
            name, (0.5, 1), (0, above), "axes fraction", "offset points", ha="center", fontsize=9, fontweight="bold"
        )


def _name_row(panel: Axes, name: str, sheet: Sheet) -> None:
    below = f"\n{panel.get_ylabel()}" if sheet.modality == "audio" else ""
    panel.set_ylabel(f"{name}{below}", fontsize=8)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
