"""Adversarial weight perturbation: training at the weights near the current ones that raise the loss most.

Wu et al., 2020, https://arxiv.org/abs/2004.05884, equations 7 to 9, with one ascent step per training step, as in their
code. In two points it differs from that code: the ascended loss is the one that the adversary of the inputs raises, and
the optimiser's step starts from the weights restored exactly, so that weight decay does not act on the perturbation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def list_perturbed(tower: nn.Module) -> dict[str, nn.Parameter]:
    """Lists by name what is perturbed: trainable weights of at least two dimensions, without biases and norms.

    Of low-rank updates (LoRA), these are the two factors of each update.
    """
    found = {name: p for name, p in tower.named_parameters() if p.requires_grad and p.dim() > 1}
    return {name: p for name, p in found.items() if "weight" in name}


@torch.no_grad()
def scale_perturbation(
    weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], size: float
) -> dict[str, Tensor]:
    """Scales each layer's gradient to a share of the norm of its weights: v = size |w| g / |g|.

    Args:
        weights: by name, w of each layer.
        gradients: g of each layer, like w; a layer with gradient 0 is not perturbed.
        size: the relative size, above 0.
    """
    tiny = torch.finfo(torch.float32).tiny
    shares = {name: size * w.norm() / gradients[name].norm().clamp_min(tiny) for name, w in weights.items()}
    return {name: share * gradients[name] for name, share in shares.items()}


@contextmanager
def perturb(weights: Mapping[str, nn.Parameter], by: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, `by` is added to the weights of its names; then they are restored, bit by bit."""
    own = {name: weights[name].detach().clone() for name in by}
    try:
        with torch.no_grad():
            for name, value in by.items():
                weights[name].add_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in own.items():
                weights[name].copy_(value)
