"""The optimiser of a recipe, and the course of its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from rlbench.training.recipe import Recipe

if TYPE_CHECKING:
    from torch.optim import Optimizer


def compute_lr_factor(step: int, steps: int, warmup: float) -> float:
    """Computes the factor of the learning rate: a linear warm-up, then half a cosine to 0.

    Args:
        step: the step, from 0.
        steps: the number of steps.
        warmup: the share of the steps that warm up, in [0, 1].
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def make_optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> Optimizer:
    """The optimiser of a recipe, for these parameters."""
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
