"""Which quarter of a picture is brightest: an encoder in twenty lines."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from rlbench.core import Box
from rlbench.core.registry import register

PLACES = ("top left", "top right", "bottom left", "bottom right")


class Quarters:
    """Embeds a picture as the mean intensity of its quarters, and a text as the quarter that it names."""

    boxes: ClassVar = {"image": Box(shape=(1, 8, 8))}
    traits, logit_scale, sha256 = frozenset(), 10.0, {}

    def embed(self, x: Tensor, modality: str) -> Tensor:
        means = adaptive_avg_pool2d(x, 2).flatten(1)
        return normalize(means - means.mean(1, keepdim=True) + 1e-6, dim=1)

    def embed_text(self, prompts) -> Tensor:
        return torch.stack([torch.eye(4)[next(k for k in range(4) if PLACES[k] in prompt)] for prompt in prompts])


@register("encoder", "quarters")
def quarters() -> Quarters:
    """The mean intensity of four quarters."""
    return Quarters()
