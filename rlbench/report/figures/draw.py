"""Draws sheets of examples, clean and perturbed, with their difference, label and predictions.

Each example is a column of three pictures: clean, perturbed, difference. A picture of a video is a strip of its frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from rlbench.core import Box, Modality
from rlbench.report.figures.fonts import drawable

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIGHT, WRONG = "#1a7f37", "#c1121f"
PER_LINE: dict[Modality, int] = {"audio": 4, "video": 2}  # examples side by side; 8 otherwise
COLOURS: dict[Modality, str] = {"thermal": "inferno", "audio": "magma", "depth": "viridis"}


@dataclass(frozen=True)
class Guess:
    """A prediction.

    Attributes:
        name: of the predicted class.
        correct: whether it is correct; a tie with another class is not.
    """

    name: str
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Examples of one task under one perturbation.

    Attributes:
        title: suite, model and perturbation.
        modality: of the examples.
        box: of the examples.
        x: (B, *box.shape) in the box, the clean examples.
        x_adv: (B, *box.shape) in the box, the perturbed examples.
        labels: names of the B true classes.
        clean: the B predictions for x.
        perturbed: the B predictions for x_adv.
    """

    title: str
    modality: Modality
    box: Box
    x: Tensor
    x_adv: Tensor
    labels: tuple[str, ...]
    clean: tuple[Guess, ...]
    perturbed: tuple[Guess, ...]


