"""A linear encoder whose robust accuracy is known in closed form: the oracle for testing attacks.

Its zero-shot logits are exactly affine in x: the embedding is (W (x - 1/2), r), with one row of W per class, and an r
that makes its norm 1; the anchors are the first unit vectors. So the smallest eps that breaks a correct example of
class y is min_j (z_y - z_j) / (s |w_y - w_j|_*), with the dual norm (L1 for Linf, L2 for L2) and the logit scale s, as
long as the box does not bind. The filters do not overlap, so one sign pattern favours every other class at once, and
the gradient of any untargeted loss points to the optimum of the closed form for Linf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlbench.core import Box, Modality, Trait
from rlbench.core.errors import DataError, ModalityError
from rlbench.core.registry import register

PLACES = {"top left": (2, 2), "top right": (2, 5), "bottom left": (5, 2), "bottom right": (5, 5)}
BOX = Box(shape=(1, 8, 8))


def weights() -> Tensor:
    """W (4, 64) float32, one filter per quarter; |w|_1 is 1/2, so |W (x - 1/2)| is below 1 in the box."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    filters = []
    for r, c in PLACES.values():
        quarter = ((rows < 4) == (r < 4)) & ((columns < 4) == (c < 4))
        filters.append((quarter * torch.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 4)).flatten())
    w = torch.stack(filters)
    return w / w.abs().sum(1, keepdim=True) / 2


class Linear:
    """An encoder with affine zero-shot logits on (1, 8, 8) images; see the module."""

    def __init__(self) -> None:
        self._weights = weights()

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {"image": BOX}

    @property
    def traits(self) -> frozenset[Trait]:
        return frozenset()

    @property
    def logit_scale(self) -> float:
        return 100.0

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {"image": hashlib.sha256(self._weights.numpy().tobytes()).hexdigest()}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, 1, 8, 8) in [0, 1] -> (B, 5), unit norm."""
        if modality != "image":
            raise ModalityError(f"the linear oracle has no {modality}; it has image")
        head = (x.flatten(1) - 0.5) @ self._weights.to(x).T
        return torch.cat([head, (1 - head.square().sum(1, keepdim=True)).sqrt()], dim=1)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) prompts, each with one of PLACES -> (P, 5) unit vectors.

        Raises: DataError: a prompt names none of PLACES.
        """
        anchors = torch.eye(len(PLACES) + 1)
        return torch.stack([anchors[self._place(prompt)] for prompt in prompts])

    def _place(self, prompt: str) -> int:
        for index, place in enumerate(PLACES):
            if place in prompt:
                return index
        raise DataError(f"the linear oracle does not know {prompt!r}; it knows {', '.join(PLACES)}")


@register("encoder", "linear")
def linear() -> Linear:
    """A linear classifier with closed-form robust accuracy, for testing attacks."""
    return Linear()
