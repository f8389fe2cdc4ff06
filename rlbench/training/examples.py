"""The examples that a run learns from: held in memory, or read when they are needed; whole pictures for crops."""

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
PASSES = 16  # over a small split, at most, in an epoch
LIMIT = 2 << 30  # bytes that are held in memory; examples of more are read when they are needed
EIGHT_BITS = ("intensity", "log-mel")  # units of which 255 levels are enough


@runtime_checkable
class Pictures(Protocol):
    """What a task may have besides: whole pictures, which random crops are taken from."""

    def picture(self, i: int, channels: int, split: Split = "train") -> tuple[np.ndarray, int]:
        """(C, H, W) uint8 in its own size, and its class."""


@dataclass(frozen=True)
class TrainSet:
    """Examples of a task's train split.

    Attributes:
        size, epoch: how many there are, and how many an epoch has.
        x, y: (N, *box.shape) and (N,) int64 where they are held in memory. x is uint8, 255 levels of the box, or
            float32 of a box whose unit needs more.
    """

    task: Task
    box: Box
    size: int
    epoch: int
    x: Tensor | None = None
    y: Tensor | None = None

    def dequantise(self, x: Tensor) -> Tensor:
        """What `take` gives -> float32 in the box."""
        return self.box.low + (self.box.high - self.box.low) * (x.float() / 255) if x.dtype == torch.uint8 else x

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Examples of some rows: x (B, *box.shape), y (B,)."""
        if self.x is not None and self.y is not None:
            return self.x[rows], self.y[rows]
        found = [self.task.load(self.box, i, i + 1, "train") for i in rows.tolist()]
        return _quantise(torch.cat([one.x for one in found]), self.box), torch.cat([one.y for one in found])

    def take_crops(self, rows: Tensor, share: float, draws: Tensor) -> tuple[Tensor, Tensor]:
        """`take`, of random parts of whole pictures where the task has them, and else of the box's pixels.

        Args:
            rows: (B,). share: the least share of the area. draws: (B, 4) in [0, 1), see `part`.
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
    """A random part of a picture: left, top, right, bottom in pixels.

    Its area is uniform in [share, 1] of the picture's, its aspect log-uniform in [3/4, 4/3] as far as it fits in:
    Szegedy et al., 2015, https://arxiv.org/abs/1409.4842. `draws`: area, aspect, place across, place down, in [0, 1).
    """
    area = share + (1 - share) * draws[0]
    low, high = max(3 / 4, area * width / height), min(4 / 3, width / (area * height))
    low, high = min(low, 4 / 3), max(high, 3 / 4)  # no aspect fits in: the nearest one, and a smaller area
    aspect = low * (high / low) ** draws[1]
    w = math.sqrt(area * width * height * aspect)
    w *= min(1.0, width / w, height * aspect / w)
    h = min(w / aspect, height)
    left, top = draws[2] * (width - w), draws[3] * (height - h)
    return left, top, min(left + w, width), min(top + h, height)


def _cut(pixels: np.ndarray, box: Box, share: float, draws: Sequence[float]) -> np.ndarray:
    """(..., H, W) uint8 -> a random part of it in the box's shape, the same one of all channels and frames."""
    where = choose_crop(pixels.shape[-1], pixels.shape[-2], share, draws)
    size = (box.shape[-1], box.shape[-2])
    planes = pixels.reshape(-1, *pixels.shape[-2:])
    cut = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC, box=where)) for one in planes]
    return np.stack(cut).reshape(box.shape)


def _quantise(x: Tensor, box: Box) -> Tensor:
    """What is held of x in the box."""
    if box.unit not in EIGHT_BITS:
        return x.float()
    return ((x - box.low) / (box.high - box.low) * 255).round().clamp(0, 255).to(torch.uint8)


def count_epoch_examples(size: int | None, examples: int) -> int:
    """The examples of an epoch, of a split of a fixed size or, without one, of a world: see `Recipe.examples`."""
    return examples if size is None else max(size, min(examples, PASSES * size))


def load_train_set(
    task: Task, box: Box, examples: int, *, whole: bool = False, read: Callable[[int, int], None]
) -> TrainSet:
    """The train split: `examples` of a world, or all of a fixed split; rendered or read once if it fits in memory.

    Args:
        whole: it is only asked for `crops` of whole pictures, so nothing is held if the task has them.
        read: told how many of how many are there.

    Raises:
        DataError: the split is empty.
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
