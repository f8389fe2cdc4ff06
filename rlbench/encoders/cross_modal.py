"""Retrieval across sensors: a classifier of one sensor's inputs by the embeddings of another sensor's gallery.

It is the retriever of captions with the items of the gallery in place of captions. As a classifier, the logit of a
class is the score of its best item, so that a query is right if the first hit has its class, and an attack pushes every
item of that class behind another. Where each scene is a class, right means that the first hit is the very scene.
Emergent alignment of sensors that were trained with text only: Girdhar et al., 2023 (ImageBind),
https://arxiv.org/abs/2305.05665.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rlbench.core import Box, Encoder, Examples, Modality, Task
from rlbench.core.errors import DataError
from rlbench.encoders.outputs import embed
from rlbench.encoders.retrieval import Retriever

_BATCH = 64  # items per call


@runtime_checkable
class CrossModalTask(Protocol):
    """What a retrieval task across sensors adds to a Task.

    Attributes:
        medium: the sensor of the gallery.
        gallery_size: the number of its items.
        pairing: "paired" if query k and item k are of one scene.
    """

    @property
    def medium(self) -> Modality: ...

    @property
    def gallery_size(self) -> int: ...

    @property
    def pairing(self) -> str: ...

    def load_gallery(self, box: Box, start: int, stop: int) -> Examples:
        """Items start..stop-1 of the gallery at the box of its sensor."""


def sensor_retriever(
    encoder: Encoder, modality: Modality, task: Task, gallery: Encoder, *, source: str, device: str = "cpu"
) -> Retriever:
    """A classifier of queries, for which the whole gallery is embedded once.

    Args:
        encoder: embeds the queries.
        modality: the sensor of the queries.
        task: the retrieval task, a `CrossModalTask`.
        gallery: embeds the gallery: the same model, with the gallery's sensor.
        source: the identity of `gallery`, which the embeddings depend on besides the data.
        device: of both encoders.

    Raises:
        DataError: an item can't be read, or a class has none, so that the gallery is not complete.
    """
    assert isinstance(task, CrossModalTask)
    box, rows, labels = gallery.boxes[task.medium], list[Tensor](), list[Tensor]()
    for start in range(0, task.gallery_size, _BATCH):
        examples = task.load_gallery(box, start, start + _BATCH)
        with torch.no_grad():
            rows.append(embed(gallery, examples.x.to(device), task.medium))
        labels.append(examples.y)
    owners = torch.cat(labels)
    lacking = sorted(set(range(len(task.classes))) - set(owners.tolist()))
    if lacking:
        raise DataError(f"the gallery has no {task.medium} of {task.classes[lacking[0]].name!r}; every class needs one")
    at = getattr(task, "at", 1)
    if len(task.classes) <= at:
        raise DataError(f"a gallery of {len(task.classes)} scenes is too small for R@{at}; give more, or a smaller at")
    paired = task.pairing == "paired"
    return Retriever(encoder, modality, torch.cat(rows), owners, at, medium=task.medium, source=source, paired=paired)
