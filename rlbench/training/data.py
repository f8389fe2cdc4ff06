"""What a run learns from: a pool of examples in memory, the anchors and captions of its classes, augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from rlbench import registry
from rlbench.core import Box, Encoder, Label, Modality, Suite, Task
from rlbench.errors import DataError
from rlbench.heads import prompts, zero_shot
from rlbench.training.recipe import Recipe

CHUNK = 512
PASSES = 16  # over a small split, at most, in an epoch


@dataclass(frozen=True)
class Pool:
    """Examples of a task's train split; x (N, *box.shape) uint8, 255 levels of the box; y (N,) int64.

    `epoch` is how many examples an epoch has.
    """

    task: Task
    box: Box
    x: Tensor
    y: Tensor
    epoch: int

    def batches(self, size: int, g: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order: `epoch` examples, a small split several times over; the last rest is left out."""
        rounds = range(-(-self.epoch // len(self.y)))
        order = torch.cat([torch.randperm(len(self.y), generator=g) for _ in rounds])[: self.epoch]
        for start in range(0, max(1, self.epoch - size + 1), size):
            rows = order[start : start + size]
            yield self.unit(self.x[rows]), self.y[rows]

    def unit(self, x: Tensor) -> Tensor:
        """uint8 levels -> float32 in the box."""
        return self.box.low + (self.box.high - self.box.low) * (x.float() / 255)


def task_of(recipe: Recipe, modality: Modality, suite: Suite | None) -> Task:
    """The suite's task, or the modality's world in the recipe's domain."""
    if suite is not None:
        return suite.task
    return cast(Task, registry.make("task", f"{modality}-world", {"domain": recipe.domain, "subset": recipe.subset}))


def validation_task(modality: Modality, suite: Suite | None, subset: str = "seen") -> Task | None:
    """What a run is measured on while it trains: the sensor domain, or the suite's own validation split if any."""
    if suite is None:
        return cast(Task, registry.make("task", f"{modality}-world", {"subset": subset}))
    return suite.task if subset == "seen" and suite.task.size("val") else None


def pool(task: Task, box: Box, examples: int, *, read: Callable[[int, int], None]) -> Pool:
    """Renders or reads the train split once: `examples` of a world, or all of a fixed split.

    `read` is told how many of how many are there.

    Raises:
        DataError: the split is empty.
    """
    size = task.size("train")
    n = examples if size is None else size
    if n < 1:
        raise DataError("there is nothing to train on: the train split is empty")
    x, y = torch.empty(n, *box.shape, dtype=torch.uint8), torch.empty(n, dtype=torch.int64)
    for start in range(0, n, CHUNK):
        stop = min(n, start + CHUNK)
        part = task.load(box, start, stop, "train")
        x[start:stop] = ((part.x - box.low) / (box.high - box.low) * 255).round().clamp(0, 255).to(torch.uint8)
        y[start:stop] = part.y
        read(stop, n)
    return Pool(task, box, x, y, max(n, examples if size is None else min(examples, PASSES * n)))


def classes_of(recipe: Recipe, task: Task) -> tuple[Label, ...]:
    """The classes that the loss compares with; the task's own come first, so that labels stay."""
    if recipe.prompts == "all" and hasattr(task, "world_classes"):
        rest = [label for label in task.world_classes if label not in task.classes]
        return (*task.classes, *rest)
    return task.classes


def anchors(encoder: Encoder, recipe: Recipe, task: Task, modality: Modality) -> Tensor:
    """(C, D) unit anchors of the prompt ensembles."""
    return zero_shot(encoder, modality, classes_of(recipe, task), task.templates).anchors


def captions(encoder: Encoder, task: Task) -> Tensor:
    """(C, P, D): the embedding of every class in every template."""
    return torch.stack([encoder.embed_text(prompts(label.name, task.templates)) for label in task.classes])


def augmented(x: Tensor, recipe: Recipe, modality: Modality, g: torch.Generator) -> Tensor:
    """x shifted by one random offset (audio: in time alone) and, where the recipe allows it, mirrored."""
    if recipe.roll:
        rows, columns = torch.randint(-recipe.roll, recipe.roll + 1, (2,), generator=g).tolist()
        x = x.roll((0 if modality == "audio" else rows, columns), (-2, -1))
    if recipe.flip and int(torch.randint(0, 2, (), generator=g)):
        x = x.flip(-1)
    return x
