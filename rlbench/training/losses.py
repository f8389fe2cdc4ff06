"""The losses of a step's rows: what they compare with, their adversarial examples, and their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rlbench.core.callables import describe_raised
from rlbench.core.errors import RLBenchError
from rlbench.encoders.outputs import describe
from rlbench.training.adversary import attack_batch, attack_once
from rlbench.training.collapse import CollapseWatch
from rlbench.training.data import MicroBatch
from rlbench.training.gather import all_gather
from rlbench.training.memory import Memory, Origin
from rlbench.training.stream import Run, Stream
from rlbench.training.types import Batch


def call_objective(loss: Callable[[Tensor, Tensor, Batch], Tensor], f: Tensor, g: Tensor, batch: Batch) -> Tensor:
    """The loss (B,) of an objective, which may be a user's.

    Args:
        loss: the objective's `loss` or `adversary_loss`.
        f: (B, D), its first argument.
        g: (B, D), its second argument.
        batch: what it knows besides.

    Raises:
        RLBenchError: it raised an exception, has no value for each row, or does not depend on the features.
    """
    name = loss.__qualname__
    try:
        found = loss(f, g, batch)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RLBenchError(f"{name} raised {describe_raised(error)}") from error
    n = len(batch.y)
    if not isinstance(found, Tensor) or found.shape != (n,):
        shown = describe(found) if isinstance(found, Tensor) else type(found).__name__
        raise RLBenchError(f"{name} returned {shown}; it must be ({n},), a loss for each of the {n} examples")
    if torch.is_grad_enabled() and not found.requires_grad:
        raise RLBenchError(f"{name} has no gradient in the features; use no detach, torch.no_grad or numpy in it")
    return found


@dataclass(frozen=True)
class Rows:
    """A micro-batch of a stream, ready for its loss.

    Attributes:
        origin: where they come from.
        x: (B, *shape) in the box.
        f: (B, D) features of x; any rows if the objective does not need them.
        batch: what the loss knows besides the features.
        x_adv: (B, *shape), the adversarial examples; None without an adversary.
    """

    stream: Stream
    origin: Origin
    x: Tensor
    f: Tensor
    batch: Batch
    x_adv: Tensor | None = None


@dataclass
class Losses:
    """Computes the losses of a run's rows at the current weights.

    Attributes:
        run: what is trained.
        accelerator: devices, processes and precision.
        tower: the run's tower, for gradients that other processes do not share.
        model: the tower as the accelerator prepared it, for the gradients of training.
        memory: the latest features, which modalities that are trained together share.
        watch: compares the gradients of an adversary of one step.
    """

    run: Run
    accelerator: Accelerator
    tower: nn.Module
    model: nn.Module
    memory: Memory
    watch: CollapseWatch = field(default_factory=CollapseWatch)

    def mean(self, parts: Iterable[Rows]) -> Tensor:
        """Returns the mean loss over the rows of all streams."""
        losses, count = [], 0
        for rows in parts:
            losses.append(rows.stream.weight * self.of_rows(rows).sum())
            count += len(rows.x)
        return torch.stack(losses).sum() / count

    def of_rows(self, rows: Rows) -> Tensor:
        """Returns the loss (B,) of a stream's rows at their adversarial examples."""
        objective, f = rows.stream.objective, rows.f
        if self.run.recipe.awp and "f" in objective.needs:  # the weights have changed since
            f = self.features(self.model, rows.x)
        if rows.x_adv is None:
            return call_objective(objective.loss, f, f, rows.batch)
        f_adv = self.features(self.model, rows.x_adv)
        self.memory.remember(f_adv, rows.origin, rows.batch, objective.needs)
        return call_objective(objective.loss, f, f_adv, rows.batch)

    def raised(self, rows: Rows) -> Tensor:
        """Returns what the adversary raises (B,); without one, the loss."""
        objective = rows.stream.objective
        if rows.x_adv is None:
            f = self.features(self.tower, rows.x)
            return call_objective(objective.loss, f, f, rows.batch)
        f_adv = self.features(self.tower, rows.x_adv)
        return call_objective(objective.adversary_loss, f_adv, rows.f.detach(), rows.batch)

    def craft(self, parts: list[MicroBatch]) -> Iterator[Rows]:
        """Yields the micro-batches of a part, one of each stream, with adversarial examples that raise their loss."""
        for stream, part in zip(self.run.streams, parts, strict=True):
            yield self.craft_rows(stream, part)

    def craft_rows(self, stream: Stream, part: MicroBatch) -> Rows:
        """Makes a stream's rows ready for the loss."""
        device, needs = self.accelerator.device, stream.objective.needs
        x = stream.data.dequantise(part.x.to(device))
        batch = self.make_batch(stream, part, x)
        f = self.embed_clean(x) if "f" in needs else batch.captions
        origin = Origin(self.run.modality, stream.classes, part.rows.to(device), stream.data.size)
        batch = self.memory.exchange(f, origin, batch, needs)
        rows = Rows(stream, origin, x, f, batch)
        if "f_adv" not in needs:
            return rows
        x_adv = self.attack(rows, part.noise.to(device))
        if "f0_adv" in needs:
            batch = replace(batch, f0_adv=self.embed_original(x_adv))
        if "f_adv_before" in needs:
            batch = replace(batch, f_adv_before=self.embed_clean(x_adv))
        return replace(rows, batch=batch, x_adv=x_adv)

    def attack(self, rows: Rows, noise: Tensor) -> Tensor:
        """Finds adversarial examples (B, *shape) from noise (B, *shape) in [-1, 1], with the recipe's adversary."""
        recipe, fixed = self.run.recipe, rows.f.detach()

        def adversary_loss(v: Tensor) -> Tensor:
            return call_objective(rows.stream.objective.adversary_loss, self.features(self.tower, v), fixed, rows.batch)

        if recipe.adversary == "n-fgsm":
            found = attack_once(rows.x, adversary_loss, self.run.ball, noise=noise)
            return self.watch.add(found.gradient, found.x_adv)
        return attack_batch(
            rows.x,
            adversary_loss,
            self.run.ball,
            noise=noise,
            steps=recipe.attack_steps,
            step=recipe.attack_step,
            momentum=recipe.attack_momentum,
        )

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

    def embed_clean(self, x: Tensor) -> Tensor:
        """Computes the features of x, (B, D); with AWP without a graph, since the loss needs them at other weights."""
        if not self.run.recipe.awp:
            return self.features(self.model, x)
        with torch.no_grad():
            return self.features(self.tower, x)

    def embed_original(self, x: Tensor) -> Tensor:
        """Computes the frozen original's features of x, (B, D)."""
        assert self.run.original is not None, "a recipe whose objective needs the original has one"
        with torch.no_grad():
            return self.features(self.run.original.tower(self.run.modality), x)

    def gather(self, rows: Tensor) -> Tensor:
        """Gathers the rows of all processes, in their order; differentiable."""
        return rows if self.accelerator.num_processes == 1 else all_gather(rows)
