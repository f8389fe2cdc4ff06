"""The mean embeddings of classes by modality, which align modalities that are trained together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Label, Modality

DECAY = 0.9


class ClassMeans:
    """Moving means (D,) of unit features, by class name and modality; classes of one name are one class."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Tensor]] = {}

    def update(self, modality: Modality, classes: Sequence[Label], f: Tensor, y: Tensor) -> None:
        """Updates the means with the features (B, D) and labels (B,) of a batch."""
        n = normalize(f.detach().float(), dim=-1)
        for k in torch.unique(y).tolist():
            mean, known = n[y == k].mean(0), self.rows.setdefault(classes[k].name, {})
            known[modality] = DECAY * known[modality] + (1 - DECAY) * mean if modality in known else mean

    def look_up(self, classes: Sequence[Label], anchors: Tensor) -> Tensor:
        """Returns unit rows (C, D): the mean over the modalities that have seen the class, or its anchor."""
        rows = [torch.stack(list(self.rows[c.name].values())).mean(0) if c.name in self.rows else None for c in classes]
        return normalize(torch.stack([a if r is None else r for r, a in zip(rows, anchors, strict=True)]), dim=-1)
