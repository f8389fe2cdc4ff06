"""Where a model's weights come from: the trainings and merges between it and its backbone, as the cards tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError, UnknownName
from rlbench.encoders.models import resolve
from rlbench.training.recipe import RANDOM

PASSES = ("forwards", "backwards")
LONGEST = 32  # trainings on end; a longer lineage is a card that names itself


@dataclass(frozen=True)
class Origin:
    """Weights that a model's weights come from, itself included.

    Attributes:
        name: the model.
        sha256: of the weights; "" if unknown.
        init: the model that they started from; `RANDOM` for a backbone.
        trained: the card's facts.
    """

    name: str
    sha256: str
    init: str
    trained: Mapping[str, Any]

    @property
    def identity(self) -> str:
        return self.sha256 or self.name


def trace(name: str, modality: Modality, depth: int = 0) -> Iterator[Origin]:
    """Yields what a model's weights of a modality come from: itself, the models merged into it, and its backbone last.

    Raises:
        UnknownName: There is no model of the name.
        CheckpointError: A model that a card names is missing, has other weights now, or starts from itself.
    """
    weights = resolve(name).weights.get(modality)
    trained = weights.trained if weights is not None else {}
    own = Origin(name, weights.sha256 if weights is not None else "", str(trained.get("init", RANDOM)), trained)
    yield own
    if depth > LONGEST:
        raise CheckpointError(f"{name} starts from itself by its card; merge models with an intact card")
    for one in trained.get("merged", ()):
        yield from _follow(str(one["model"]), str(one.get("sha256", "")), name, modality, depth)
    if own.init != RANDOM:
        yield from _follow(own.init, str(trained.get("init_sha256", "")), name, modality, depth)


def _follow(name: str, sha256: str, of: str, modality: Modality, depth: int) -> Iterator[Origin]:
    """Traces a model that another one's card names.

    Args:
        name: the model.
        sha256: that of its weights when the other one was made; "" if unknown.
        of: the other one.
        modality: what they embed.
        depth: the number of models before it.

    Raises:
        CheckpointError: The model is missing, or has other weights now.
    """
    origins = trace(name, modality, depth + 1)
    try:
        first = next(origins)
    except (UnknownName, CheckpointError) as error:
        raise CheckpointError(f"{of} comes from {name} by its card, which is missing; put it back") from error
    if sha256 not in ("", first.sha256):
        raise CheckpointError(f"{of} comes from {name} by its card, which has other weights now; put the former back")
    yield first
    yield from origins


def find_backbone(name: str, modality: Modality) -> Origin:
    """Finds the backbone that a model was fine-tuned from; of a backbone, itself. Raises: as `trace`."""
    *_, last = trace(name, modality)
    return last


def sum_passes(names: Sequence[str], modality: Modality) -> dict[str, int]:
    """Sums the passes of all trainings since the backbone, those that several models share once. Raises: as `trace`."""
    every = {one.identity: one for name in names for one in trace(name, modality) if one.init != RANDOM}
    return {key: sum(int(one.trained.get("passes", {}).get(key, 0)) for one in every.values()) for key in PASSES}


def list_seen(names: Sequence[str], modality: Modality) -> list[str]:
    """Lists what the trainings of models saw of unseen classes."""
    seen = (text for name in names for text in next(trace(name, modality)).trained.get("sees", []))
    return list(dict.fromkeys(seen))
