"""The mean embedding of every class by modality: what aligns distributions across modalities trained together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Label, Modality

DECAY = 0.9


class ClassMeans:
    """Moving means of n(f) by class name and modality; (D,) each. The name joins the classes of modalities."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Tensor]] = {}

    def update(self, modality: Modality, classes: Sequence[Label], f: Tensor, y: Tensor) -> None:
        """Takes in a batch's features (B, D) and labels (B,)."""
        n = normalize(f.detach().float(), dim=-1)
        for k in torch.unique(y).tolist():
            mean, known = n[y == k].mean(0), self.rows.setdefault(classes[k].name, {})
            known[modality] = DECAY * known[modality] + (1 - DECAY) * mean if modality in known else mean

    def look_up(self, classes: Sequence[Label], anchors: Tensor) -> Tensor:
        """(C, D) unit rows: the mean over the modalities that have the class, or its anchor where none has."""
        rows = [torch.stack(list(self.rows[c.name].values())).mean(0) if c.name in self.rows else None for c in classes]
        return normalize(torch.stack([a if r is None else r for r, a in zip(rows, anchors, strict=True)]), dim=-1)
