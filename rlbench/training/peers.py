"""The features of the same examples in the other modalities, for modalities that are trained together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Modality


class Peers:
    """The latest unit features of every example, by modality; 0 until an example is seen."""

    def __init__(self) -> None:
        self.rows: dict[str, Tensor] = {}

    def update(self, modality: Modality, index: Tensor, f: Tensor, size: int) -> None:
        """Remembers the features of a batch.

        Args:
            modality: the modality of the features.
            index: (B,) the numbers of the examples.
            f: (B, D) features.
            size: the number of all examples.
        """
        if modality not in self.rows:
            self.rows[modality] = f.new_zeros((size, f.shape[1]))
        self.rows[modality][index] = normalize(f.detach().float(), dim=-1)

    def look_up(self, modality: Modality, index: Tensor, like: Tensor) -> Tensor:
        """Returns the unit features of the same examples in the other modalities.

        Args:
            modality: the modality that is left out.
            index: (B,) the numbers of the examples.
            like: (B, D), gives the shape.

        Returns:
            (M, B, D) for M other modalities, 0 for examples that a modality has not seen.
        """
        others = [rows[index] for name, rows in self.rows.items() if name != modality]
        return torch.stack(others) if others else like.new_zeros((0, *like.shape))
