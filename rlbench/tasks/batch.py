"""Separate examples as one batch in a box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box, Examples, Label


def stack(arrays: Sequence[np.ndarray], box: Box) -> Tensor:
    """Stacks examples and scales them from [0, 1] to the box.

    Args:
        arrays: one array per example, in [0, 1], shaped like the box.
        box: the encoder's box.

    Returns:
        (B, *box.shape) float32; B may be 0.
    """
    unit = torch.from_numpy(np.stack(arrays).astype(np.float32)) if arrays else torch.empty(0, *box.shape)
    return box.low + (box.high - box.low) * unit


def collate(
    arrays: Sequence[np.ndarray],
    box: Box,
    *,
    classes: Sequence[Label],
    labels: Sequence[str],
    ids: Sequence[str],
    sources: Sequence[str],
) -> Examples:
    """Stacks examples with their labels, ids and sources.

    Args:
        arrays: one array per example, in [0, 1], shaped like the box.
        box: the encoder's box.
        classes: the classes of the task, in the order of the logits.
        labels: one per example, each the label of a class.
        ids: one per example.
        sources: one per example.
    """
    index = {one.label: k for k, one in enumerate(classes)}
    y = torch.tensor([index[label] for label in labels], dtype=torch.int64)
    return Examples(stack(arrays, box), y, tuple(ids), tuple(sources))
