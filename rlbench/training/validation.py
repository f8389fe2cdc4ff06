"""How good an encoder in training is: clean and PGD accuracy on validation examples, which no table ever shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from rlbench.core import Ball, Encoder, Examples, Modality, Suite, Threat
from rlbench.fields import parse_eps
from rlbench.heads import ZeroShot, zero_shot
from rlbench.metrics import margin
from rlbench.threat import ball_of
from rlbench.training.adversary import adversarial
from rlbench.training.data import validation_task
from rlbench.training.recipe import Recipe

BATCH = 128


@dataclass(frozen=True)
class Held:
    """Validation examples with their zero-shot classifier, by name: "clean" and "unseen"."""

    parts: dict[str, tuple[ZeroShot, Examples]]
    ball: Ball


def held(encoder: Encoder, modality: Modality, suite: Suite | None, recipe: Recipe) -> Held:
    """Renders the validation examples once. The ball is the recipe's, or 4/255 (video 2/255) if it has none."""
    parts, box = {}, encoder.boxes[modality]
    for subset, name in (("seen", "clean"), ("unseen", "unseen")):
        task = validation_task(modality, suite, subset)
        if task is not None:
            head = zero_shot(encoder, modality, task.classes, task.templates)
            size = task.size("val")
            n = recipe.validation if size is None else min(size, recipe.validation)
            parts[name] = head, task.load(box, 0, n, "val")
    eps = parse_eps(recipe.eps) or Fraction(2 if modality == "video" else 4, 255)
    return Held(parts, ball_of(Threat("linf", eps), box))


def validated(data: Held, device: torch.device) -> dict[str, float]:
    """Shares correct: "clean" and "unseen" without a perturbation, "robust" of the clean part under PGD-10."""
    found = {}
    for name, (head, part) in data.parts.items():
        head = replace(head, anchors=head.anchors.to(device))
        flags = [_correct(head, x.to(device), y.to(device), data.ball, name == "clean") for x, y in _batches(part)]
        clean, robust = (torch.cat(column).float().mean().item() for column in zip(*flags, strict=True))
        found.update({name: clean, "robust": robust} if name == "clean" else {name: clean})
    return found


def _batches(part: Examples) -> list[tuple[Tensor, Tensor]]:
    starts = range(0, len(part.y), BATCH)
    return [(part.x[i : i + BATCH], part.y[i : i + BATCH]) for i in starts]


def _correct(head: ZeroShot, x: Tensor, y: Tensor, ball: Ball, attack: bool) -> tuple[Tensor, Tensor]:
    """(B,) correct clean, (B,) correct clean and under attack."""
    with torch.no_grad():
        clean = margin(head(x), y) > 0
    if not attack:
        return clean, clean
    noise = 2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1
    x_adv = adversarial(x, lambda v: -margin(head(v), y), ball, noise=noise.to(x), steps=10, step=0.25)
    with torch.no_grad():
        return clean, clean & (margin(head(x_adv), y) > 0)
