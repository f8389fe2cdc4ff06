"""Training data: the batch of every step, and the anchors and captions of the classes.

A batch depends only on the recipe's seed and the step, so that a resumed run sees the same batches, and each of several
processes takes its own rows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlbench.core import Encoder, Label, Modality, Suite, Task, registry
from rlbench.core.seeds import generator
from rlbench.core.suite import load_suite, load_suites
from rlbench.encoders.heads import prompts, zero_shot
from rlbench.encoders.outputs import embed_text
from rlbench.training.examples import TrainSet
from rlbench.training.recipe import Recipe


def make_generator(*parts: object) -> torch.Generator:
    """Makes a torch generator whose seed is a hash of the text of `parts`."""
    return torch.Generator().manual_seed(int(generator(*parts).integers(2**62)))


@dataclass(frozen=True)
class MicroBatch:
    """The rows of a batch that pass through the tower at once.

    Attributes:
        x: (B, *shape), as `TrainSet.take` returns it.
        y: (B,) int64 labels.
        noise: (B, *shape) in [-1, 1], the start of the adversary.
        template: (B,) in [0, 1), which chooses the template of the caption.
        rows: (B,) indices of the examples.
    """

    x: Tensor
    y: Tensor
    noise: Tensor
    template: Tensor
    rows: Tensor


@dataclass(frozen=True)
class _Draws:
    """The random draws of a whole batch, made before any example is read.

    Attributes:
        rows: (B,) indices of the examples.
        shift: (B, 2) in pixels, down and across; the same for all rows.
        mirrored: (B,) bool.
        noise: (B, *shape), see MicroBatch.
        template: (B,), see MicroBatch.
        crop: (B, 4) in [0, 1), see `choose_crop`.
    """

    rows: Tensor
    shift: Tensor
    mirrored: Tensor
    noise: Tensor
    template: Tensor
    crop: Tensor

    def share(self, k: int, of: int) -> _Draws:
        """Returns the k-th of `of` equal parts."""
        size = len(self.rows) // of
        return replace(self, **{name: value[k * size : (k + 1) * size] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Batches(Dataset[list[MicroBatch]]):
    """The batches of one process, by step; each is a list of `recipe.accumulate` micro-batches.

    Attributes:
        data: the examples.
        size: the rows of a batch, over all processes.
        share: the index of this process and the number of processes; a process reads only its own rows.
        name: the name of the stream, which seeds its random draws.
        order: a cache of the current epoch's order.
    """

    data: TrainSet
    recipe: Recipe
    modality: Modality
    size: int
    share: tuple[int, int] = (0, 1)
    name: str = "labelled"
    order: dict[int, Tensor] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.data.epoch // self.size)

    def rows(self, step: int) -> Tensor:
        """Returns the indices of a step's examples.

        An epoch takes the examples in random order, those of a small split several times; an incomplete last batch is
        left out.
        """
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch not in self.order:
            self.order.clear()
            g, n = make_generator(self.recipe.seed, self.name, "order", epoch), self.data.size
            length = max(self.data.epoch, self.size)
            rounds = range(-(-length // n))
            self.order[epoch] = torch.cat([torch.randperm(n, generator=g) for _ in rounds])[:length]
        return self.order[epoch][at * self.size : (at + 1) * self.size]

    def __getitem__(self, step: int) -> list[MicroBatch]:
        draws, (process, processes), parts = self.draw(step), self.share, self.recipe.accumulate
        return [self.read_rows(draws.share(j * processes + process, parts * processes)) for j in range(parts)]

    def draw(self, step: int) -> _Draws:
        """Makes all random draws of a step."""
        recipe, rows, g = self.recipe, self.rows(step), make_generator(self.recipe.seed, self.name, "step", step)
        n, shift = len(rows), torch.zeros(2, dtype=torch.int64)
        if recipe.roll:
            shift = torch.randint(-recipe.roll, recipe.roll + 1, (2,), generator=g)
        return _Draws(
            rows=rows,
            shift=shift.expand(n, 2),
            mirrored=torch.rand(n, generator=g) < 0.5 if recipe.flip else torch.zeros(n, dtype=torch.bool),
            noise=2 * torch.rand((n, *self.data.box.shape), generator=g) - 1,
            template=torch.rand(n, generator=g),
            crop=torch.rand((n, 4), generator=g),
        )

    def read_rows(self, draws: _Draws) -> MicroBatch:
        """Reads rows and augments them: cropped if the recipe says so, shifted (audio: only in time), and mirrored."""
        share = self.recipe.crop
        x, y = self.data.take_crops(draws.rows, share, draws.crop) if share else self.data.take(draws.rows)
        down, across = draws.shift[0].tolist()
        x = x.roll((0 if self.modality == "audio" else down, across), (-2, -1))
        x = torch.where(draws.mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
        return MicroBatch(x, y, draws.noise, draws.template, draws.rows)


def choose_task(recipe: Recipe, modality: Modality, suite: Suite | None) -> Task:
    """Returns the suite's task, or the recipe's world in its domain."""
    if suite is None:
        return make_world(recipe, modality, domain=recipe.domain, subset=recipe.subset)
    return list_tasks(suite)[modality]


def list_tasks(suite: Suite) -> Mapping[Modality, Task]:
    """Lists the suite's task by modality; a task of several sensors has one for each."""
    alone = {cast(Modality, suite.modality): suite.task}
    return cast("Mapping[Modality, Task]", getattr(suite.task, "tasks", alone))


