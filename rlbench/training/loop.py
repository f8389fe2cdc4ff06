"""One loop for every method: batches, an adversary that raises the method's own loss, an optimiser.

A step depends on the weights, the recipe and its number alone, so that a run that was killed ends where an undisturbed
one does, and several processes compute what one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
from rlbench.training.means import ClassMeans
from rlbench.training.recipe import Recipe
from rlbench.training.types import Batch, Objective, Trainable

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Step:
    """What a run reports: the finished step of how many, the loss, and where it was measured the validation's shares.

    Before the first step: how many examples of how many are there (`what` is "example"), without a loss.
    """

    modality: Modality
    step: int
    steps: int
    loss: float | None = None
    val: Mapping[str, float] = field(default_factory=dict)
    what: Literal["step", "example"] = "step"


@dataclass(frozen=True)
class Stream:
    """A kind of a batch's rows: their examples, their loss, and its weight; anchors (C, D), captions (C, P, D)."""

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
    """Everything that one modality's training holds; `streams` are the kinds of rows of a batch."""

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


def compute_lr_factor(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share: linear over the warm-up, then half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


class Trainer:
    """A run's tower, optimiser and average; `step(k)` is the k-th step.

    Args:
        accelerator: of Hugging Face accelerate: devices, processes, precision.
        means: the classes' means, shared by the modalities that are trained together.
    """

    def __init__(self, run: Run, accelerator: Accelerator, means: ClassMeans) -> None:
        self.run, self.accelerator, self.means = run, accelerator, means
        self.tower = run.encoder.tower(run.modality).to(accelerator.device).eval()
        if run.original is not None:
            run.original.tower(run.modality).to(accelerator.device)
        parameters = [p for p in self.tower.parameters() if p.requires_grad]
        self.model, self.optimiser = accelerator.prepare(self.tower, _optimiser(run.recipe, parameters))
        self.average: AveragedModel | None = None
        if run.recipe.ema:
            mean = get_ema_multi_avg_fn(run.recipe.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.tower, multi_avg_fn=mean)
        self.loaders: list[Iterator[list[MicroBatch]]] = []

    def start(self, step: int) -> None:
        """Makes `step` the next one."""
        share = self.accelerator.process_index, self.accelerator.num_processes
        self.loaders = []
        for s in self.run.streams:
            data = Batches(s.data, self.run.recipe, self.run.modality, s.size, share, s.name)
            steps, workers = range(step, self.run.steps), self.run.recipe.loaders
            self.loaders.append(iter(DataLoader(data, batch_size=None, sampler=steps, num_workers=workers)))

    def step(self, k: int) -> float:
        """One step of the optimiser; returns the loss of the whole batch.

        Raises:
            RLBenchError: it is not finite.
        """
        recipe = self.run.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * compute_lr_factor(k, self.run.steps, recipe.warmup)
        batches, total = [next(loader) for loader in self.loaders], torch.zeros((), device=self.accelerator.device)
        for j in range(recipe.accumulate):
            last = j == recipe.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self.loss([parts[j] for parts in batches]) / recipe.accumulate
                self.accelerator.backward(loss)
            total += loss.detach()
        value = float(self.accelerator.reduce(total, reduction="mean"))
        if not math.isfinite(value):
            raise RLBenchError(f"the loss is {value} at step {k + 1} of {self.run.steps}; try a smaller lr")
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.tower)
        return value

    def loss(self, parts: list[MicroBatch]) -> Tensor:
        """The mean loss of a part of the batch, over its labelled rows and those that are replayed."""
        rows = sum(len(part.y) for part in parts)
        losses = [s.weight * self.losses(s, part).sum() for s, part in zip(self.run.streams, parts, strict=True)]
        return torch.stack(losses).sum() / rows

    def losses(self, stream: Stream, part: MicroBatch) -> Tensor:
        """(B,): the method's loss of some rows; x' is made on the way, by raising that loss."""
        objective, device = stream.objective, self.accelerator.device
        x, needs = stream.data.dequantise(part.x.to(device)), objective.needs
        batch = self.make_batch(stream, part, x)
        f = self.features(self.model, x) if "f" in needs else batch.captions
        if "means" in needs:
            self.means.update(self.run.modality, stream.classes, batch.gather(f), batch.gather(batch.y))
            batch = _with(batch, means=self.means.look_up(stream.classes, batch.anchors))
        if "f_adv" not in needs:
            return objective.loss(f, f, batch)
        fixed, recipe = f.detach(), self.run.recipe

        def raised(v: Tensor) -> Tensor:
            return objective.adversary_loss(self.features(self.tower, v), fixed, batch)

        x_adv = attack_batch(
            x,
            raised,
            self.run.ball,
            noise=part.noise.to(device),
            steps=recipe.attack_steps,
            step=recipe.attack_step,
            momentum=recipe.attack_momentum,
        )
        if "f0_adv" in needs:
            batch = _with(batch, f0_adv=self.embed_original(x_adv))
        return objective.loss(f, self.features(self.model, x_adv), batch)

    def make_batch(self, stream: Stream, part: MicroBatch, x: Tensor) -> Batch:
        """What the loss knows before there is an x': f0, and for each example a caption in a random template."""
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
        """The tower's features of x in the recipe's precision, as float32 (B, D)."""
        with self.accelerator.autocast():
            f: Tensor = model(x)
        return f.float()

    def embed_original(self, x: Tensor) -> Tensor:
        """The frozen original's features of x, (B, D)."""
        assert self.run.original is not None, "a recipe whose objective needs it has an original"
        with torch.no_grad():
            return self.features(self.run.original.tower(self.run.modality), x)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in their order; gradients flow back."""
        return rows if self.accelerator.num_processes == 1 else all_gather(rows)

    @contextmanager
    def result_weights(self) -> Iterator[None]:
        """The tower as it is measured and saved: with its average's weights, if there is one, and without adapters."""
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
        """All that the next step depends on."""
        return {
            "tower": self.tower.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "means": self.means.rows,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()`."""
        self.tower.load_state_dict(state["tower"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        device = self.accelerator.device
        of = {name: {m: mean.to(device) for m, mean in means.items()} for name, means in state["means"].items()}
        self.means.rows = of


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


def _with(batch: Batch, **fields: Tensor) -> Batch:
    return Batch(**{**vars(batch), **fields})
