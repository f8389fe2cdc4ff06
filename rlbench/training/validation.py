"""Validation during training: clean accuracy and accuracy under PGD, on examples that no leaderboard uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from rlbench.core import Ball, Encoder, Examples, Modality, Suite, Threat
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import ball_of, parse_eps
from rlbench.encoders.heads import ZeroShot, zero_shot
from rlbench.training.adversary import attack_batch
from rlbench.training.data import make_validation_task
from rlbench.training.recipe import Recipe

CHUNK = 128  # the adversary's starts are drawn for this many examples at once


@dataclass(frozen=True)
class ValidationSet:
    """Validation examples with their zero-shot classifiers.

    Attributes:
        parts: the parts by name: "clean" (seen classes) and "unseen".
        ball: the perturbation set of the adversary.
        batch: at most the size of a micro-batch of training, which fits in memory.
    """

    parts: dict[str, tuple[ZeroShot, Examples]]
    ball: Ball
    batch: int


def render_validation(encoder: Encoder, modality: Modality, suite: Suite | None, recipe: Recipe) -> ValidationSet:
    """Renders the validation examples, and makes the ball of their adversary (see `choose_radius`)."""
    parts, box = {}, encoder.boxes[modality]
    for subset, name in (("seen", "clean"), ("unseen", "unseen")):
        task = make_validation_task(recipe, modality, suite, subset)
        if task is not None:
            head = zero_shot(encoder, modality, task.classes, task.templates)
            size = task.size("val")
            n = recipe.validation if size is None else min(size, recipe.validation)
            parts[name] = head, task.load(box, 0, n, "val")
    eps = choose_radius(recipe, modality)
    return ValidationSet(parts, ball_of(Threat("linf", eps), box), min(CHUNK, recipe.batch // recipe.accumulate))


def choose_radius(recipe: Recipe, modality: Modality) -> Fraction:
    """Returns the radius of the validation's adversary: the recipe's eps or, if that is 0, 4/255 (video: 2/255)."""
    return parse_eps(recipe.eps) or Fraction(2 if modality == "video" else 4, 255)


def validate(data: ValidationSet, device: torch.device) -> dict[str, float]:
    """Measures accuracies in [0, 1]: "clean" and "unseen" without a perturbation, "robust" for "clean" under PGD-10."""
    accuracies = {}
    for name, (head, part) in data.parts.items():
        head = replace(head, anchors=head.anchors.to(device))
        batches = _batches(part, data.batch, device)
        flags = [_correct(head, x, y, data.ball, noise if name == "clean" else None) for x, y, noise in batches]
        clean, robust = (torch.cat(column).float().mean().item() for column in zip(*flags, strict=True))
        accuracies.update({name: clean, "robust": robust} if name == "clean" else {name: clean})
    return accuracies


def _batches(part: Examples, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields x, y and the adversary's starts in [-1, 1]; the starts do not depend on the size of a batch."""
    for x, y in zip(torch.split(part.x, CHUNK), torch.split(part.y, CHUNK), strict=True):
        noise = 2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1
        for some in zip(*(torch.split(rows.to(device), size) for rows in (x, y, noise)), strict=True):
            yield some[0], some[1], some[2]


def _correct(head: ZeroShot, x: Tensor, y: Tensor, ball: Ball, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns flags (B,) of correct clean, and of correct both clean and under PGD from `noise`, if given."""
    with torch.no_grad():
        clean = margin(head(x), y) > 0
    if noise is None:
        return clean, clean
    x_adv = attack_batch(x, lambda v: -margin(head(v), y), ball, noise=noise, steps=10, step=0.25)
    with torch.no_grad():
        return clean, clean & (margin(head(x_adv), y) > 0)
