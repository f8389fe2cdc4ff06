"""Retrieval: which of a gallery's captions belong to a medium, and which of its media to a caption?

The score of a medium x and a caption t is logit_scale * cos(e(x), e(t)). As a classifier, a gallery's classes are the
captions of each medium, and the logit of a class is the score of its best caption. So "correct" means R@1 of x-to-text,
a tie being an error, and an attack on x with any loss on these logits (cross-entropy, margin, DLR) lowers the rank of
the true captions: clean-correct media are attacked until another medium's caption is nearer. A task whose field `at` is
5 or 10 has R@5 or R@10 in its place: the 4 or 9 strongest rivals of each medium are out of the game, at any point that
the attack tries, so that it has to push the true captions behind them all and one more.

What is recorded besides, from the embeddings of the very media that the judge spoke of:

- x-to-text R@5 and R@10: the rank of a medium is that of its captions among the gallery's, where a medium's captions
  score as the best of them;
- text-to-x R@1, R@5 and R@10: the rank of a caption is that of its best medium among the media that were evaluated,
  each attacked against its own captions. All ranks are computed anew among the attacked media. Where these are a part
  of the gallery, N media, the names end in " of N": to find a medium among fewer is easier.

Under attack, "correct" is the robust recall; the others are bounds from above: the attack stops at the next rank, it
leaves media alone that are not so far in front when clean, and it raises no medium for captions of others. Ties count
against the encoder. Recall as in Radford et al., 2021, https://arxiv.org/abs/2103.00020, with several captions as in
Luo et al., 2021, https://arxiv.org/abs/2104.08860, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852. Who ranks
such captions one by one has the same x-to-text R@1, and R@5 and R@10 that are not higher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rlbench.core import Encoder, Modality, Task
from rlbench.core.errors import DataError
from rlbench.encoders.heads import Viewed, ZeroShot, prompts, zero_shot
from rlbench.encoders.outputs import embed, embed_text

DEPTHS = (1, 5, 10)


_BATCH = 256  # captions that are embedded at a time


@runtime_checkable
class Paired(Protocol):
    """What a task of retrieval adds."""

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """The captions of each class."""


@dataclass(frozen=True)
class Retriever(ZeroShot):
    """A classifier of media by their captions.

    Attributes:
        anchors: (M, D) unit embeddings of all captions.
        owners: (M,) int64, the class of each.
        at: what counts as correct: a rank up to this one.
    """

    owners: Tensor
    at: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) logits, differentiable in x."""
        return best(super().__call__(x), self.owners.to(x.device))

    def features(self, x: Tensor, batch_size: int) -> Tensor:
        """(B, *box.shape) -> (B, D) unit embeddings; these passes are not counted."""
        with torch.no_grad():
            parts = [x[i : i + batch_size] for i in range(0, len(x), batch_size)]
            return torch.cat([embed(self.encoder, part, self.modality) for part in parts])

    def twins(self) -> tuple[int, int] | None:
        """None: the captions of a gallery may well say the same."""
        return None


def best(scores: Tensor, owners: Tensor) -> Tensor:
    """(B, M) scores of captions -> (B, C), for each class that of its best caption. owners: (M,), all of 0..C-1."""
    if len(owners) == int(owners.max()) + 1:
        return scores[:, owners.argsort()]
    empty = scores.new_full((len(scores), int(owners.max()) + 1), float("-inf"))
    return empty.scatter_reduce(1, owners.expand_as(scores), scores, "amax", include_self=False)


def head_of(encoder: Encoder, modality: Modality, task: Task) -> ZeroShot:
    """The classifier of a task: by its captions or its classes' prompts, of whole clips or of views."""
    if isinstance(task, Paired):
        return retriever(encoder, modality, task.captions, at=getattr(task, "at", 1))
    head, views = zero_shot(encoder, modality, task.classes, task.templates), getattr(task, "views", 1)
    return head if views == 1 else Viewed(**vars(head), views=views)


def prompted(task: Task) -> str:
    """Hash of what a task gives the text tower: anchors may differ by the tower, or by this choice."""
    texts = list(task.captions) if isinstance(task, Paired) else [prompts(c.name, task.templates) for c in task.classes]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def first_and_last(task: Task) -> tuple[str, str]:
    """A prompt of the first class and one of the last: captions, or the classes' names in the first template."""
    if isinstance(task, Paired):
        return task.captions[0][0], task.captions[-1][0]
    ends = task.classes[0], task.classes[-1]
    first, last = (prompts(label.name, task.templates, label.phrase)[0] for label in ends)
    return first, last


def retriever(encoder: Encoder, modality: Modality, captions: Sequence[Sequence[str]], *, at: int = 1) -> Retriever:
    """Embeds a gallery's captions once, as they are. Raises: DataError where it has too few for this rank."""
    if len(captions) <= at:
        raise DataError(
            f"a gallery of {len(captions)} sets of captions is too small for R@{at}; give more, or a smaller at"
        )
    texts = [text for one in captions for text in one]
    owners = [k for k, one in enumerate(captions) for _ in one]
    with torch.no_grad():
        rows = [embed_text(encoder, texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    return Retriever(encoder, modality, torch.cat(rows), torch.tensor(owners), at)