def load_train_suite(name: str) -> Suite:
    """Loads a suite to train on: of a file with several parts, the first one with several sensors.

    Raises:
        UnknownName, SuiteError: See `load_suite`, for a suite without several sensors.
    """
    joint = [suite for suite in load_suites(name) if len(list_tasks(suite)) > 1]
    return joint[0] if joint else load_suite(name)


def make_world(recipe: Recipe, modality: Modality, **fields: str) -> Task:
    """Makes the recipe's procedural world, as one modality sees it.

    Args:
        recipe: gives the world; None: the world of the modality alone.
        modality: what the examples are.
        fields: the domain and the subset.

    Raises:
        UnknownName: There is no such world.
        FieldError: The task is not a world, or does not have the modality.
    """
    if recipe.world is None:
        return cast(Task, registry.make("task", f"{modality}-world", fields))
    return cast(Task, registry.make("task", recipe.world, {"modality": modality, **fields}))


def make_replay_task(recipe: Recipe, modality: Modality) -> Task:
    """Makes the task of replayed, unlabelled examples: the clean domain of the world, all its classes."""
    return make_world(recipe, modality, domain="web", subset="all")


def make_validation_task(recipe: Recipe, modality: Modality, suite: Suite | None, subset: str = "seen") -> Task | None:
    """Makes the task of validation: the sensor domain, or the suite's own validation split if it has one."""
    if suite is None:
        return make_world(recipe, modality, subset=subset)
    task = list_tasks(suite)[modality]
    return task if subset == "seen" and task.size("val") != 0 else None


def list_classes(recipe: Recipe, task: Task) -> tuple[Label, ...]:
    """Lists the classes that the loss compares with; the task's own come first, so that labels stay valid."""
    if recipe.prompts == "all" and hasattr(task, "world_classes"):
        rest = [label for label in task.world_classes if label not in task.classes]
        return (*task.classes, *rest)
    return task.classes


def embed_anchors(encoder: Encoder, classes: tuple[Label, ...], task: Task, modality: Modality) -> Tensor:
    """Embeds the prompt ensembles of C classes as unit anchors (C, D)."""
    return zero_shot(encoder, modality, classes, task.templates).anchors


def embed_captions(encoder: Encoder, task: Task) -> Tensor:
    """Embeds every class in every template: (C, P, D)."""
    with torch.no_grad():
        texts = [prompts(label.name, task.templates, label.phrase) for label in task.classes]
        return torch.stack([embed_text(encoder, some) for some in texts])
