"""Ranks of a retrieval task: R@K in both directions, exact or as bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlbench.core.stats.metrics import ranks, recall_at
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.retrieval import DEPTHS, Retriever, score_classes
from rlbench.engine.attack.meter import Meter


def without_rivals(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """(B, C) logits where each example's `count` strongest rivals of its class y (B,) fall to the weakest logit.

    So z_y > max_{j != y} z_j holds if and only if y is among the first count + 1 before.
    """
    if count < 1:
        return logits
    rivals = logits.detach().scatter(1, y[:, None], float("-inf")).topk(count, 1).indices
    return logits.scatter(1, rivals, logits.detach().amin(1, keepdim=True).expand(-1, count))


class Ranked(Meter):
    """A meter of a Retriever, for which a rank up to its `at` is correct. labels: (n,), on the logits' device."""

    def __init__(self, head: Retriever, labels: Tensor, n: int, **options: Any) -> None:
        super().__init__(head, n, **options)
        self.head, self.labels = head, labels

    def _call(self, x: Tensor, rows: Tensor) -> Tensor:
        y = self.labels[rows.to(self.labels.device)]
        self.classify = lambda x: without_rivals(self.head(x), y, self.head.at - 1)
        return super()._call(x, rows)


@dataclass(frozen=True)
class Gallery:
    """The captions of a gallery: anchors (M, D) float32 and owners (M,), as a Retriever's, in numpy."""

    anchors: np.ndarray
    owners: np.ndarray

    def recalls(self, features: np.ndarray, labels: np.ndarray, *, whole: bool = True) -> dict[str, float]:
        """R@1, R@5, R@10 and the median rank in both directions.

        Args:
            features: (N, D) unit embeddings of the media that were evaluated.
            labels: (N,) their classes.
            whole: these are all media of the gallery, among which a caption is ranked.

        Returns:
            Shares in [0, 1] by "x-to-text R@1", ..., and "text-to-x median rank". The queries of text-to-x are the
            captions of these media; of a part of the gallery the names end in " of N": they are no recalls of it.
        """
        scores = features.astype(np.float64) @ self.anchors.astype(np.float64).T
        asked = np.isin(self.owners, labels)
        own, sets = labels[:, None] == self.owners[None], np.arange(self.owners.max() + 1)
        by_set = score_classes(torch.from_numpy(scores), torch.from_numpy(self.owners)).numpy()
        found = {
            "x-to-text": ranks(by_set, labels[:, None] == sets[None]),
            "text-to-x": ranks(scores.T[asked], own.T[asked]),
        }
        return dict(_name_recalls(found, "" if whole else f" of {len(labels)}"))


def _name_recalls(found: Mapping[str, np.ndarray], part: str) -> Iterator[tuple[str, float]]:
    for direction, places in found.items():
        end = part if direction == "text-to-x" else ""
        yield from ((f"{direction} R@{k}{end}", round(recall_at(places, k), 6)) for k in DEPTHS)
        yield f"{direction} median rank{end}", float(np.median(places))


def gallery_of(head: ZeroShot) -> Gallery | None:
    """The gallery of a Retriever; None of another classifier."""
    if not isinstance(head, Retriever):
        return None
    return Gallery(head.anchors.cpu().numpy(), head.owners.cpu().numpy())
