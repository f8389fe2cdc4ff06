"""The training loop of all methods: batches, an adversary that raises the method's own loss, an optimiser.

A step depends only on the weights, the recipe and the number of the step. So a run that is killed and resumed ends with
the same weights as an undisturbed one, and several processes compute what one does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from rlbench.core import Modality
from rlbench.core.errors import RLBenchError
from rlbench.training.awp import list_perturbed, perturb, scale_perturbation
from rlbench.training.data import Batches, MicroBatch
from rlbench.training.lora import merge
from rlbench.training.losses import Losses, Rows
from rlbench.training.memory import Memory
from rlbench.training.optimiser import compute_lr_factor, make_optimiser
from rlbench.training.parts import Streams, count_rows, double_pieces, split_batches
from rlbench.training.stream import Run


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
        cosine: the agreement of the gradients of an adversary of one step (see `collapse`); None for others.
    """

    modality: Modality
    step: int
    steps: int
    loss: float | None = None
    val: Mapping[str, float] = field(default_factory=dict)
    what: Literal["step", "example"] = "step"
    cosine: float | None = None


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
        self.losses = Losses(run, accelerator, self.tower, self.model, memory)
        self.cosine: float | None = None  # of the last step, see `collapse`

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
            RLBenchError: The loss or the optimiser's step is not finite, or not even parts of few rows fit in memory.
        """
        recipe = self.run.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * compute_lr_factor(k, self.run.steps, recipe.warmup)
        value = float(self.accelerator.reduce(self.accumulate([next(loader) for loader in self.loaders]), "mean"))
        if not math.isfinite(value):
            raise RLBenchError(f"the loss is {value} at step {k + 1} of {self.run.steps}; try a smaller lr")
        self.measure_collapse(k + 1)
        self.update(k + 1)
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.tower)
        return value

    def update(self, step: int) -> None:
        """Does the optimiser's step. Raises: RLBenchError: lr is so large that the step is not finite in float32."""
        try:
            self.optimiser.step()
        except RuntimeError as error:  # on CPUs; elsewhere the weights become infinite, which the next loss shows
            if "overflow" not in str(error):
                raise
            lr = f"lr={self.run.recipe.lr:g}"
            message = f"the change of the weights at step {step} of {self.run.steps} is not finite with {lr}"
            raise RLBenchError(f"{message}; try a smaller lr") from error

    def accumulate(self, batches: Streams) -> Tensor:
        """Adds up the gradients of a step and returns its loss; where memory runs out, again in parts half as large."""
        while True:
            before = self.memory.copy_means()
            try:
                return self.add_up(split_batches(batches, self.pieces))
            except torch.OutOfMemoryError:
                self.optimiser.zero_grad()
                self.losses.watch.clear()
                self.memory.restore_means(before)
            self.pieces = double_pieces(batches, self.pieces, self.accelerator.num_processes)

    def add_up(self, batches: list[list[MicroBatch]]) -> Tensor:
        """Adds up the gradients of parts, each with rows of every stream; returns the mean loss over all rows.

        With AWP, they are the gradients at weights that are perturbed to raise the loss of all parts.
        """
        if not self.run.recipe.awp:
            return self.differentiate(batches)
        ready, weights = [list(self.losses.craft(parts)) for parts in batches], list_perturbed(self.tower)
        gradients = self.ascend(weights, ready)
        with perturb(weights, scale_perturbation(weights, gradients, self.run.recipe.awp)):
            return self.differentiate(batches, ready)

    def differentiate(self, batches: list[list[MicroBatch]], ready: Sequence[list[Rows]] = ()) -> Tensor:
        """Adds up the gradients of parts at the current weights, `ready` for the loss or not; returns the mean loss."""
        rows, total = sum(map(count_rows, batches)), torch.zeros((), device=self.accelerator.device)
        for j, parts in enumerate(batches):
            with nullcontext() if j == len(batches) - 1 else self.accelerator.no_sync(self.model):
                loss = self.losses.mean(ready[j] if ready else self.losses.craft(parts)) / (rows / count_rows(parts))
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def ascend(self, weights: Mapping[str, nn.Parameter], ready: Sequence[list[Rows]]) -> dict[str, Tensor]:
        """Returns the gradients, by the names of `weights`, of what the adversary raises, over all rows of a step."""
        rows = sum(len(one.x) for parts in ready for one in parts)
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for parts in ready:
            loss = torch.stack([one.stream.weight * self.losses.raised(one).sum() for one in parts]).sum() / rows
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for name, gradient in zip(weights, found, strict=True):
                total[name] += gradient
        return {name: self.accelerator.reduce(gradient, "mean") for name, gradient in total.items()}

    def measure_collapse(self, step: int) -> None:
        """Measures the agreement of the adversary's gradients over all processes, and warns if it has fallen."""
        if (cosine := self.losses.watch.measure()) is None:
            return
        self.cosine = float(self.accelerator.reduce(torch.tensor(cosine, device=self.accelerator.device), "mean"))
        if self.accelerator.is_main_process:
            self.losses.watch.follow(self.cosine, step, self.run.modality)

    def check_weights(self, step: int) -> None:
        """Checks the weights after the optimiser's step, which the loss shows only a step later.

        Raises:
            RLBenchError: A weight is not finite.
        """
        for name, value in self.tower.state_dict().items():
            if not bool(value.isfinite().all()):
                raise RLBenchError(f"{name} is not finite after step {step} of {self.run.steps}; try a smaller lr")

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
