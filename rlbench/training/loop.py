"""The training loop of all methods: batches, an adversary that raises the method's own loss, an optimiser.

A step depends only on the weights, the recipe and the number of the step. So a run that is killed and resumed ends with
the same weights as an undisturbed one, and several processes compute what one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from rlbench.core import Ball, Label, Modality, Suite, Threat
from rlbench.core.errors import RLBenchError
from rlbench.core.threat import ball_of, parse_eps
from rlbench.training.adversary import attack_batch
from rlbench.training.data import Batches, MicroBatch
from rlbench.training.examples import TrainSet
from rlbench.training.gather import all_gather
from rlbench.training.lora import merge
from rlbench.training.memory import Memory, Origin
from rlbench.training.optimiser import compute_lr_factor, make_optimiser
from rlbench.training.parts import Streams, count_rows, double_pieces, split_batches
from rlbench.training.recipe import Recipe
from rlbench.training.types import Batch, Objective, Trainable

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Step:
    """A progress report of a run.

    Attributes:
        modality: the modality in training.
        step: the number of finished steps or of loaded examples.
        steps: the number of all steps or examples.
        loss: the loss of the step; None for examples.
        val: the validation accuracies by name, in [0, 1], after steps with a validation.
        what: "example" while examples are loaded, before the first step.
    """

    modality: Modality
    step: int
    steps: int
    loss: float | None = None
    val: Mapping[str, float] = field(default_factory=dict)
    what: Literal["step", "example"] = "step"


@dataclass(frozen=True)
class Stream:
    """One kind of the rows of a batch: labelled or replayed.

    Attributes:
        data: the examples.
        size: the rows of a batch, over all processes.
        objective: the loss of these rows.
        weight: the weight of that loss.
        classes: the C classes that the loss compares with.
        anchors: (C, D) unit rows.
        captions: (K, P, D) unit rows, the embedding of each of the task's K classes in each of its P templates.
        name: seeds the random draws.
    """

    data: TrainSet
    size: int
    objective: Objective
    weight: float
    classes: tuple[Label, ...]
    anchors: Tensor
    captions: Tensor
    name: str = "labelled"


@dataclass(frozen=True)
class Run:
    """The training of one modality; `streams` are the kinds of rows of a batch, labelled ones first."""

    recipe: Recipe
    modality: Modality
    suite: Suite | None
    encoder: Trainable
    original: Trainable | None
    streams: tuple[Stream, ...]

    @cached_property
    def ball(self) -> Ball:
        return ball_of(Threat("linf", parse_eps(self.recipe.eps)), self.streams[0].data.box)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.streams[0].data.epoch // self.streams[0].size)

    @property
    def steps(self) -> int:
        return self.recipe.steps or self.recipe.epochs * self.steps_per_epoch


class Trainer:
    """Trains a run's tower; `step(k)` is the k-th step.

    Args:
        run: what to train.
        accelerator: devices, processes and precision, by Hugging Face's accelerate.
        memory: the latest features, which modalities that are trained together share.
    """

    def __init__(self, run: Run, accelerator: Accelerator, memory: Memory) -> None:
        self.run, self.accelerator, self.memory = run, accelerator, memory
        self.tower = run.encoder.tower(run.modality).to(accelerator.device).eval()
        if run.original is not None:
            run.original.tower(run.modality).to(accelerator.device)
        parameters = [p for p in self.tower.parameters() if p.requires_grad]
        self.model, self.optimiser = accelerator.prepare(self.tower, make_optimiser(run.recipe, parameters))
        self.average: AveragedModel | None = None
        if run.recipe.ema:
            mean = get_ema_multi_avg_fn(run.recipe.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.tower, multi_avg_fn=mean)
        self.loaders: list[Iterator[list[MicroBatch]]] = []
        self.pieces = 1  # of each micro-batch; more after memory ran out

    def start(self, step: int) -> None:
        """Starts the loaders at a step, which is the next one."""
        share = self.accelerator.process_index, self.accelerator.num_processes
        self.loaders = []
        for s in self.run.streams:
            data = Batches(s.data, self.run.recipe, self.run.modality, s.size, share, s.name)
            steps, workers = range(step, self.run.steps), self.run.recipe.loaders
            self.loaders.append(iter(DataLoader(data, batch_size=None, sampler=steps, num_workers=workers)))

    def step(self, k: int) -> float:
        """Does one step of the optimiser; returns the loss of the whole batch.

        Raises:
            RLBenchError: The loss is not finite, or not even parts of few rows fit in memory.
        """
        recipe = self.run.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * compute_lr_factor(k, self.run.steps, recipe.warmup)
        value = float(self.accelerator.reduce(self.accumulate([next(loader) for loader in self.loaders]), "mean"))
        if not math.isfinite(value):
            raise RLBenchError(f"the loss is {value} at step {k + 1} of {self.run.steps}; try a smaller lr")
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.tower)
        return value

    def accumulate(self, batches: Streams) -> Tensor:
        """Adds up the gradients of a step and returns its loss; where memory runs out, again in parts half as large."""
        while True:
            before = self.memory.copy_means()
            try:
                return self.add_up(split_batches(batches, self.pieces))
            except torch.OutOfMemoryError:
                self.optimiser.zero_grad()
                self.memory.restore_means(before)
            self.pieces = double_pieces(batches, self.pieces, self.accelerator.num_processes)

    def add_up(self, batches: list[list[MicroBatch]]) -> Tensor:
        """Adds up the gradients of parts, each with rows of every stream; returns the mean loss over all rows."""
        rows, total = sum(map(count_rows, batches)), torch.zeros((), device=self.accelerator.device)
        for j, parts in enumerate(batches):
            with nullcontext() if j == len(batches) - 1 else self.accelerator.no_sync(self.model):
                loss = self.loss(parts) / (rows / count_rows(parts))
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def loss(self, parts: list[MicroBatch]) -> Tensor:
        """Returns the mean loss over labelled and replayed rows, a micro-batch of each stream."""
        losses = [s.weight * self.losses(s, part).sum() for s, part in zip(self.run.streams, parts, strict=True)]
        return torch.stack(losses).sum() / count_rows(parts)

    def losses(self, stream: Stream, part: MicroBatch) -> Tensor:
        """Returns the loss (B,) of a stream's rows, at adversarial examples that raise that loss."""
        objective, device = stream.objective, self.accelerator.device
        x, needs = stream.data.dequantise(part.x.to(device)), objective.needs
        batch = self.make_batch(stream, part, x)
        f = self.features(self.model, x) if "f" in needs else batch.captions
        origin = Origin(self.run.modality, stream.classes, part.rows.to(device), stream.data.size)
        batch = self.memory.exchange(f, origin, batch, needs)
        if "f_adv" not in needs:
            return objective.loss(f, f, batch)
        fixed, recipe = f.detach(), self.run.recipe

        def adversary_loss(v: Tensor) -> Tensor:
            return objective.adversary_loss(self.features(self.tower, v), fixed, batch)

        x_adv = attack_batch(
            x,
            adversary_loss,
            self.run.ball,
            noise=part.noise.to(device),
            steps=recipe.attack_steps,
            step=recipe.attack_step,
            momentum=recipe.attack_momentum,
        )
        if "f0_adv" in needs:
            batch = replace(batch, f0_adv=self.embed_original(x_adv))
        f_adv = self.features(self.model, x_adv)
        self.memory.remember(f_adv, origin, batch, needs)
        return objective.loss(f, f_adv, batch)

    def make_batch(self, stream: Stream, part: MicroBatch, x: Tensor) -> Batch:
        """Makes what the loss knows besides the features: f0, and a caption of each example in a random template."""
        device = self.accelerator.device
        y, captions = part.y.to(device), stream.captions.to(device)
        template = (part.template.to(device) * captions.shape[1]).long()
        return Batch(
            y=y,
            anchors=stream.anchors.to(device),
            captions=captions[y, template],
            f0=self.embed_original(x) if "f0" in stream.objective.needs else None,
            gather=self.gather,
        )

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Computes the features of x in the recipe's precision and returns them as float32 (B, D)."""
        with self.accelerator.autocast():
            f: Tensor = model(x)
        return f.float()

    def embed_original(self, x: Tensor) -> Tensor:
        """Computes the frozen original's features of x, (B, D)."""
        assert self.run.original is not None, "a recipe whose objective needs the original has one"
        with torch.no_grad():
            return self.features(self.run.original.tower(self.run.modality), x)

    def gather(self, rows: Tensor) -> Tensor:
        """Gathers the rows of all processes, in their order; differentiable."""
        return rows if self.accelerator.num_processes == 1 else all_gather(rows)

    @contextmanager
    def result_weights(self) -> Iterator[None]:
        """In the block, the tower has the weights to measure and save: averaged, if the recipe says so, and merged."""
        own = {name: value.clone() for name, value in self.tower.state_dict().items()} if self.average else {}
        if self.average is not None:
            self.tower.load_state_dict(self.average.module.state_dict())
        try:
            with merge(self.tower) if self.run.recipe.lora else nullcontext():
                yield
        finally:
            if self.average is not None:
                self.tower.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """Returns all that the next step depends on."""
        return {
            "tower": self.tower.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "memory": self.memory.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what `state()` returned."""
        self.tower.load_state_dict(state["tower"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.memory.restore(state["memory"], self.accelerator.device)
