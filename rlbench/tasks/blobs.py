"""Blobs of light in an 8 x 8 picture: the linear oracle's task."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from rlbench.core import Box, Examples, Label, Modality, Split
from rlbench.errors import DataError
from rlbench.registry import register
from rlbench.seeds import generator

_CENTRES = {"top left": (2, 2), "top right": (2, 5), "bottom left": (5, 2), "bottom right": (5, 5)}
_SIZE, _VERSION = 8, 1


@register("task", "blobs")
@dataclass(frozen=True, kw_only=True)
class Blobs:
    """A blob of light in a quarter of a small picture; intensities in [.3, .7], so that no small ball meets the box."""

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
        """Examples start..stop-1; classes alternate, so that every prefix is balanced."""
        if box.shape != (1, _SIZE, _SIZE):
            raise DataError(f"blobs are (1, 8, 8) pictures; the encoder's box is {box.shape}")
        ids = tuple(f"blobs/{split}/{i}" for i in range(start, stop))
        y = np.arange(start, stop) % len(_CENTRES)
        pictures = [self._picture(generator(_VERSION, example), int(k)) for example, k in zip(ids, y, strict=True)]
        x = torch.from_numpy(np.stack(pictures).astype(np.float32)) if pictures else torch.empty(0, *box.shape)
        return Examples(box.low + (box.high - box.low) * x, torch.from_numpy(y), ids, ids)

    def _picture(self, g: np.random.Generator, label: int) -> np.ndarray:
        rows, columns = np.mgrid[:_SIZE, :_SIZE]
        r, c = list(_CENTRES.values())[label]
        light = g.uniform(0.0, 0.12) * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 4)
        noisy = 0.47 + light + g.normal(0, 0.04, light.shape)
        return np.asarray(np.clip(noisy, 0.3, 0.7)[None])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"blobs {_VERSION}".encode()).hexdigest()[:16]
