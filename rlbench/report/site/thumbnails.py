"""Examples of cells as small pictures: clean, perturbed and their difference, by running the perturbation again.

Only where the model, the data and the protocol at hand are those of the record, by their hashes.
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

from rlbench.core import Clean, Perturbation, Record, Worst
from rlbench.core.errors import RLBenchError
from rlbench.core.suite import load_suites
from rlbench.encoders.models import resolve_plain
from rlbench.engine.block.bench import Bench, prepare
from rlbench.engine.cells.keys import protocol
from rlbench.report.figures.draw import COLOURS, Guess, Sheet, amplification, unit
from rlbench.report.figures.sheets import show
from rlbench.store.flags import unpack
from rlbench.store.perturbations import simplify
from rlbench.tasks.subset import select_examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES = 4  # of a clip
MOST_BENCHES = 2  # held in memory at a time
SAME = ("checkpoint", "data", "anchors", "protocol")
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Picture:
    """An example of a cell: its number, names of its class and predictions, and PNGs as data URIs.

    Attributes:
        gain: of the difference.
        agrees: the prediction is right or wrong as it was in the run.
    """

    index: int
    label: str
    clean: Guess
    perturbed: Guess
    images: tuple[str, str, str]
    gain: float
    agrees: bool


def pictures(records: Iterable[Record], n: int, report: Report) -> dict[str, list[Picture]]:
    """By record key n examples of each attacked or corrupted cell that can be run here again: what it broke first."""
    listed = list(records)
    clean = {_subject(r): r.flags for r in listed if isinstance(r.perturbation, Clean)}
    wanted = [r for r in listed if _has_picture(r) and _subject(r) in clean]
    found: dict[str, list[Picture]] = {}
    benches: dict[tuple[object, ...], Bench] = {}
    for k, record in enumerate(wanted):
        report(f"{record.suite} {record.model} {record.perturbation}", k, len(wanted))
        if (chosen := _find(record, benches)) is not None:
            rows = telling(_bits(clean[_subject(record)], record.n), _bits(record.flags, record.n), n)
            found[record.key] = _draw(record, *chosen, rows)
    return found


def _has_picture(record: Record) -> bool:
    """It has counts and a perturbation of its own."""
    return bool(record.flags) and not isinstance(record.perturbation, Clean | Worst)


def _subject(record: Record) -> tuple[object, ...]:
    facts = (record.provenance.get(name) for name in ("checkpoint", "data", "anchors", "seed"))
    return record.suite, record.model, record.n, *facts


def _bits(flags: str | None, n: int) -> NDArray[Any]:
    return unpack(flags or "", n)


def telling(clean: NDArray[Any], kept: NDArray[Any], n: int) -> list[int]:
    """n examples: of the first 8 n those that were broken, then those that were not, then clean errors."""
    kinds = np.where(clean & ~kept, 0, np.where(clean, 1, 2))[: 8 * n]
    broken, others = np.flatnonzero(kinds == 0), np.argsort(kinds, kind="stable")
    first = list(broken[: -(-n // 2)])  # at least half, where there are as many, and some that withstood
    rest = [k for k in (*np.flatnonzero(kinds == 1), *others) if k not in first]
    return [int(k) for k in (first + list(dict.fromkeys(rest)))[:n]]


def _find(record: Record, benches: dict[tuple[object, ...], Bench]) -> tuple[Bench, Perturbation] | None:
    """The bench and the perturbation, if here they are what the record says; benches are kept in `benches`."""
    try:
        suites = [s for s in load_suites(record.suite) if (s.modality, s.task_name) == (record.modality, record.task)]
        columns = {simplify(p): p for suite in suites for p in suite.perturbations}
        if record.perturbation not in columns:
            return None
        suite, one = replace(suites[0], seed=int(record.provenance.get("seed") or 0)), columns[record.perturbation]
        place = record.suite, record.modality, record.task, record.model, suite.seed
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
    sheet = show(bench.on(select_examples(bench.task, rows)), record.model, one, len(rows))
    clean, perturbed = unit(sheet.x, sheet.box), unit(sheet.x_adv, sheet.box)
    right = _bits(record.flags, record.n)
    found = []
    for k, row in enumerate(rows):
        gain = amplification(perturbed[k] - clean[k])
        difference = gain * (perturbed[k] - clean[k])
        images = _uri(clean[k], sheet), _uri(perturbed[k], sheet), _uri(difference, sheet, signed=True)
        agrees = sheet.perturbed[k].correct == bool(right[row])
        found.append(Picture(row, sheet.labels[k], sheet.clean[k], sheet.perturbed[k], images, gain, agrees))
    return found


def _uri(x: NDArray[Any], sheet: Sheet, *, signed: bool = False) -> str:
    """An example in [0, 1], or a difference about 0, as a PNG in a data URI."""
    file = BytesIO()
    Image.fromarray(pixels(x, sheet, signed=signed)).quantize(128).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def pixels(x: NDArray[Any], sheet: Sheet, *, signed: bool = False) -> NDArray[Any]:
    """(H, W, 3) uint8: a still; frames side by side; a spectrogram, low bands below; a waveform's envelope."""
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
    """Black where the wave is, between its least and greatest value in each of `width` parts."""
    parts = np.array_split(wave, width)
    low, high = (np.array([f(part) for part in parts]) * (height - 1) for f in (np.min, np.max))
    level = np.arange(height)[::-1, None]
    drawn = (level >= np.floor(low)) & (level <= np.ceil(high))
    return np.repeat(np.where(drawn, 40, 255).astype(np.uint8)[..., None], 3, axis=2)
