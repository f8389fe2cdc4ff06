"""How much an objective wants to move each weight of a model: the gradients that PISTOLE's masks are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlbench.core import Modality, Suite
from rlbench.encoders.models import resolve
from rlbench.training.data import Batches, MicroBatch
from rlbench.training.losses import Losses
from rlbench.training.memory import Memory
from rlbench.training.prepare import prepare
from rlbench.training.recipe import Recipe, load_recipe
from rlbench.training.run import limit_threads, make_accelerator

EXAMPLES = 256
ASCENT = 4  # steps of the trajectory
RADIUS = 0.005  # its length, as a share of the norm of all weights
GAMMA = 0.5  # compresses the range of the gradients
KAPPA = 1.0  # sharpens the masks
ATTACK = {"attack_steps": 10, "attack_step": 0.25, "attack_momentum": 0.0}  # PGD, as for the paper's robust models


class Sensitivity(NamedTuple):
    """The sensitivity of a model's weights to an objective.

    Attributes:
        weights: by name, in [0, 1], 1 for the most sensitive weight of each layer.
        forwards: the forward passes that it cost.
        backwards: the backward passes.
    """

    weights: dict[str, Tensor]
    forwards: int
    backwards: int


def measure_sensitivity(
    name: str, modality: Modality, suite: Suite | None, device: str, *, adversarial: bool
) -> Sensitivity:
    """Measures the mean gradient of the cross-entropy over class anchors, near a model's weights.

    g_l = (|g| / max |g|)^gamma of each layer l, where |g| is averaged along an ascent of the loss within a ball in the
    space of weights. From a note on PISTOLE, ICLR 2026, https://openreview.net/forum?id=KOO1cDm2bt: its gradients and
    trajectory; the paper was not available, so that the constants of this module are this project's choice, and its
    weighting by predictions' criticality and its quantile cap are left out.

    Args:
        name: the model.
        modality: what it embeds.
        suite: the data of the loss, its train split; None: the modality's procedural world.
        device: "auto", "cpu" or "cuda".
        adversarial: whether the loss is that of adversarial examples, at the recipe's eps, or of clean ones.

    Raises:
        RLBenchError: see `prepare`.
    """
    recipe = make_recipe(name, modality, adversarial)
    accelerator = make_accelerator(device, recipe, lambda text: None)
    run = prepare(recipe, modality, suite)
    tower = run.encoder.tower(modality).to(accelerator.device).eval()
    losses = Losses(run, accelerator, tower, tower, Memory())
    data = Batches(run.streams[0].data, recipe, modality, recipe.batch)
    steps = [data[k] for k in range(EXAMPLES // recipe.batch)]
    weights = dict(tower.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    length = RADIUS * _norm({name: weight.detach() for name, weight in weights.items()}) / ASCENT
    with limit_threads(recipe):
        for _ in range(ASCENT):
            gradients = mean_gradient(losses, weights, steps)
            total = {key: total[key] + value.abs() / ASCENT for key, value in gradients.items()}
            climb(weights, gradients, length)
    forwards, backwards = (n * ASCENT * len(steps) * recipe.batch for n in recipe.passes())
    return Sensitivity({key: normalise(value) for key, value in total.items()}, forwards, backwards)


def make_recipe(name: str, modality: Modality, adversarial: bool) -> Recipe:
    """Makes the recipe of the loss: TeCoA's from this model, without an adversary's radius for clean examples."""
    given: dict[str, object] = {"init": name, "examples": EXAMPLES, "batch": 64, "accumulate": 1, "loaders": 0}
    given |= ATTACK if adversarial else {"eps": 0, "attack_steps": 1}
    return load_recipe("tecoa", modality=modality, backbone=resolve(name).backbone, overrides=given)


def mean_gradient(
    losses: Losses, weights: Mapping[str, nn.Parameter], steps: list[list[MicroBatch]]
) -> dict[str, Tensor]:
    """Computes the gradient of the mean loss over batches, by the names of the weights."""
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in steps:
        found = torch.autograd.grad(losses.mean(losses.craft(step)), list(weights.values()), materialize_grads=True)
        for name, gradient in zip(weights, found, strict=True):
            total[name] += gradient / len(steps)
    return total


@torch.no_grad()
def climb(weights: Mapping[str, nn.Parameter], gradients: Mapping[str, Tensor], length: float) -> None:
    """Moves all weights together by a step of this length along the gradient."""
    norm = _norm(gradients)
    for name, weight in weights.items():
        weight.add_(gradients[name], alpha=length / max(norm, 1e-30))


def normalise(gradient: Tensor) -> Tensor:
    """(|g| / max |g|)^GAMMA of a layer, in [0, 1]; 0 where all are 0."""
    size = gradient.abs()
    return (size / size.max().clamp_min(1e-30)) ** GAMMA


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return float(torch.stack([value.norm() for value in tensors.values()]).norm())
