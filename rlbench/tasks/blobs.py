"""Blobs of light in an 8 x 8 picture: a task on which a linear encoder's robustness has a closed form."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.core.errors import DataError
from rlbench.core.registry import register
from rlbench.core.seeds import generator
from rlbench.tasks.batch import stack

_CENTRES = {"top left": (2, 2), "top right": (2, 5), "bottom left": (5, 2), "bottom right": (5, 5)}
# The minimal eps of the linear oracle then form groups, so that no eps of a suite falls close to one.
_CONTRASTS = (-0.02, 0.015, 0.04, 0.08, 0.15)
_SIZE, _VERSION = 8, 2


@register("task", "blobs")
@dataclass(frozen=True, kw_only=True)
class Blobs:
    """Two blobs of light in a small picture; the class is the quarter of the brighter one.

    Intensities are in [.3, .7], so that no small ball reaches the bounds of the box. The dimmer blob makes one class
    the clear runner-up, which every untargeted attack finds: on the linear oracle every attack reaches the closed form.
    """

    @property
    def modality(self) -> Modality:
        return "image"

    @property
    def classes(self) -> tuple[Label, ...]:
        return tuple(Label(place.replace(" ", "-"), f"blob in the {place}") for place in _CENTRES)

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a picture of {a}.",)

    def size(self, split: Split) -> int | None:
        return None

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> Examples:
        """Renders examples start..stop-1; classes alternate, so that every prefix is balanced."""
        if box.shape != (1, _SIZE, _SIZE):
            raise DataError(f"blobs are (1, 8, 8) pictures; the encoder's box is {box.shape}")
        ids = tuple(f"blobs/{split}/{i}" for i in range(start, stop))
        y = np.arange(start, stop) % len(_CENTRES)
        pictures = [self._draw(generator(_VERSION, example), int(k)) for example, k in zip(ids, y, strict=True)]
        return Examples(stack(pictures, box), torch.from_numpy(y), ids, ids)

    def _draw(self, g: np.random.Generator, label: int) -> np.ndarray:
        rows, columns = np.mgrid[:_SIZE, :_SIZE]
        rival = (label + int(g.integers(1, len(_CENTRES)))) % len(_CENTRES)
        light = {label: 0.2, rival: 0.2 - _CONTRASTS[int(g.integers(len(_CONTRASTS)))]}
        centres = list(_CENTRES.values())
        blobs = [
            a * np.exp(-((rows - centres[k][0]) ** 2 + (columns - centres[k][1]) ** 2) / 4) for k, a in light.items()
        ]
        return np.asarray(np.clip(0.4 + sum(blobs) + g.normal(0, 0.003, rows.shape), 0.3, 0.7)[None])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"blobs {_VERSION}".encode()).hexdigest()[:16]
