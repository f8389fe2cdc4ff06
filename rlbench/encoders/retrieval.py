"""Retrieval: which captions of a gallery belong to a medium, and which media to a caption?

The score of a medium x and a caption t is logit_scale * cos(e(x), e(t)). As a classifier, a gallery's classes are the
captions of each medium, and the logit of a class is the score of its best caption. So "correct" means x-to-text
R@1, where a tie is an error. An attack on x with any loss on these logits (cross-entropy, margin, DLR) lowers the rank
of the true captions: it attacks clean-correct media until another medium's caption is nearer. If the field `at` of a
task is 5 or 10, "correct" means R@5 or R@10: at every point that the attack tries, the 4 or 9 strongest rivals of a
medium are left out, so the attack has to push the true captions behind all of them and one more.

Also recorded, from the embeddings of the same media that the judge evaluated:

- x-to-text R@5 and R@10: the rank of a medium is that of its captions among the gallery's, where a set of captions
  has the score of its best caption;
- text-to-x R@1, R@5 and R@10: the rank of a caption is that of its best medium among the evaluated media, each
  attacked against its own captions; all ranks are computed among the attacked media. If only N media of the gallery
  are evaluated, the names end in " of N": finding a medium among fewer is easier.

Under attack, "correct" is the robust recall. The other recalls are upper bounds: the attack stops at the next rank, it
skips media that are not clean-correct, and it raises no medium for the captions of others. Ties count as errors. Recall
as in Radford et al., 2021, https://arxiv.org/abs/2103.00020, with several captions as in Luo et al., 2021,
https://arxiv.org/abs/2104.08860, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852. Ranking the captions one by
one gives the same x-to-text R@1, and an R@5 and R@10 that are not higher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rlbench.core import Encoder, Modality, Task
from rlbench.core.errors import DataError
from rlbench.encoders.black_box.classes import FixedClasses, head_of_classes
from rlbench.encoders.heads import Resized, Viewed, ZeroShot, prompts, zero_shot
from rlbench.encoders.outputs import embed_text

DEPTHS = (1, 5, 10)


_BATCH = 256  # captions per call


@runtime_checkable
class Paired(Protocol):
    """What a retrieval task adds to a Task."""

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """The captions of each class."""


@dataclass(frozen=True)
class Retriever(ZeroShot):
    """A classifier of media by their captions.

    Attributes:
        anchors: (M, D) unit embeddings of all captions.
        owners: (M,) int64, the class of each.
        at: a rank up to this one counts as correct.
        medium: what the gallery holds: "text", or a sensor.
        source: the identity of the encoder of a sensor's gallery; "" for captions, whose embeddings identify them.
        paired: whether item k of a sensor's gallery is of the same scene as medium k.
    """

    owners: Tensor
    at: int = 1
    medium: str = field(default="text", kw_only=True)
    source: str = field(default="", kw_only=True)
    paired: bool = field(default=False, kw_only=True)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits, differentiable in x."""
        return score_classes(super().__call__(x), self.owners.to(x.device))

    def features(self, x: Tensor, batch_size: int) -> Tensor:
        """(B, *box.shape) -> (B, D) unit embeddings; these passes are not counted."""
        with torch.no_grad():
            parts = [self.embed(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
            return torch.cat([self.anchors.new_empty(0, self.anchors.shape[1]), *parts])

    def anchors_hash(self) -> str:
        """A hash of the captions' embeddings, or of what a sensor's gallery is embedded with."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16] if self.source else super().anchors_hash()

    def find_duplicate_anchors(self) -> tuple[int, int] | None:
        """None: a gallery may have equal captions."""
        return None


def score_classes(scores: Tensor, owners: Tensor) -> Tensor:
    """The score of each class, which is that of its best caption.

    Args:
        scores: (B, M), of the captions.
        owners: (M,) int64, the class of each caption; all of 0..C-1 occur.

    Returns: (B, C).
    """
    if len(owners) == int(owners.max()) + 1:
        return scores[:, owners.argsort()]
    empty = scores.new_full((len(scores), int(owners.max()) + 1), float("-inf"))
    return empty.scatter_reduce(1, owners.expand_as(scores), scores, "amax", include_self=False)


def head_of(encoder: Encoder, modality: Modality, task: Task) -> ZeroShot:
    """The classifier of a task, by its captions or by the prompts of its classes.

    A task may have `views`, of a clip; `resolution`, of pictures that are resized inside the model; and `logit_scale`.
    """
    if isinstance(encoder, FixedClasses):
        return head_of_classes(encoder, modality, task)
    scale: float | None = getattr(task, "logit_scale", None)
    if isinstance(task, Paired):
        if getattr(encoder, "needs_classes", False):
            raise DataError("the defence acts on a task's classes, so it can't do retrieval; choose another suite")
        return replace(retriever(encoder, modality, task.captions, at=getattr(task, "at", 1)), scale=scale)
    head = replace(zero_shot(encoder, modality, task.classes, task.templates), scale=scale)
    if (views := getattr(task, "views", 1)) > 1:
        return Viewed(**vars(head), views=views)
    if resolution := getattr(task, "resolution", 0):
        return Resized(**vars(head), resolution=resolution)
    return head


def hash_prompts(task: Task) -> str:
    """A hash of the texts that a task gives the text tower, on which the anchors depend besides the tower."""
    texts = list(task.captions) if isinstance(task, Paired) else [prompts(c.name, task.templates) for c in task.classes]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def first_and_last(task: Task) -> tuple[str, str]:
    """One prompt each of the first and the last class: a caption, or the class name in the first template."""
    if isinstance(task, Paired):
        return task.captions[0][0], task.captions[-1][0]
    ends = task.classes[0], task.classes[-1]
    first, last = (prompts(label.name, task.templates, label.phrase)[0] for label in ends)
    return first, last


def retriever(encoder: Encoder, modality: Modality, captions: Sequence[Sequence[str]], *, at: int = 1) -> Retriever:
    """A classifier of media, for which the captions of a gallery are embedded once.

    Args:
        encoder: embeds media and captions.
        modality: the modality of the media.
        captions: one or more of each class, used without templates.
        at: a rank up to this one counts as correct.

    Raises: DataError: there are too few captions for this rank.
    """
    if len(captions) <= at:
        raise DataError(
            f"a gallery of {len(captions)} sets of captions is too small for R@{at}; give more, or a smaller at"
        )
    texts = [text for one in captions for text in one]
    owners = [k for k, one in enumerate(captions) for _ in one]
    with torch.no_grad():
        rows = [embed_text(encoder, texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    return Retriever(encoder, modality, torch.cat(rows), torch.tensor(owners), at)
