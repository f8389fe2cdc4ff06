"""One loop for every method: batches, an adversary that ascends the method's own loss, AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from rlbench.checkpoints import load_encoder
from rlbench.core import Ball, Modality, Suite, Threat
from rlbench.encoders.mini import BOXES, Mini, Tower
from rlbench.errors import CheckpointError, ModalityError, RLBenchError
from rlbench.fields import parse_eps
from rlbench.threat import ball_of
from rlbench.training.adversary import adversarial
from rlbench.training.data import Pool, anchors, augmented, captions, pool, task_of
from rlbench.training.objectives import Batch, Objective, objective
from rlbench.training.recipe import Recipe
from rlbench.training.validation import held, validated


@dataclass(frozen=True)
class Step:
    """What a run reports: the finished step of how many, the loss, and at an epoch's end the validation's shares.

    Before the first step: how many examples of how many are there (`what` is "example"), without a loss.
    """

    modality: Modality
    step: int
    steps: int
    loss: float | None = None
    val: Mapping[str, float] = field(default_factory=dict)
    what: Literal["step", "example"] = "step"


@dataclass(frozen=True)
class Run:
    """Everything that one modality's training holds; `anchors` (C, D), `captions` (C, P, D)."""

    recipe: Recipe
    modality: Modality
    suite: Suite | None
    encoder: Mini
    original: Mini | None
    data: Pool
    anchors: Tensor
    captions: Tensor

    @cached_property
    def objective(self) -> Objective:
        return objective(self.recipe)

    @cached_property
    def ball(self) -> Ball:
        return ball_of(Threat("linf", parse_eps(self.recipe.eps)), self.data.box)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.data.epoch // self.recipe.batch)

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch


def _loaded(name: str, modality: Modality) -> Mini:
    encoder = load_encoder(name, modality)
    if not isinstance(encoder, Mini):
        raise CheckpointError(f"{name} is not a mini encoder; mini recipes start from one")
    return encoder


def _initial(recipe: Recipe, modality: Modality) -> Mini:
    """The encoder that a run starts from: a model's, or random weights from the recipe's seed."""
    if recipe.init is not None:
        return _loaded(recipe.init, modality)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Mini({modality: Tower(BOXES[modality])}, {})


def prepared(
    recipe: Recipe, modality: Modality, suite: Suite | None = None, report: Callable[[Step], None] = lambda step: None
) -> Run:
    """Loads and renders what a run needs, and reports the examples.

    Raises:
        ModalityError: the backbone lacks it. UnknownName, CheckpointError: of init or original. DataError: no examples.
    """
    if modality not in BOXES:
        raise ModalityError(f"mini has no {modality}; it has {', '.join(BOXES)}")
    encoder = _initial(recipe, modality)
    task = task_of(recipe, modality, suite)

    def read(done: int, of: int) -> None:
        report(Step(modality, done, of, what="example"))

    return Run(
        recipe=recipe,
        modality=modality,
        suite=suite,
        encoder=encoder.requires_grad_(True),
        original=_loaded(recipe.original, modality) if recipe.original else None,
        data=pool(task, encoder.boxes[modality], recipe.examples, read=read),
        anchors=anchors(encoder, recipe, task, modality),
        captions=captions(encoder, task),
    )


def rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share: linear over the warm-up, then half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def batch_of(run: Run, x: Tensor, y: Tensor, g: torch.Generator) -> Batch:
    """The fixed part of a batch's loss: f0, and for each example a caption in a random template."""
    template = torch.randint(0, run.captions.shape[1], y.shape, generator=g)
    with torch.no_grad():
        f0 = run.original.features(x, run.modality) if run.original else torch.zeros(len(y), run.anchors.shape[1])
    return Batch(y, run.anchors, run.captions[y, template], f0)


def loss_of(run: Run, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    """The method's loss of a batch; x' is made on the way, by ascending that loss."""
    method, batch = run.objective, batch_of(run, x, y, g)
    f = run.encoder.features(x, run.modality) if method.clean else batch.f0
    if method.ascended is None:
        return method.loss(f, f, batch)
    ascended, fixed, recipe = method.ascended, f.detach(), run.recipe

    def raised(v: Tensor) -> Tensor:
        return ascended(run.encoder.features(v, run.modality), fixed, batch)

    x_adv = adversarial(x, raised, run.ball, steps=recipe.attack_steps, step=recipe.attack_step, g=g)
    return method.loss(f, run.encoder.features(x_adv, run.modality), batch)


def fit(run: Run, report: Callable[[Step], None]) -> dict[str, float]:
    """Trains run.encoder in place, in eval mode throughout (no layer differs); returns the last validation.

    Raises:
        RLBenchError: the loss is not finite.
    """
    recipe, g, encoder = run.recipe, torch.Generator().manual_seed(run.recipe.seed), run.encoder.eval()
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, run.steps, recipe.warmup))
    data = held(encoder, run.modality, run.data.box, run.suite, recipe)
    val: dict[str, float] = {}
    done = 0
    for _ in range(recipe.epochs):
        for x, y in run.data.batches(recipe.batch, g):
            loss = loss_of(run, augmented(x, recipe, run.modality, g), y, g)
            if not bool(loss.isfinite()):
                raise RLBenchError(f"the loss is {loss.item()} at step {done + 1} of {run.steps}; try a smaller lr")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            val = validated(data) if done % run.steps_per_epoch == 0 else {}
            report(Step(run.modality, done, run.steps, loss.item(), val))
    return val
