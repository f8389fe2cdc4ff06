"""Sheets: what a suite's examples look like, clean and perturbed, with labels and predictions.

Stills stand in columns, clean over perturbed over difference; a video is a strip of its frames, three strips a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from rlbench import registry
from rlbench.core import Adversarial, Box, Clean, Composed, Corrupted, Modality, Perturbation, Suite, Worst
from rlbench.errors import DataError, FieldError, UnknownName
from rlbench.evaluate import Bench, corrupt, load, prepare
from rlbench.judge import Meter, judge, run_attack
from rlbench.metrics import margin
from rlbench.seeds import ExampleStreams
from rlbench.threat import ball_of

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


def choose(suite: Suite, text: str | None = None) -> Perturbation:
    """The suite's perturbation of this column name; without one, its first attack at the middle eps.

    Raises:
        UnknownName; FieldError for a worst case, which is no single perturbation.
    """
    columns = {str(one): one for one in suite.perturbations}
    if text is not None:
        found = columns.get(text)
        if found is None:
            raise UnknownName(f"perturbation of suite {suite.name}", text, columns)
        if isinstance(found, Worst):
            raise FieldError(f"{text!r} is over several attacks; choose one of them to show")
        return found
    attacks = [one for one in suite.perturbations if isinstance(one, Adversarial)]
    same = [one for one in attacks if (one.attack, one.threat.norm) == (attacks[0].attack, attacks[0].threat.norm)]
    corrupted = [one for one in suite.perturbations if isinstance(one, Corrupted)]
    return same[len(same) // 2] if same else corrupted[0] if corrupted else Clean()


def collect(
    suite: Suite, model: str, perturbation: Perturbation, examples: int, *, device: str = "cpu", batch_size: int = 64
) -> Sheet:
    """The suite's first test examples, perturbed as a run does it, with the model's predictions.

    Raises:
        RLBenchError: as `evaluate.prepare`; AttackError: the attack or corruption broke its contract.
    """
    size = suite.task.size("test")
    if examples < 1 or (size is not None and size < 1):
        raise DataError(
            f"suite {suite.name} has {size} test examples and {examples} were asked for; it takes 1 or more"
        )
    bench = prepare(suite, model, device=device, batch_size=batch_size)
    batch = load(bench, 0, examples if size is None else min(examples, size))
    x, y = batch.x.to(device), batch.y.to(device)
    names = [label.name for label in suite.task.classes]
    found = _perturbed(bench, perturbation, x, y, batch.ids)
    return Sheet(
        title=f"{suite.name} v{suite.version} · {model} · {perturbation}",
        modality=suite.modality,
        box=bench.box,
        x=x,
        x_adv=found,
        labels=tuple(names[k] for k in batch.y.tolist()),
        clean=_guesses(bench, x, y, names),
        perturbed=_guesses(bench, found, y, names),
    )


def _guesses(bench: Bench, x: Tensor, y: Tensor, names: Sequence[str]) -> tuple[Guess, ...]:
    logits = _logits(bench, x)
    correct = (margin(logits, y) > 0).tolist()
    return tuple(Guess(names[k], right) for k, right in zip(logits.argmax(1).tolist(), correct, strict=True))


def _logits(bench: Bench, x: Tensor) -> Tensor:
    with torch.no_grad():
        return Meter(bench.classifier, len(x), batch_size=bench.batch_size)(x)


def _perturbed(bench: Bench, perturbation: Perturbation, x: Tensor, y: Tensor, ids: tuple[str, ...]) -> Tensor:
    corrupted = perturbation.corrupted if isinstance(perturbation, Composed) else perturbation
    attack = perturbation.adversarial if isinstance(perturbation, Composed) else perturbation
    if isinstance(corrupted, Corrupted):
        streams = ExampleStreams(bench.suite.seed, ids, str(corrupted))
        x = corrupt(x.cpu(), corrupted, bench.box, streams).to(bench.device)
    return _attacked(bench, attack, perturbation, x, y, ids) if isinstance(attack, Adversarial) else x


def _attacked(
    bench: Bench, attack: Adversarial, whole: Perturbation, x: Tensor, y: Tensor, ids: tuple[str, ...]
) -> Tensor:
    """Up the ladder as in a run: what a smaller eps broke is kept, clean errors are not attacked."""
    method = registry.make("attack", attack.attack, dict(attack.fields))
    x_adv, left = x.clone(), margin(_logits(bench, x), y) > 0
    for eps in (*attack.ladder, attack.threat.eps):
        rows = left.nonzero()[:, 0]
        if not len(rows):
            break
        rung = replace(attack, threat=replace(attack.threat, eps=eps))
        name = str(replace(whole, adversarial=rung) if isinstance(whole, Composed) else rung)
        streams = ExampleStreams(bench.suite.seed, ids, name).take(rows.tolist())
        ball, meter = ball_of(rung.threat, bench.box), Meter(bench.classifier, len(rows), batch_size=bench.batch_size)
        found = run_attack(method, meter, x[rows], y[rows], ball, streams)
        left[rows] = judge(meter, found, x[rows], y[rows], ball).correct.to(left.device)
        x_adv[rows] = found
    return x_adv


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
