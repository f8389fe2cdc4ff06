"""Preparation of a run: loads its models and examples, and checks what can be checked before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import cast

from rlbench.core import Label, Modality, Suite, Task, registry
from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.encoders.cards import Model
from rlbench.encoders.models import load_encoder, models, resolve
from rlbench.training.data import choose_task, embed_anchors, embed_captions, list_classes, list_tasks, make_replay_task
from rlbench.training.examples import TrainSet, load_train_set
from rlbench.training.lora import inject
from rlbench.training.recipe import RANDOM, Recipe
from rlbench.training.splits import hash_training, list_repeats
from rlbench.training.stream import Run, Stream
from rlbench.training.types import Need, Trainable

OnRead = Callable[[int, int], None]
STAGE1 = "rlbind-stage1:"  # the models that recipes of a second stage start from
PAIRED: Mapping[Need, str] = {"peers": "fused needs", "peers_adv": "joint and negatives need"}


def prepare(
    recipe: Recipe, modality: Modality, suite: Suite | None = None, read: OnRead = lambda done, of: None
) -> Run:
    """Loads the models and examples of a run.

    Args:
        recipe: the recipe.
        modality: what to train.
        suite: train on its train split; None: on the modality's procedural world.
        read: called with the number of examples read so far, and of all.

    Raises:
        ModalityError: The backbone does not have the modality.
        UnknownName: There is no model of the name `init` or `original`.
        CheckpointError: `init` or `original` can't be loaded or trained.
        DataError: There are no examples.
        FieldError: The replayed share is no example or all of them; replay with a suite; crops of audio; checkpointing
            or lora with a tower that does not support it.
    """
    check_start(recipe, modality, suite)
    start = None if recipe.init == RANDOM else resolve(recipe.init).weights[modality]
    encoder = _load_start(recipe, modality)
    if modality not in encoder.boxes:
        raise ModalityError(f"{recipe.backbone} has no {modality}; it has {', '.join(encoder.boxes)}")
    replayed = round(recipe.replay * recipe.batch)
    original = _load_original(recipe, encoder, modality)
    task = choose_task(recipe, modality, suite)
    data = load_train_set(task, encoder.boxes[modality], recipe.examples, whole=recipe.crop > 0, read=read)
    streams = [_labelled_stream(recipe, encoder, modality, task, data, recipe.batch - replayed)]
    if replayed:
        streams.append(_replay_stream(recipe, encoder, modality, replayed, read))
    tower = encoder.tower(modality)
    if recipe.checkpointing:
        _checkpoint_activations(tower, recipe)
    tower.requires_grad_(True)
    if recipe.lora:
        inject(tower, recipe.lora, seed=recipe.seed, name=recipe.backbone)
    repeats = list_repeats(task, suite.name) if suite else ()
    return Run(recipe, modality, suite, encoder, original, tuple(streams), repeats, start)


def load_trainable(name: str, modality: Modality) -> Trainable:
    """Loads a model whose towers can be trained. Raises: UnknownName, CheckpointError, ModalityError."""
    encoder = load_encoder(name, modality)
    if not all(hasattr(encoder, needed) for needed in ("tower", "features", "save")):
        raise CheckpointError(f"{name} has no towers that can be trained; recipes start from mini or vit-l-14 encoders")
    return cast(Trainable, encoder)


def _load_original(recipe: Recipe, encoder: Trainable, modality: Modality) -> Trainable | None:
    """Loads the frozen original; for random weights, it is a copy of them."""
    if recipe.original is None:
        return None
    return copy.deepcopy(encoder) if recipe.init == RANDOM else load_trainable(recipe.original, modality)


def check_start(recipe: Recipe, modality: Modality, suite: Suite | None) -> None:
    """Checks a recipe before anything is loaded. Raises: see `prepare`."""
    if recipe.init.startswith(STAGE1) and recipe.init not in {m.name for m in models()}:
        raise CheckpointError(
            f"stage 2 starts from {recipe.init}, which is not installed; train it by rlbench train "
            f"rlbind:{recipe.backbone} --stage 1 --modality {modality}, then add --set init=ITS_FOLDER"
        )
    if recipe.init == RANDOM:
        _check_modality(_find_backbone(recipe), modality)
    else:
        for name in filter(None, (recipe.init, recipe.original)):
            _check_backbone(resolve(name), recipe, modality)
    if recipe.crop and modality == "audio":
        raise FieldError("recipe: crop is for pictures and clips, audio is not cropped; leave crop out")
    if recipe.replay and not 0 < round(recipe.replay * recipe.batch) < recipe.batch:
        raise FieldError(f"recipe: a replay of {recipe.replay} of {recipe.batch} examples leaves a part of them empty")
    paired = recipe.world is not None if suite is None else _is_paired(suite)
    for need, names in PAIRED.items():
        if need in recipe.objective_plugin.needs and not paired:
            raise FieldError(f"recipe: {names} paired examples, as in `world: scenes`; leave it out")
    if recipe.replay and suite is not None:
        raise FieldError("recipe: replay needs a procedural world; a suite's data has no unlabelled part")


def _is_paired(suite: Suite) -> bool:
    return len(list_tasks(suite)) > 1 and getattr(suite.task, "pairing", "") == "paired"


def _check_modality(model: Model, modality: Modality) -> None:
    if model.modalities and modality not in model.modalities:
        raise ModalityError(f"{model.name} has no {modality}; it has {', '.join(model.modalities)}")


def _check_backbone(model: Model, recipe: Recipe, modality: Modality) -> None:
    """Raises: ModalityError, CheckpointError: a model is no checkpoint of the recipe's backbone."""
    _check_modality(model, modality)
    if model.name.startswith("random:"):
        raise CheckpointError(f"{model.name} is no checkpoint; give --set init={RANDOM}")
    families = {one.family for one in models() if one.baseline == "languagebind"}
    if model.defences or model.family not in families or modality not in model.weights:
        raise CheckpointError(
            f"{model.name} has no towers that can be trained; recipes start from mini or vit-l-14 encoders with a card"
        )
    if model.backbone != recipe.backbone:
        raise CheckpointError(
            f"{model.name} has the backbone {model.backbone}, the recipe {recipe.backbone}; `init` and `original` must "
            f"have the recipe's: train METHOD:{model.backbone}, or name another model"
        )


