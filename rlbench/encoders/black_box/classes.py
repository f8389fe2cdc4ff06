"""Encoders with fixed classes, which answer scores or labels instead of embeddings, and their classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlbench.core import Modality, Task
from rlbench.core.errors import AnswerError, DataError, RLBenchError
from rlbench.core.knowledge import knowledge_of
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.outputs import describe

SHOWN = 5  # classes that a message lists


@runtime_checkable
class FixedClasses(Protocol):
    """What an encoder adds that knows its own classes and no prompts."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes, in the order of its answers."""

    def classify(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) scores; for labels see `scores_of_labels`."""


@runtime_checkable
class Metered(Protocol):
    """What an encoder adds whose queries cost something: rlbench asks nothing of it before a run."""

    def keep_account(self, folder: Path) -> None:
        """Counts the queries in this folder of the store from now on."""


class WithoutPrompts:
    """Base of encoders with fixed classes: they have no embeddings."""

    logit_scale = 1.0

    def embed(self, x: Tensor, modality: Modality) -> NoReturn:
        """Raises: RLBenchError."""
        raise RLBenchError(
            "this encoder answers for fixed classes and has no embeddings; use it in a classification suite"
        )

    def embed_text(self, prompts: Sequence[str]) -> NoReturn:
        """Raises: RLBenchError."""
        raise RLBenchError(
            "this encoder answers for fixed classes and embeds no prompts; use it in a classification suite"
        )


@dataclass(frozen=True)
class FixedHead(ZeroShot):
    """The classifier of an encoder with fixed classes; row c of `anchors` is 1 at the encoder's place of class c."""

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) scores. Raises: AnswerError: another number of rows or of classes."""
        wanted = len(x), self.anchors.shape[1]
        found = self.encoder.classify(x.clone(), self.modality)  # type: ignore[attr-defined]
        if not isinstance(found, Tensor) or found.shape != wanted or not found.is_floating_point():
            raise AnswerError(
                f"classify returned {describe(found)} for {wanted[0]} inputs; it must return {wanted} floats"
            )
        scores: Tensor = found.float().to(x.device)[:, self.anchors.argmax(1)]
        return scores


def scores_of_labels(labels: Tensor, classes: int) -> Tensor:
    """(B,) int64 -> (B, classes) float32: 1 for the label, -1 for all others."""
    return 2.0 * one_hot(labels, classes) - 1


def head_of_classes(encoder: FixedClasses, modality: Modality, task: Task) -> FixedHead:
    """The classifier of a task, whose classes are found among the encoder's by name or by the data's label.

    Case, underscores and white space do not matter.

    Raises: DataError: a class is missing, or the task is about retrieval; or the encoder answers labels of more classes
        than the task has, which would hide its errors.
    """
    if hasattr(task, "captions") or hasattr(task, "load_gallery"):
        raise DataError(
            "the encoder answers for fixed classes, so it can't do retrieval; choose a classification suite"
        )
    if getattr(task, "views", 1) > 1:
        raise DataError("the encoder answers for fixed classes, and takes one view of a clip; set views: 1")
    places = {_plain(name): k for k, name in enumerate(encoder.classes)}
    columns = []
    for one in task.classes:
        place = places.get(_plain(one.name), places.get(_plain(one.label)))
        if place is None:
            raise DataError(
                f"the encoder answers for {_list(encoder.classes)}; the task also has {one.name!r}: both need the same "
                "class names"
            )
        columns.append(place)
    more = [name for k, name in enumerate(encoder.classes) if k not in columns]
    if more and knowledge_of(encoder) == "label":
        raise DataError(
            f"the encoder also answers the label {more[0]!r}, which the task lacks: both need the same classes"
        )
    return FixedHead(encoder, modality, one_hot(torch.tensor(columns), len(encoder.classes)).float())  # type: ignore[arg-type]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} classes, {', '.join(map(repr, names[:SHOWN]))}{more}"


def check_classes(names: Sequence[str], source: str) -> tuple[str, ...]:
    """The names as a tuple. Raises: RLBenchError: fewer than two, or two that are equal but for case and spaces."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(_plain(name), name)) != name or not name.strip():
            raise RLBenchError(f"{source}: the classes {other!r} and {name!r} can't be told apart")
    if len(names) < 2 or len(seen) < len(names):
        raise RLBenchError(f"{source}: classes has {_list(names)}; it must have two or more different names")
    return tuple(names)
