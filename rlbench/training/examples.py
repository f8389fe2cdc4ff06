"""The examples of a train split, in memory or read on demand, and random crops of whole pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlbench.core import Box, Split, Task
from rlbench.core.errors import DataError

CHUNK = 512
PASSES = 16  # an epoch repeats a small split at most this often
LIMIT = 2 << 30  # bytes; larger splits are read on demand
EIGHT_BITS = ("intensity", "log-mel")  # the units for which 255 levels are enough


@runtime_checkable
class Pictures(Protocol):
    """A task that also gives whole pictures, from which random crops are taken."""

    def picture(self, i: int, channels: int, split: Split = "train") -> tuple[np.ndarray, int]:
        """Returns example i as (C, H, W) uint8 in its original size, and its label."""


@dataclass(frozen=True)
class TrainSet:
    """Examples of a task's train split.

    Attributes:
        size: the number of examples.
        epoch: the number of examples in an epoch.
        x: (N, *box.shape) if the examples are in memory, else None. uint8, which stands for 255 steps from box.low to
            box.high, or float32 for units that need more.
        y: (N,) int64 if the examples are in memory, else None.
    """

    task: Task
    box: Box
    size: int
    epoch: int
    x: Tensor | None = None
    y: Tensor | None = None

    def dequantise(self, x: Tensor) -> Tensor:
        """Turns what `take` returns into float32 in the box."""
        return self.box.low + (self.box.high - self.box.low) * (x.float() / 255) if x.dtype == torch.uint8 else x

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x (B, *box.shape), y (B,) of the examples with these indices."""
        if self.x is not None and self.y is not None:
            return self.x[rows], self.y[rows]
        found = [self.task.load(self.box, i, i + 1, "train") for i in rows.tolist()]
        return _quantise(torch.cat([one.x for one in found]), self.box), torch.cat([one.y for one in found])

    def take_crops(self, rows: Tensor, share: float, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Like `take`, but random crops: of whole pictures if the task has them, else of examples in the box's size.

        Args:
            rows: (B,) indices.
            share: the smallest share of the area that a crop may have, in (0, 1].
            draws: (B, 4) in [0, 1), see `choose_crop`.
        """
        found: Sequence[tuple[np.ndarray, int]]
        if isinstance(self.task, Pictures) and len(self.box.shape) == 3:
            found = [self.task.picture(i, self.box.shape[0]) for i in rows.tolist()]
        else:
            x, y = self.take(rows)
            found = list(zip(x.numpy(), y.tolist(), strict=True))
        labels = torch.tensor([label for _, label in found], dtype=torch.int64)
        cut = [_cut(pixels, self.box, share, u) for (pixels, _), u in zip(found, draws.tolist(), strict=True)]
        return torch.from_numpy(np.stack(cut)), labels


def choose_crop(width: int, height: int, share: float, draws: Sequence[float]) -> tuple[float, float, float, float]:
    """Chooses a random resized crop: Szegedy et al., 2015, https://arxiv.org/abs/1409.4842.

    Its area is uniform in [share, 1] of the picture's, its aspect log-uniform in [3/4, 4/3], as far as it fits in.

    Args:
        width: the width of the picture, in pixels.
        height: the height of the picture, in pixels.
        share: the smallest share of the area.
        draws: area, aspect, horizontal and vertical place, each in [0, 1).

    Returns:
        left, top, right, bottom, in pixels.
    """
    area = share + (1 - share) * draws[0]
    low, high = max(3 / 4, area * width / height), min(4 / 3, width / (area * height))
    low, high = min(low, 4 / 3), max(high, 3 / 4)  # no aspect fits in: take the nearest one and a smaller area
    aspect = low * (high / low) ** draws[1]
    w = math.sqrt(area * width * height * aspect)
    w *= min(1.0, width / w, height * aspect / w)
    h = min(w / aspect, height)
    left, top = draws[2] * (width - w), draws[3] * (height - h)
    return left, top, min(left + w, width), min(top + h, height)


def _cut(pixels: np.ndarray, box: Box, share: float, draws: Sequence[float]) -> np.ndarray:
    """Crops (..., H, W) uint8 and resizes it to the box; the crop is the same in all channels and frames."""
    where = choose_crop(pixels.shape[-1], pixels.shape[-2], share, draws)
    size = (box.shape[-1], box.shape[-2])
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    cut = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC, box=where)) for one in planes]
    return np.stack(cut).reshape(box.shape)


def _quantise(x: Tensor, box: Box) -> Tensor:
    """Turns x in the box into what is stored: uint8, or float32 for units that need it."""
    if box.unit not in EIGHT_BITS:
        return x.float()
    return ((x - box.low) / (box.high - box.low) * 255).round().clamp(0, 255).to(torch.uint8)


def count_epoch_examples(size: int | None, examples: int) -> int:
    """Returns the length of an epoch; `size` is None for a world, else that of the split: see `Recipe.examples`."""
    return examples if size is None else max(size, min(examples, PASSES * size))


def load_train_set(
    task: Task, box: Box, examples: int, *, whole: bool = False, read: Callable[[int, int], None]
) -> TrainSet:
    """Loads a train split into memory, if it fits in.

    Args:
        task: the source of the examples.
        box: the space of x.
        examples: how many examples of a world; of a fixed split, all are used.
        whole: True if only crops of whole pictures are needed; they are read on demand.
        read: called with the number of examples read so far, and of all.

    Raises:
        DataError: The split is empty.
    """
    size = task.size("train")
    n = examples if size is None else size
    if n < 1:
        raise DataError("there is nothing to train on: the train split is empty")
    epoch = count_epoch_examples(size, examples)
    width = 1 if box.unit in EIGHT_BITS else 4
    if (whole and isinstance(task, Pictures)) or n * width * math.prod(box.shape) > LIMIT:
        read(n, n)
        return TrainSet(task, box, n, epoch)
    x, y = torch.empty(n, *box.shape, dtype=torch.uint8 if width == 1 else torch.float32), torch.empty(n).long()
    for start in range(0, n, CHUNK):
        stop = min(n, start + CHUNK)
        some = task.load(box, start, stop, "train")
        x[start:stop], y[start:stop] = _quantise(some.x, box), some.y
        read(stop, n)
    return TrainSet(task, box, n, epoch, x, y)
