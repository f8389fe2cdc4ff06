"""Retrieval: when a rank counts as correct during an attack, and the recalls R@K of a gallery in both directions."""

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
    """Lowers the strongest rivals of each example's class to the weakest logit.

    Afterwards z_y > max_{j != y} z_j holds if and only if class y was among the first `count` + 1.

    Args:
        logits: (B, C).
        y: (B,) int64 classes.
        count: number of rivals to lower; below 1, the logits are returned as they are.

    Returns:
        (B, C) logits, differentiable except at the lowered values.
    """
    if count < 1:
        return logits
    rivals = logits.detach().scatter(1, y[:, None], float("-inf")).topk(count, 1).indices
    return logits.scatter(1, rivals, logits.detach().amin(1, keepdim=True).expand(-1, count))


class Ranked(Meter):
    """A meter of a retriever, for which an example is correct if its class has a rank up to `head.at`.

    Args:
        head: the retriever.
        labels: (n,) int64 classes of the examples, on the logits' device.
        n: number of examples.
        **options: the options of `Meter`.
    """

    def __init__(self, head: Retriever, labels: Tensor, n: int, **options: Any) -> None:
        super().__init__(head, n, **options)
        self.head, self.labels = head, labels

    def _call(self, x: Tensor, rows: Tensor) -> Tensor:
        y = self.labels[rows.to(self.labels.device)]
        self.classify = lambda x: without_rivals(self.head(x), y, self.head.at - 1)
        return super()._call(x, rows)


@dataclass(frozen=True)
class Gallery:
    """The M captions, or items of another sensor, of a gallery.

    Attributes:
        anchors: (M, D) float32 unit embeddings of the captions or items.
        owners: (M,) int64, the medium that each caption describes, as its class, or the scene of each item.
        medium: "text", or the sensor of the items. Of a sensor, medium k of a run is of scene k.
    """

    anchors: np.ndarray
    owners: np.ndarray
    medium: str = "text"

    def recalls(self, features: np.ndarray, labels: np.ndarray, *, whole: bool = True) -> dict[str, float]:
        """Computes R@1, R@5, R@10 and the median rank in both directions.

        Args:
            features: (N, D) unit embeddings of the media that were evaluated.
            labels: (N,) their classes; of a sensor's gallery, the scenes 0 to N - 1 take their place.
            whole: whether these are all media of the gallery.

        Returns:
            Recalls in [0, 1] and median ranks from 1, by names such as "x-to-text R@1" and "text-to-x median rank",
            where "text" is the gallery's medium. The queries of text-to-x are the captions of these media, which are
            ranked among these media only. If they are a part of the gallery, these names end in " of N", since such
            values are no recalls of the gallery.
        """
        labels = labels if self.medium == "text" else np.arange(len(features))
        scores = features.astype(np.float64) @ self.anchors.astype(np.float64).T
        asked = np.isin(self.owners, labels)
        own, sets = labels[:, None] == self.owners[None], np.arange(self.owners.max() + 1)
        by_set = score_classes(torch.from_numpy(scores), torch.from_numpy(self.owners)).numpy()
        found = {
            f"x-to-{self.medium}": ranks(by_set, labels[:, None] == sets[None]),
            f"{self.medium}-to-x": ranks(scores.T[asked], own.T[asked]),
        }
        return dict(_name_recalls(found, "" if whole else f" of {len(labels)}"))


def _name_recalls(found: Mapping[str, np.ndarray], part: str) -> Iterator[tuple[str, float]]:
    for direction, places in found.items():
        end = part if direction.endswith("-to-x") else ""
        yield from ((f"{direction} R@{k}{end}", round(recall_at(places, k), 6)) for k in DEPTHS)
        yield f"{direction} median rank{end}", float(np.median(places))


def gallery_of(head: ZeroShot) -> Gallery | None:
    """The gallery of a retriever; None for any other classifier, and for sensors that share only their classes."""
    if not isinstance(head, Retriever) or (head.medium != "text" and not head.paired):
        return None
    anchors = head.anchors.cpu().numpy()
    if head.medium != "text":
        return Gallery(anchors, np.arange(len(anchors)), head.medium)
    return Gallery(anchors, head.owners.cpu().numpy())
