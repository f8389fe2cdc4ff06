"""Small pictures of examples: clean, perturbed, and their difference.

A cell's perturbation is run again, only if model, data, anchors and protocol have the hashes of its record.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from rlbench.core import Clean, Perturbation, Record
from rlbench.core.errors import RLBenchError
from rlbench.core.sensors import JointBox
from rlbench.core.suite import load_suites
from rlbench.encoders.models import resolve_plain
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.cells.groups import group_of, is_aggregate
from rlbench.engine.cells.keys import protocol
from rlbench.report.figures.draw import COLOURS, Guess, Sheet, amplification, to_unit
from rlbench.report.figures.sensor_sheets import split_sheet, stack
from rlbench.report.figures.sheets import show
from rlbench.store.flags import unpack
from rlbench.store.perturbations import simplify
from rlbench.tasks.subset import select_examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES = 4  # of a clip
MOST_BENCHES = 2  # held in memory at a time
SAME = ("checkpoint", "data", "anchors", "protocol")
Report = Callable[[str, int, int], None]  # called with a cell's name, the cells that are done, and all cells


@dataclass(frozen=True)
class Picture:
    """An example of a cell.

    Attributes:
        index: of the example in its task.
        label: name of its class.
        clean: the prediction for the clean example.
        perturbed: the prediction for the perturbed example.
        images: clean, perturbed and difference, PNGs as data URIs.
        gain: the factor that the difference is multiplied by.
        agrees: whether the prediction is right or wrong as in the record.
    """

    index: int
    label: str
    clean: Guess
    perturbed: Guess
    images: tuple[str, str, str]
    gain: float
    agrees: bool


def draw_pictures(records: Iterable[Record], n: int, report: Report) -> dict[str, list[Picture]]:
    """By key of the record, examples of each attacked or corrupted cell that can be run again on this machine.

    Args:
        records: with their clean cells; others are left out.
        n: the number of examples of a cell (see `choose_examples`).
        report: called before each cell.
    """
    listed = list(records)
    clean = {_subject(r): r.flags for r in listed if isinstance(r.perturbation, Clean)}
    wanted = [r for r in listed if _has_picture(r) and _subject(r) in clean]
    found: dict[str, list[Picture]] = {}
    benches: dict[tuple[object, ...], Bench] = {}
    for k, record in enumerate(wanted):
        report(f"{record.suite} {record.model} {record.perturbation}", k, len(wanted))
        if (chosen := _find(record, benches)) is not None:
            before, after = (_unpack(flags, record.n) for flags in (clean[_subject(record)], record.flags))
            found[record.key] = _draw(record, *chosen, choose_examples(before, after, n))
    return found


def _has_picture(record: Record) -> bool:
    """Whether it did not fail and has a single perturbation."""
    return bool(record.flags) and not (isinstance(record.perturbation, Clean) or is_aggregate(record.perturbation))


def _subject(record: Record) -> tuple[object, ...]:
    """What a cell shares with its clean cell."""
    facts = (record.provenance.get(name) for name in ("checkpoint", "data", "anchors", "seed"))
    return record.suite, record.model, record.n, *facts


def _unpack(flags: str | None, n: int) -> NDArray[Any]:
    return unpack(flags or "", n)


def choose_examples(clean: NDArray[Any], correct: NDArray[Any], n: int) -> list[int]:
    """Indices of n examples, or of all if there are fewer, from the first 8 n.

    Half of them (rounded up) are examples that the perturbation broke, if there are as many; then come examples that
    stayed correct, then further broken ones, then clean errors.

    Args:
        clean: (N,) bool, which examples are correct without the perturbation.
        correct: (N,) bool, which are correct with it.
        n: how many to choose.
    """
    kinds = np.where(clean & ~correct, 0, np.where(clean, 1, 2))[: 8 * n]
    broken, by_kind = np.flatnonzero(kinds == 0), np.argsort(kinds, kind="stable")
    first = list(broken[: -(-n // 2)])
    rest = [k for k in (*np.flatnonzero(kinds == 1), *by_kind) if k not in first]
    return [int(k) for k in (first + list(dict.fromkeys(rest)))[:n]]


def _find(record: Record, benches: dict[tuple[object, ...], Bench]) -> tuple[Bench, Perturbation] | None:
    """The bench and the perturbation of a record; None if they can't be loaded, or differ from the record.

    Args:
        record: of the cell.
        benches: a cache, which the call updates.
    """
    try:
        suites = [s for s in load_suites(record.suite) if (s.modality, s.task_name) == (record.modality, record.task)]
        columns = {simplify(p): p for suite in suites for p in suite.perturbations}
        if record.perturbation not in columns:
            return None
        suite, one = replace(suites[0], seed=int(record.provenance.get("seed") or 0)), columns[record.perturbation]
        place = record.suite, record.modality, record.task, record.model, suite.seed  # key in the cache
        if place not in benches:
            bench = prepare(suite, resolve_plain(record.model, record.suite).name)
            while len(benches) >= MOST_BENCHES:
                del benches[next(iter(benches))]
            benches[place] = bench
        subject = benches[place].subject() | {"protocol": protocol(suite, one)}
    except RLBenchError:
        return None
    same = all(str(subject[name]) == str(record.provenance.get(name)) for name in SAME)
    return (benches[place], one) if same else None


def _draw(record: Record, bench: Bench, one: Perturbation, rows: Sequence[int]) -> list[Picture]:
    """The pictures of some examples, by their index, under one perturbation."""
    bench.under(group_of(one))  # the texts of a choice come from the whole task
    sheet = show(bench.on(select_examples(bench.task, rows)), record.model, one, len(rows))
    clean, perturbed = to_unit(sheet.x, sheet.box), to_unit(sheet.x_adv, sheet.box)
    right = _unpack(record.flags, record.n)
    found = []
    for k, row in enumerate(rows):
        gain = amplification(perturbed[k] - clean[k])
        difference = gain * (perturbed[k] - clean[k])
        images = _uri(clean[k], sheet), _uri(perturbed[k], sheet), _uri(difference, sheet, signed=True)
        agrees = sheet.perturbed[k].correct == bool(right[row])
        found.append(Picture(row, sheet.labels[k], sheet.clean[k], sheet.perturbed[k], images, gain, agrees))
    return found


def _uri(x: NDArray[Any], sheet: Sheet, *, signed: bool = False) -> str:
    """An example as a PNG in a data URI; arguments as for `to_pixels`."""
    file, parts = BytesIO(), [(x, sheet)]
    if isinstance(box := sheet.box, JointBox):
        own = {part.modality: part for part in split_sheet(sheet)}
        parts = [(x[a:b].reshape(own[sensor].box.shape), own[sensor]) for sensor, (a, b) in box.spans.items()]
    pixels = stack([to_pixels(part, its, signed=signed) for part, its in parts])
    Image.fromarray(pixels).quantize(128).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def to_pixels(x: NDArray[Any], sheet: Sheet, *, signed: bool = False) -> NDArray[Any]:
    """(H, W, 3) uint8: an image, frames side by side, a spectrogram with low bands below, or the envelope of a sound.

    Args:
        x: (*box.shape) in [0, 1], or in [-0.5, 0.5] if signed.
        sheet: that it belongs to.
        signed: whether it is a difference.
    """
    if sheet.box.unit == "waveform":
        return _envelope(x[0] + (0.5 if signed else 0.0))
    if sheet.modality == "video":
        shown = np.linspace(0, x.shape[1] - 1, min(FRAMES, x.shape[1])).astype(int)
        x = np.concatenate([x[:, t] for t in shown], axis=-1)
    x = np.clip(x + (0.5 if signed else 0.0), 0.0, 1.0)
    if sheet.modality == "audio":
        x = x[:, ::-1]
    if x.shape[0] == 1:
        colours = colormaps["RdBu_r" if signed else COLOURS.get(sheet.modality, "gray")]
        return np.asarray(colours(x[0], bytes=True))[..., :3]
    return np.asarray((255 * x.transpose(1, 2, 0)).round().astype(np.uint8))


def _envelope(wave: NDArray[Any], width: int = 160, height: int = 64) -> NDArray[Any]:
    """(height, width, 3) uint8: dark between the minimum and the maximum of the wave in each of `width` parts.

    Args:
        wave: (samples,) in [0, 1].
        width: in pixels.
        height: in pixels.
    """
    parts = np.array_split(wave, width)
    low, high = (np.array([f(part) for part in parts]) * (height - 1) for f in (np.min, np.max))
    level = np.arange(height)[::-1, None]
    drawn = (level >= np.floor(low)) & (level <= np.ceil(high))
    return np.repeat(np.where(drawn, 40, 255).astype(np.uint8)[..., None], 3, axis=2)
