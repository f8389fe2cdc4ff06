"""One loop for every method: batches, an adversary that ascends the method's own loss, AdamW, a run folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from rlbench.attacks.pgd import ascend
from rlbench.core import Ball, Modality, Suite, Task, Threat
from rlbench.encoders.mini import BOXES, Mini, Tower
from rlbench.errors import CheckpointError, ModalityError, RLBenchError
from rlbench.fields import parse_eps
from rlbench.heads import zero_shot
from rlbench.metrics import margin
from rlbench.threat import ball_of, project
from rlbench.training.data import Pool, anchors, augmented, captions, pool, task_of, validation_task
from rlbench.training.objectives import Batch, Objective, objective
from rlbench.training.recipe import Recipe

VALIDATION = 500


@dataclass(frozen=True)
class Step:
    """What a run reports: the finished step of how many, the loss, and at an epoch's end the validation's shares."""

    modality: Modality
    step: int
    steps: int
    loss: float
    val: Mapping[str, float]


Report = Callable[[Step], None]


def start_of(recipe: Recipe, modality: Modality) -> Mini:
    """The encoder that a run starts from, with trainable weights.

    Raises:
        UnknownName, CheckpointError, ModalityError.
    """
    from rlbench.checkpoints import load_encoder

    if modality not in BOXES:
        raise ModalityError(f"mini has no {modality}; it has {', '.join(BOXES)}")
    if recipe.init is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return Mini({modality: Tower(BOXES[modality])}, {})
    encoder = load_encoder(recipe.init, modality)
    if not isinstance(encoder, Mini):
        raise CheckpointError(f"{recipe.init} is not a mini encoder; training starts from one")
    return encoder.requires_grad_(True)


def frozen(recipe: Recipe, modality: Modality) -> Mini | None:
    """The original whose embeddings the loss keeps."""
    return (
        None
        if recipe.original is None
        else start_of(replace(recipe, init=recipe.original), modality).requires_grad_(False)
    )


def rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share: linear from 0 over the warm-up, then half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def adversarial(x: Tensor, loss: Callable[[Tensor], Tensor], ball: Ball, recipe: Recipe, g: torch.Generator) -> Tensor:
    """x' of a batch: PGD on `loss`, (B, *shape) -> (B,), from a uniform start."""
    noise = 2 * torch.rand(x.shape, generator=g) - 1
    start = project(x + ball.radius * noise, x, ball)
    return ascend(loss, x, ball, start, steps=recipe.attack_steps, step=recipe.attack_step * ball.radius)


def loss_of(
    encoder: Mini,
    modality: Modality,
    method: Objective,
    x: Tensor,
    batch: Batch,
    ball: Ball,
    recipe: Recipe,
    g: torch.Generator,
) -> Tensor:
    """The method's loss of a batch, with its adversarial examples made on the way."""
    f = encoder.features(x, modality) if method.clean else batch.f0
    if method.ascended is None:
        return method.loss(f, f, batch)
    ascended, f_fixed = method.ascended, f.detach()
    x_adv = adversarial(x, lambda v: ascended(encoder.features(v, modality), f_fixed, batch), ball, recipe, g)
    return method.loss(f, encoder.features(x_adv, modality), batch)


@dataclass(frozen=True)
class Run:
    """Everything that one modality's training holds."""

    recipe: Recipe
    modality: Modality
    suite: Suite | None
    encoder: Mini
    original: Mini | None
    data: Pool
    anchors: Tensor
    captions: Tensor

    @property
    def ball(self) -> Ball:
        return ball_of(Threat("linf", parse_eps(self.recipe.eps)), self.data.box)

    def batch(self, x: Tensor, y: Tensor, g: torch.Generator) -> Batch:
        """The fixed part of a batch's loss; a caption in a random template for each example."""
        template = torch.randint(0, self.captions.shape[1], y.shape, generator=g)
        with torch.no_grad():
            f0 = self.original.features(x, self.modality) if self.original else torch.empty(len(y), 0)
        return Batch(y, self.anchors, self.captions[y, template], f0)


def prepared(recipe: Recipe, modality: Modality, suite: Suite | None) -> Run:
    """Loads and renders what a run needs."""
    encoder = start_of(recipe, modality)
    task = task_of(recipe, modality, suite)
    original = frozen(recipe, modality)
    data = pool(task, encoder.boxes[modality], recipe.examples)
    return Run(
        recipe,
        modality,
        suite,
        encoder,
        original,
        data,
        anchors(encoder, recipe, task, modality),
        captions(encoder, task),
    )


def fit(run: Run, report: Report) -> dict[str, float]:
    """Trains run.encoder in place; returns the last validation.

    Raises:
        RLBenchError: the loss is not finite.
    """
    recipe, g = run.recipe, torch.Generator().manual_seed(run.recipe.seed)
    method, encoder = objective(recipe), run.encoder.eval()  # no layer differs in train mode; attacks need eval mode
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * max(1, len(run.data.y) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps, recipe.warmup))
    val: dict[str, float] = {}
    done = 0
    for _ in range(recipe.epochs):
        for x, y in run.data.batches(recipe.batch, g):
            x = augmented(x, recipe, run.modality, g)
            loss = loss_of(encoder, run.modality, method, x, run.batch(x, y, g), run.ball, recipe, g)
            if not bool(loss.isfinite()):
                raise RLBenchError(f"the loss is {loss.item()} at step {done + 1} of {steps}; try a smaller lr")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            last = done % (steps // recipe.epochs) == 0
            val = validated(run) if last else {}
            report(Step(run.modality, done, steps, loss.item(), val))
    return val


def validated(run: Run) -> dict[str, float]:
    """Shares on the validation split: clean, PGD-10 at the recipe's eps (4/255 for methods without one), unseen clean."""
    found = {}
    for subset, name in (("seen", "clean"), ("unseen", "unseen")):
        task = validation_task(run.modality, run.suite, subset)
        if task is not None:
            found.update(_measured(run, task, name))
    return found


def _measured(run: Run, task: Task, name: str) -> dict[str, float]:
    part = task.load(run.data.box, 0, min(VALIDATION, task.size("val") or VALIDATION), "val")
    head = zero_shot(run.encoder, run.modality, task.classes, task.templates)
    eps = parse_eps(run.recipe.eps) or Fraction(2 if run.modality == "video" else 4, 255)
    ball, g = ball_of(Threat("linf", eps), run.data.box), torch.Generator().manual_seed(0)
    clean, robust = 0, 0
    for x, y in zip(part.x.split(128), part.y.split(128), strict=True):
        with torch.no_grad():
            correct = margin(head(x), y) > 0
        clean += int(correct.sum())
        if name == "clean":
            recipe = replace(run.recipe, attack_steps=10, attack_step=0.25)
            x_adv = adversarial(x, lambda v, y=y: -margin(head(v), y), ball, recipe, g)  # type: ignore[misc]
            with torch.no_grad():
                robust += int((correct & (margin(head(x_adv), y) > 0)).sum())
    shares = {name: clean / len(part.y)}
    return {**shares, "robust": robust / len(part.y)} if name == "clean" else shares
