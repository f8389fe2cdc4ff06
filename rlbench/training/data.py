"""What a run learns from: examples in memory, the batch of every step, the anchors and captions of its classes.

A batch depends on the recipe's seed and the step alone: a process of several takes its rows of it, and a resumed run
goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlbench import registry
from rlbench.core import Box, Encoder, Label, Modality, Suite, Task
from rlbench.errors import DataError
from rlbench.heads import prompts, zero_shot
from rlbench.seeds import generator
from rlbench.training.recipe import Recipe

CHUNK = 512
PASSES = 16  # over a small split, at most, in an epoch


def drawn(*parts: object) -> torch.Generator:
    """A torch generator that depends on the text of `parts` alone."""
    return torch.Generator().manual_seed(int(generator(*parts).integers(2**62)))


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

    def unit(self, x: Tensor) -> Tensor:
        """uint8 levels -> float32 in the box."""
        return self.box.low + (self.box.high - self.box.low) * (x.float() / 255)


@dataclass(frozen=True)
class Part:
    """What a process has of a batch: rows start..stop-1 of `of`; x (B, *shape) uint8, y (B,) int64.

    noise: (B, *shape) in [-1, 1], the adversary's start. template: (B,) in [0, 1), which caption.
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    template: Tensor


@dataclass(frozen=True)
class Batches(Dataset[list[Part]]):
    """The batches of one process, by step: as many parts as the recipe accumulates.

    `share`: which process of how many. `name`: of the pool, part of its random draws.
    """

    pool: Pool
    recipe: Recipe
    modality: Modality
    size: int
    share: tuple[int, int] = (0, 1)
    name: str = "labelled"
    order: dict[int, Tensor] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.pool.epoch // self.size)

    def rows(self, step: int) -> Tensor:
        """The examples of a step: one epoch in random order, a small split several times over; the rest is left out."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch not in self.order:
            self.order.clear()
            n = len(self.pool.y)
            g = drawn(self.recipe.seed, self.name, "order", epoch)
            rounds = range(-(-self.pool.epoch // n))
            self.order[epoch] = torch.cat([torch.randperm(n, generator=g) for _ in rounds])[: self.pool.epoch]
        return self.order[epoch][at * self.size : (at + 1) * self.size]

    def __getitem__(self, step: int) -> list[Part]:
        rows, g = self.rows(step), drawn(self.recipe.seed, self.name, "step", step)
        x = augmented(self.pool.x[rows], self.recipe, self.modality, g)
        whole = Part(
            x=x,
            y=self.pool.y[rows],
            noise=2 * torch.rand(x.shape, generator=g) - 1,
            template=torch.rand(len(rows), generator=g),
        )
        parts = self.recipe.accumulate
        return [_rows(whole, j * self.share[1] + self.share[0], parts * self.share[1]) for j in range(parts)]


def _rows(whole: Part, k: int, of: int) -> Part:
    """The k-th of equal parts."""
    size = len(whole.y) // of
    return replace(whole, **{name: value[k * size : (k + 1) * size] for name, value in vars(whole).items()})


def augmented(x: Tensor, recipe: Recipe, modality: Modality, g: torch.Generator) -> Tensor:
    """x shifted by one random offset (audio: in time alone) and, where the recipe allows it, mirrored."""
    if recipe.roll:
        rows, columns = torch.randint(-recipe.roll, recipe.roll + 1, (2,), generator=g).tolist()
        x = x.roll((0 if modality == "audio" else rows, columns), (-2, -1))
    if recipe.flip:
        mirrored = torch.rand(len(x), generator=g) < 0.5
        x = torch.where(mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    return x


def task_of(recipe: Recipe, modality: Modality, suite: Suite | None) -> Task:
    """The suite's task, or the modality's world in the recipe's domain."""
    if suite is not None:
        return suite.task
    return cast(Task, registry.make("task", f"{modality}-world", {"domain": recipe.domain, "subset": recipe.subset}))


def replay_task(modality: Modality) -> Task:
    """What unlabelled examples are replayed from: the clean domain of the modality's world, all its classes."""
    return cast(Task, registry.make("task", f"{modality}-world", {"domain": "web", "subset": "all"}))


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


def anchors(encoder: Encoder, classes: tuple[Label, ...], task: Task, modality: Modality) -> Tensor:
    """(C, D) unit anchors of the prompt ensembles."""
    return zero_shot(encoder, modality, classes, task.templates).anchors


def captions(encoder: Encoder, task: Task) -> Tensor:
    """(C, P, D): the embedding of every class in every template."""
    with torch.no_grad():
        return torch.stack([encoder.embed_text(prompts(label.name, task.templates)).float() for label in task.classes])
