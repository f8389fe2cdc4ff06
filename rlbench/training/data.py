"""What a run learns from: the batch of every step, the anchors and captions of its classes.

A batch depends on the recipe's seed and the step alone: a process of several takes its rows of it, and a resumed run
goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlbench.core import Encoder, Label, Modality, Suite, Task, registry
from rlbench.core.seeds import generator
from rlbench.encoders.heads import prompts, zero_shot
from rlbench.encoders.outputs import embed_text
from rlbench.training.examples import TrainSet
from rlbench.training.recipe import Recipe


def make_generator(*parts: object) -> torch.Generator:
    """A torch generator that depends on the text of `parts` alone."""
    return torch.Generator().manual_seed(int(generator(*parts).integers(2**62)))


@dataclass(frozen=True)
class MicroBatch:
    """Some rows of a batch: x (B, *shape) as its pool gives it, y (B,) int64.

    noise: (B, *shape) in [-1, 1], the adversary's start. template: (B,) in [0, 1), which caption.
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    template: Tensor


@dataclass(frozen=True)
class _Draws:
    """What is drawn for a whole batch, row by row, before any example is read.

    rows: (B,) which examples. shift: (B, 2), the same for all. mirrored: (B,) bool. noise, template: see MicroBatch.
    crop: (B, 4) in [0, 1).
    """

    rows: Tensor
    shift: Tensor
    mirrored: Tensor
    noise: Tensor
    template: Tensor
    crop: Tensor

    def share(self, k: int, of: int) -> _Draws:
        """The k-th of equal parts."""
        size = len(self.rows) // of
        return replace(self, **{name: value[k * size : (k + 1) * size] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Batches(Dataset[list[MicroBatch]]):
    """The batches of one process, by step: as many parts as the recipe accumulates.

    `share`: which process of how many; it reads its own rows alone. `name`: of the pool, part of its random draws.
    """

    pool: TrainSet
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
            g, n = make_generator(self.recipe.seed, self.name, "order", epoch), self.pool.size
            length = max(self.pool.epoch, self.size)
            rounds = range(-(-length // n))
            self.order[epoch] = torch.cat([torch.randperm(n, generator=g) for _ in rounds])[:length]
        return self.order[epoch][at * self.size : (at + 1) * self.size]

    def __getitem__(self, step: int) -> list[MicroBatch]:
        draws, (process, processes), parts = self.draws(step), self.share, self.recipe.accumulate
        return [self.read_part(draws.share(j * processes + process, parts * processes)) for j in range(parts)]

    def draws(self, step: int) -> _Draws:
        """All that is random about a step."""
        recipe, rows, g = self.recipe, self.rows(step), make_generator(self.recipe.seed, self.name, "step", step)
        n, shift = len(rows), torch.zeros(2, dtype=torch.int64)
        if recipe.roll:
            shift = torch.randint(-recipe.roll, recipe.roll + 1, (2,), generator=g)
        return _Draws(
            rows=rows,
            shift=shift.expand(n, 2),
            mirrored=torch.rand(n, generator=g) < 0.5 if recipe.flip else torch.zeros(n, dtype=torch.bool),
            noise=2 * torch.rand((n, *self.pool.box.shape), generator=g) - 1,
            template=torch.rand(n, generator=g),
            crop=torch.rand((n, 4), generator=g),
        )

    def read_part(self, draws: _Draws) -> MicroBatch:
        """Reads some rows: a crop where the recipe has one, shifted (audio: in time alone), and mirrored."""
        share = self.recipe.crop
        x, y = self.pool.take_crops(draws.rows, share, draws.crop) if share else self.pool.take(draws.rows)
        down, across = draws.shift[0].tolist()
        x = x.roll((0 if self.modality == "audio" else down, across), (-2, -1))
        x = torch.where(draws.mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
        return MicroBatch(x, y, draws.noise, draws.template)


def choose_task(recipe: Recipe, modality: Modality, suite: Suite | None) -> Task:
    """The suite's task, or the modality's world in the recipe's domain."""
    if suite is not None:
        return suite.task
    return cast(Task, registry.make("task", f"{modality}-world", {"domain": recipe.domain, "subset": recipe.subset}))


def make_replay_task(modality: Modality) -> Task:
    """What unlabelled examples are replayed from: the clean domain of the modality's world, all its classes."""
    return cast(Task, registry.make("task", f"{modality}-world", {"domain": "web", "subset": "all"}))


def make_validation_task(modality: Modality, suite: Suite | None, subset: str = "seen") -> Task | None:
    """What a run is measured on while it trains: the sensor domain, or the suite's own validation split if any."""
    if suite is None:
        return cast(Task, registry.make("task", f"{modality}-world", {"subset": subset}))
    return suite.task if subset == "seen" and suite.task.size("val") else None


def list_classes(recipe: Recipe, task: Task) -> tuple[Label, ...]:
    """The classes that the loss compares with; the task's own come first, so that labels stay."""
    if recipe.prompts == "all" and hasattr(task, "world_classes"):
        rest = [label for label in task.world_classes if label not in task.classes]
        return (*task.classes, *rest)
    return task.classes


def embed_anchors(encoder: Encoder, classes: tuple[Label, ...], task: Task, modality: Modality) -> Tensor:
    """(C, D) unit anchors of the prompt ensembles."""
    return zero_shot(encoder, modality, classes, task.templates).anchors


def embed_captions(encoder: Encoder, task: Task) -> Tensor:
    """(C, P, D): the embedding of every class in every template."""
    with torch.no_grad():
        texts = [prompts(label.name, task.templates, label.phrase) for label in task.classes]
        return torch.stack([embed_text(encoder, some) for some in texts])