@dataclass(frozen=True, kw_only=True)
class CorruptionRow:
    """A row of a matrix: one example under one corruption.

    Attributes:
        name: of the corruption.
        pictures: by severity, (*box.shape) in the box, the corrupted example.
        guesses: by severity, the prediction.
        levels: by severity, what it means, such as "20 dB"; "" if the corruption does not say.
    """

    name: str
    pictures: Mapping[int, Tensor]
    guesses: Mapping[int, Guess]
    levels: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One example under all corruptions of a suite.

    Attributes:
        title: suite, model and class.
        modality: of the example.
        box: of the example.
        clean: (*box.shape) in the box, the clean example.
        guess: the prediction for it.
        rows: one per corruption.
        note: a line below the title; "" for none.
        sounds: by name, the WAV files of a sound.
    """

    title: str
    modality: Modality
    box: Box
    clean: Tensor
    guess: Guess
    rows: tuple[CorruptionRow, ...]
    note: str = ""
    sounds: Mapping[str, bytes] = field(default_factory=dict)


def draw_matrix(matrix: Matrix) -> bytes:
    """A PNG with one row per corruption: the clean example, then the corrupted one at each severity."""
    severities = sorted({severity for row in matrix.rows for severity in row.pictures})
    width, height = {"audio": (1.5, 1.5), "video": (4.2, 0.9)}.get(matrix.modality, (1.15, 1.45))
    across, down = 1 + len(severities), len(matrix.rows)
    size = (across * width + 1.3, down * height + 0.9)
    figure = Figure(figsize=size, dpi=100)
    axes = figure.subplots(down, across, squeeze=False)
    top = 1 - 0.75 / size[1]
    figure.subplots_adjust(1.2 / size[0], 0.1 / size[1], 1 - 0.1 / size[0], top, 0.05, 0.3 / (height - 0.3))
    for panels, row in zip(axes, matrix.rows, strict=True):
        _draw_cell(panels[0], matrix.clean, matrix, matrix.guess, "clean")
        panels[0].set_ylabel(row.name.replace("_", "\n"), fontsize=8, rotation=0, ha="right", va="center")
        for panel, severity in zip(panels[1:], severities, strict=True):
            panel.set_visible(severity in row.pictures)
            if severity in row.pictures:
                what = f"{severity}: {row.levels[severity]}" if row.levels[severity] else f"severity {severity}"
                _draw_cell(panel, row.pictures[severity], matrix, row.guesses[severity], what)
    figure.suptitle("\n".join(filter(None, (matrix.title, matrix.note))), fontsize=10, y=1 - 0.1 / size[1], va="top")
    return _save(figure)


def _draw_cell(panel: Axes, x: Tensor, matrix: Matrix, guess: Guess, what: str) -> None:
    """Draws one picture of a matrix.

    Args:
        panel: to draw in.
        x: (*box.shape) in the box.
        matrix: that it belongs to.
        guess: the prediction for x.
        what: the first line of its title.
    """
    _draw_picture(panel, to_unit(x, matrix.box), matrix.modality, matrix.box)
    panel.set(xticks=[], yticks=[], xlabel="", ylabel="")
    text = f"{what}\n{'✓' if guess.correct else '✗'} {guess.name}"
    panel.set_title(text, fontsize=6, color=RIGHT if guess.correct else WRONG, pad=2)


def draw(sheet: Sheet) -> bytes:
    """The sheet as a PNG."""
    examples, size = len(sheet.labels), sheet.box.high - sheet.box.low
    across = min(examples, PER_LINE.get(sheet.modality, 8))
    lines = -(-examples // across)
    width, height = _panel_size(sheet)
    figure = Figure(figsize=(across * width + 0.6, lines * 3 * height + 0.7), dpi=110, layout="constrained")
    axes = figure.subplots(3 * lines, across, squeeze=False)
    clean, perturbed = to_unit(sheet.x, sheet.box), to_unit(sheet.x_adv, sheet.box)
    factor = amplification(perturbed - clean)
    for panel in axes.flat:
        panel.set_visible(False)
    for k in range(examples):
        top = 3 * (k // across)
        _draw_example(list(axes[top : top + 3, k % across]), sheet, k, clean[k], perturbed[k], factor)
    for top in range(0, 3 * lines, 3):
        for row, name in enumerate(("clean", "perturbed", f"difference x {factor:g}")):
            _name_row(axes[top + row, 0], name, sheet)
    box = "" if size == 1 else f", box [{sheet.box.low:g}, {sheet.box.high:g}]"
    figure.suptitle(f"{sheet.title}{box}", fontsize=10)
    return _save(figure)


def _draw_example(
    panels: Sequence[Axes], sheet: Sheet, k: int, clean: NDArray[Any], perturbed: NDArray[Any], factor: float
) -> None:
    """Draws example k in its three panels.

    Args:
        panels: for the clean and perturbed example and the difference.
        sheet: that it belongs to.
        k: its index.
        clean: (*box.shape) in [0, 1].
        perturbed: (*box.shape) in [0, 1].
        factor: that the difference is multiplied by.
    """
    _caption(_show(panels[0], clean, sheet), sheet.clean[k], sheet.labels[k], sheet, first=True)
    _caption(_show(panels[1], perturbed, sheet), sheet.perturbed[k], sheet.labels[k], sheet, first=False)
    panel = _show(panels[2], factor * (perturbed - clean), sheet, signed=True)
    if not (perturbed != clean).any():
        panel.text(0.5, 0.5, "unchanged", transform=panel.transAxes, ha="center", va="center", fontsize=8)


def amplification(delta: NDArray[Any]) -> float:
    """The factor that a difference is shown with: 1, 2 or 5 times a power of ten.

    It is the largest such number with |factor * delta| <= 0.5, or 1 if delta is 0.
    """
    top = float(np.abs(delta).max(initial=0.0))
    if top == 0:
        return 1.0
    limit = 0.5 / top
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max((m * power for m in (1, 2, 5) if m * power <= limit * (1 + 1e-9)), default=power))


def _panel_size(sheet: Sheet) -> tuple[float, float]:
    """Width and height of one picture, in inches."""
    if sheet.modality == "video":
        return 0.75 * sheet.box.shape[1], 1.0
    return (2.6, 2.3) if sheet.modality == "audio" else (1.5, 1.75)


def to_unit(x: Tensor, box: Box) -> NDArray[Any]:
    """Scales examples of a box to [0, 1]: (B, *box.shape) -> (B, *box.shape), float64."""
    scaled: NDArray[Any] = (x.detach().cpu().double().numpy() - box.low) / (box.high - box.low)
    return scaled


def _show(panel: Axes, picture: NDArray[Any], sheet: Sheet, *, signed: bool = False) -> Axes:
    panel.set_visible(True)
    _draw_picture(panel, picture, sheet.modality, sheet.box, signed=signed)
    if sheet.box.unit != "waveform":
        _label_axes(panel, sheet)
    return panel


def _draw_picture(panel: Axes, picture: NDArray[Any], modality: Modality, box: Box, *, signed: bool = False) -> None:
    """Draws one example; a waveform in the numbers of its box.

    Args:
        panel: to draw in.
        picture: (*box.shape) in [0, 1], or in [-0.5, 0.5] if signed.
        modality: of the example.
        box: that it belongs to.
        signed: whether it is a difference.
    """
    if box.unit == "waveform":
        wave = (box.high - box.low) * picture[0] + (0.0 if signed else box.low)
        panel.plot(np.arange(len(wave)), wave, linewidth=0.5)
        panel.set_xlabel("sample", fontsize=7)
        return
    still = _join_frames(picture) if modality == "video" else picture
    if still.shape[0] == 1:
        colours, low = ("RdBu_r", -0.5) if signed else (COLOURS.get(modality, "gray"), 0.0)
        up, shape = ("lower", "auto") if modality == "audio" else ("upper", "equal")
        panel.imshow(still[0], cmap=colours, vmin=low, vmax=low + 1.0, origin=up, aspect=shape)  # type: ignore[arg-type]
    else:
        shown = np.clip(still + (0.5 if signed else 0.0), 0.0, 1.0)
        panel.imshow(shown.transpose(1, 2, 0))


def _join_frames(clip: NDArray[Any]) -> NDArray[Any]:
    """The frames of a clip side by side, with gaps: (C, T, H, W) -> (C, H, T * (W + 2) - 2)."""
    frames = [np.pad(clip[:, t], ((0, 0), (0, 0), (0, 2)), constant_values=1.0) for t in range(clip.shape[1])]
    return np.concatenate(frames, axis=2)[..., :-2]


def _label_axes(panel: Axes, sheet: Sheet) -> None:
    if sheet.modality != "audio":
        panel.set_xticks([])
        panel.set_yticks([])
        return
    panel.tick_params(labelsize=6)
    panel.set_xlabel("frame", fontsize=7)
    panel.set_ylabel("mel band", fontsize=7)


def _caption(panel: Axes, guess: Guess, label: str, sheet: Sheet, *, first: bool) -> None:
    """Writes the prediction above a picture and, above the first picture of an example, its label."""
    letters = int(14 * _panel_size(sheet)[0])
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
    """Writes the name of a row of pictures to the left of its first one."""
    below = f"\n{panel.get_ylabel()}" if sheet.modality == "audio" else ""
    panel.set_ylabel(f"{name}{below}", fontsize=8)


def _save(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    with drawable(figure):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
