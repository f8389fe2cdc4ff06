"""Random views of an input, and the choice among them. One call draws the same views for every row of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rlbench.encoders.heads import ZeroShot

SMALLEST = 0.5  # share of a view's rows and columns


def draw_views(x: Tensor, n: int) -> Iterator[Tensor]:
    """Yields n views of x, the first of which is x itself.

    A view is a crop of a uniform share in [SMALLEST, 1] of the last two axes at a uniform place, resized bilinearly.
    The numbers come from torch's global generator; they do not depend on the batch.

    Args:
        x: (B, *shape) with at least three axes.
        n: the number of views, at least 1.
    """
    yield x
    h, w = x.shape[-2:]
    for share, top, left in torch.rand(n - 1, 3).tolist():
        rows, columns = (max(1, round(size * (SMALLEST + (1 - SMALLEST) * share))) for size in (h, w))
        i, j = int(top * (h - rows + 1)), int(left * (w - columns + 1))
        crop = x[..., i : i + rows, j : j + columns]
        frames = crop.reshape(len(x), -1, rows, columns)
        yield interpolate(frames, size=(h, w), mode="bilinear", align_corners=False).reshape(x.shape)


def take_surest(plain: ZeroShot, embedded: Tensor, n: int) -> Tensor:
    """Of the embeddings (V, B, D) of V views, for each example the n (n, B, D) whose predictions have least entropy.

    The choice is a constant for the gradient.
    """
    with torch.no_grad():
        logits = plain.logit_scale * (embedded @ plain.anchors.T)
        chosen = entropy(logits).topk(n, dim=0, largest=False).indices
    return embedded.gather(0, chosen[..., None].expand(-1, -1, embedded.shape[-1]))


def entropy(logits: Tensor) -> Tensor:
    """The entropy (...) in nats of the softmax of logits (..., C)."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)
