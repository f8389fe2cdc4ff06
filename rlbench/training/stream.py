"""What a training run of one modality consists of: its models and the kinds of the rows of its batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from rlbench.core import Ball, Label, Modality, Suite, Threat
from rlbench.core.threat import ball_of, parse_eps
from rlbench.encoders.cards import Weights
from rlbench.training.examples import TrainSet
from rlbench.training.recipe import Recipe
from rlbench.training.types import Objective, Trainable


@dataclass(frozen=True)
class Stream:
    """One kind of the rows of a batch: labelled or replayed.

    Attributes:
        data: the examples.
        size: the rows of a batch, over all processes.
        objective: the loss of these rows.
        weight: the weight of that loss.
        classes: the C classes that the loss compares with.
        anchors: (C, D) unit rows.
        captions: (K, P, D) unit rows, the embedding of each of the task's K classes in each of its P templates.
        name: seeds the random draws.
    """

    data: TrainSet
    size: int
    objective: Objective
    weight: float
    classes: tuple[Label, ...]
    anchors: Tensor
    captions: Tensor
    name: str = "labelled"


@dataclass(frozen=True)
class Run:
    """The training of one modality; `streams` are the kinds of rows of a batch, labelled ones first.

    `repeats` are the examples of the data's other splits that are in the train split, too, in words; `start` is the
    card's entry of the weights that the run starts from, None for random ones.
    """

    recipe: Recipe
    modality: Modality
    suite: Suite | None
    encoder: Trainable
    original: Trainable | None
    streams: tuple[Stream, ...]
    repeats: tuple[str, ...] = ()
    start: Weights | None = None

    @cached_property
    def ball(self) -> Ball:
        return ball_of(Threat("linf", parse_eps(self.recipe.eps)), self.streams[0].data.box)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.streams[0].data.epoch // self.streams[0].size)

    @property
    def steps(self) -> int:
        return self.recipe.steps or self.recipe.epochs * self.steps_per_epoch