def check_shares(recipe: Recipe, processes: int) -> None:
    """Checks that processes can share each kind of a batch's rows equally. Raises: FieldError."""
    replayed = round(recipe.replay * recipe.batch)
    for name, size in (("labelled", recipe.batch - replayed), ("replayed", replayed)):
        if size % (recipe.accumulate * processes):
            raise FieldError(
                f"recipe: {size} {name} examples of a batch can't be shared equally by "
                f"{processes} processes in {recipe.accumulate} parts"
            )


def compute_checksums(recipe: Recipe, modality: Modality, suite: Suite | None) -> dict[str, str]:
    """Returns the hashes of a run's data and the sha256 of `init` and `original`, by their descriptions.

    The fingerprint of a published data set covers its test split alone.

    Raises: see `prepare`.
    """
    check_start(recipe, modality, suite)
    task = choose_task(recipe, modality, suite)
    found = {f"the data of {modality}": task.fingerprint()}
    if (trains := hash_training(task)) is not None:
        found[f"the train split of {modality}"] = trains
    if recipe.init != RANDOM:
        starts = {name: resolve(name).sha256.get(modality, "") for name in (recipe.init, recipe.original) if name}
        found |= {f"{modality} of {name}": sha256 for name, sha256 in starts.items()}
    return found


def _find_backbone(recipe: Recipe) -> Model:
    """Finds the model that gives the shapes of random weights. Raises: FieldError."""
    model = next((m for m in models() if m.backbone == recipe.backbone and m.baseline == "languagebind"), None)
    if model is None:
        raise FieldError(f"recipe: there is no backbone {recipe.backbone!r} to draw random weights for")
    return model


def _load_start(recipe: Recipe, modality: Modality) -> Trainable:
    """Loads the encoder that a run starts from: a model, or random weights from the recipe's seed."""
    if recipe.init != RANDOM:
        return load_trainable(recipe.init, modality)
    model = _find_backbone(recipe)
    fields = {**model.fields, "fresh": (modality,), "seed": recipe.seed}
    return cast(Trainable, registry.make("encoder", model.family, fields))


def _checkpoint_activations(tower: object, recipe: Recipe) -> None:
    enable = getattr(tower, "gradient_checkpointing_enable", None)
    if enable is None:
        raise FieldError(f"recipe: {recipe.backbone} does not support checkpointing; leave it out")
    enable()


def _labelled_stream(
    recipe: Recipe, encoder: Trainable, modality: Modality, task: Task, data: TrainSet, size: int
) -> Stream:
    classes = list_classes(recipe, task)
    return Stream(
        data=data,
        size=size,
        objective=recipe.objective_plugin,
        weight=1.0,
        classes=classes,
        anchors=embed_anchors(encoder, classes, task, modality),
        captions=embed_captions(encoder, task),
    )


def _replay_stream(recipe: Recipe, encoder: Trainable, modality: Modality, size: int, read: OnRead) -> Stream:
    """Makes the stream of unlabelled examples; their anchors are all classes of the world."""
    task = make_replay_task(recipe, modality)
    classes: tuple[Label, ...] = task.classes
    return Stream(
        data=load_train_set(task, encoder.boxes[modality], recipe.examples, read=read),
        size=size,
        objective=registry.make("objective", "distribution"),
        weight=recipe.replay_weight,
        classes=classes,
        anchors=embed_anchors(encoder, classes, task, modality),
        captions=embed_captions(encoder, task),
        name="replayed",
    )
