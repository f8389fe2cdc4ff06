"""Loads and renders what a run needs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

from rlbench import registry
from rlbench.checkpoints import load_encoder, models
from rlbench.core import Label, Modality, Suite, Task
from rlbench.errors import CheckpointError, FieldError, ModalityError
from rlbench.learning import Trainable
from rlbench.training.data import anchors, captions, classes_of, replay_task, task_of
from rlbench.training.loop import Run, Stream
from rlbench.training.lora import inject
from rlbench.training.pool import Pool, pool
from rlbench.training.recipe import RANDOM, Recipe

READ = Callable[[int, int], None]
STAGE1 = "rlbind-stage1:"  # what the recipes of a second stage start from


def prepared(recipe: Recipe, modality: Modality, suite: Suite | None = None, read: READ = lambda done, of: None) -> Run:
    """The run of a recipe; `read` is told how many examples of how many are there.

    Raises:
        ModalityError: the backbone lacks it. UnknownName, CheckpointError: of init or original. DataError: no examples.
        FieldError: a replayed share of no example or of all, or of a suite; crops of audio; checkpointing or lora of a
            tower that can't.
    """
    encoder = _initial(recipe, modality)
    if modality not in encoder.boxes:
        raise ModalityError(f"{recipe.backbone} has no {modality}; it has {', '.join(encoder.boxes)}")
    if recipe.crop and modality == "audio":
        raise FieldError("recipe: crop is for pictures and clips, audio is not cropped; leave it out")
    replayed = round(recipe.replay * recipe.batch)
    if recipe.replay and not 0 < replayed < recipe.batch:
        raise FieldError(f"recipe: a replay of {recipe.replay} of {recipe.batch} examples leaves a part of them empty")
    if replayed and suite is not None:
        raise FieldError("recipe: replay needs a procedural world; a suite's data has no unlabelled part")
    original = _original(recipe, encoder, modality)
    task = task_of(recipe, modality, suite)
    data = pool(task, encoder.boxes[modality], recipe.examples, whole=recipe.crop > 0, read=read)
    streams = [_labelled(recipe, encoder, modality, task, data, recipe.batch - replayed)]
    if replayed:
        streams.append(_replayed(recipe, encoder, modality, replayed, read))
    tower = encoder.tower(modality)
    if recipe.checkpointing:
        _checkpointed(tower, recipe)
    tower.requires_grad_(True)
    if recipe.lora:
        inject(tower, recipe.lora, seed=recipe.seed, name=recipe.backbone)
    return Run(recipe, modality, suite, encoder, original, tuple(streams))


def loaded(name: str, modality: Modality) -> Trainable:
    """A model whose towers can be trained. Raises: UnknownName, CheckpointError, ModalityError."""
    encoder = load_encoder(name, modality)
    if not all(hasattr(encoder, needed) for needed in ("tower", "features", "save")):
        raise CheckpointError(f"{name} has no towers that can be trained; recipes start from mini or vit-l-14 encoders")
    return cast(Trainable, encoder)


def _original(recipe: Recipe, encoder: Trainable, modality: Modality) -> Trainable | None:
    """The frozen original; of random weights, a copy of them."""
    if recipe.original is None:
        return None
    return copy.deepcopy(encoder) if recipe.init == RANDOM else loaded(recipe.original, modality)


def _initial(recipe: Recipe, modality: Modality) -> Trainable:
    """The encoder that a run starts from: a model's, or random weights from the recipe's seed."""
    if recipe.init.startswith(STAGE1) and recipe.init not in {m.name for m in models()}:
        raise CheckpointError(
            f"stage 2 starts from {recipe.init}, which is not here: rlbench train rlbind:{recipe.backbone} --stage 1 "
            f"--modality {modality} makes it; then --set init=ITS_FOLDER"
        )
    if recipe.init != RANDOM:
        return loaded(recipe.init, modality)
    model = next((m for m in models() if m.backbone == recipe.backbone and m.baseline == "languagebind"), None)
    if model is None:
        raise FieldError(f"recipe: there is no backbone {recipe.backbone!r} to draw random weights of")
    if modality not in model.modalities:
        raise ModalityError(f"{recipe.backbone} has no {modality}; it has {', '.join(model.modalities)}")
    fields = {**model.fields, "fresh": (modality,), "seed": recipe.seed}
    return cast(Trainable, registry.make("encoder", model.family, fields))


def _checkpointed(tower: object, recipe: Recipe) -> None:
    enable = getattr(tower, "gradient_checkpointing_enable", None)
    if enable is None:
        raise FieldError(f"recipe: checkpointing is of no use to {recipe.backbone}; leave it out")
    enable()


def _labelled(recipe: Recipe, encoder: Trainable, modality: Modality, task: Task, data: Pool, size: int) -> Stream:
    classes = classes_of(recipe, task)
    return Stream(
        data=data,
        size=size,
        objective=recipe.made,
        weight=1.0,
        classes=classes,
        anchors=anchors(encoder, classes, task, modality),
        captions=captions(encoder, task),
    )


def _replayed(recipe: Recipe, encoder: Trainable, modality: Modality, size: int, read: READ) -> Stream:
    """Unlabelled examples; their anchors are all the world's classes."""
    task = replay_task(modality)
    classes: tuple[Label, ...] = task.classes
    return Stream(
        data=pool(task, encoder.boxes[modality], recipe.examples, read=read),
        size=size,
        objective=registry.make("objective", "distribution"),
        weight=recipe.replay_weight,
        classes=classes,
        anchors=anchors(encoder, classes, task, modality),
        captions=captions(encoder, task),
        name="replayed",
    )
