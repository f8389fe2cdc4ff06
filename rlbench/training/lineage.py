"""Where a model's weights come from: the trainings and merges between it and its backbone, as the cards tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError
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
        UnknownName, CheckpointError: A model that its card names is missing, or starts from itself.
    """
    weights = resolve(name).weights.get(modality)
    trained = weights.trained if weights is not None else {}
    own = Origin(name, weights.sha256 if weights is not None else "", str(trained.get("init", RANDOM)), trained)
    yield own
    if depth > LONGEST:
        raise CheckpointError(f"{name} starts from itself by its card; merge models with an intact card")
    for one in trained.get("merged", ()):
        yield from trace(str(one["model"]), modality, depth + 1)
    if own.init != RANDOM:
        yield from trace(own.init, modality, depth + 1)


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
