"""Recipes: everything that a training run depends on, from YAML in the baselines' folders; imports no torch.

`<baseline>/<backbone>.yaml`, or `<backbone>-stage<N>.yaml` for a method of several stages, holds the fields of Recipe
and, under `modalities:`, what differs for some of them. `extends: fare/mini` takes another recipe as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from rlbench.core import Modality, registry
from rlbench.core.errors import FieldError, UnknownName, quote
from rlbench.core.threat import check_eps, parse_eps
from rlbench.core.validation import check_fields
from rlbench.core.yaml_source import read
from rlbench.encoders.models import DEFAULT_BACKBONE, default_name, folders, models

if TYPE_CHECKING:
    from rlbench.training.types import Objective

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run of one modality.

    Attributes:
        objective: a registered objective's name, or a mapping of its `name` and its fields.
        backbone: the size of the encoder; the file's name gives it.
        init: the model to start from, or "random".
        original: the frozen model whose embeddings or distributions the loss keeps; of random weights, a copy of them.
        domain, subset, examples: of the procedural world's train split. A suite's split replaces them; an epoch
            then has `examples` of it, the same ones again up to 16 times where it is smaller, and all of it where
            it is larger.
        prompts: the class names that the loss compares with: those of the data's subset, or all of the world's.
        replay, replay_weight: share of every batch that is examples of the clean "web" domain, all its classes, without
            labels, on which the original's distribution is kept, and the weight of their loss.
        epochs, steps: the length; `steps`, if not 0, replaces epochs.
        batch, accumulate: examples of a step, over all processes; in how many parts a process takes its share.
        optimiser, lr, weight_decay, warmup: with a linear warm-up (a share of the steps) and a cosine to 0; SGD has
            momentum .9.
        eps, attack_steps, attack_step, attack_momentum: the Linf adversary: PGD from a uniform start; the step is a
            share of eps, the momentum is on the sign.
        roll, flip, crop: augmentation: a random shift of up to that many pixels; mirroring; a random resized crop of
            at least that share of the area (0: none).
        ema: decay of the weights' moving average, which then is the result; 0: none.
        lora: rank of low-rank updates of the attention, in place of tuning the whole tower; 0: none.
        precision: of the tower; losses are float32.
        checkpointing: recompute activations in the backward pass, to save memory.
        threads, loaders: CPU threads and processes that read data; 0: torch's own choice of threads, no processes.
        validation, validate: examples to measure on, and after how many steps; 0: after every epoch.
        seed: of the weights, the batches and the adversary's starts.
    """

    objective: str | Mapping[str, Any]
    backbone: str = DEFAULT_BACKBONE
    init: str = RANDOM
    original: str | None = None
    domain: Literal["web", "sensor"] = "sensor"
    subset: Literal["seen", "all"] = "seen"
    examples: int = 6000
    prompts: Literal["subset", "all"] = "subset"
    replay: float = 0.0
    replay_weight: float = 3.0
    epochs: int = 3
    steps: int = 0
    batch: int = 128
    accumulate: int = 1
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    eps: str | float = "0"
    attack_steps: int = 3
    attack_step: float = 0.5
    attack_momentum: float = 0.0
    roll: int = 0
    flip: bool = False
    crop: float = 0.0
    ema: float = 0.0
    lora: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = False
    threads: int = 0
    loaders: int = 0
    validation: int = 500
    validate: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_eps(parse_eps(self.eps, "recipe: eps"), "linf", what="recipe: eps")
        for name in ("examples", "epochs", "batch", "accumulate", "attack_steps", "validation"):
            if getattr(self, name) < 1:
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "attack_step"):
            if not 0 < getattr(self, name) < float("inf"):
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must be above 0 and finite")
        if self.attack_step > 2:
            raise FieldError(f"recipe: attack_step is {self.attack_step}; it is a share of eps, such as 0.5")
        for name in ("weight_decay", "roll", "replay_weight", "steps", "lora", "threads", "loaders", "validate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must not be negative")
        for name in ("warmup", "replay", "crop", "ema", "attack_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must be a share, 0 to 1")
        for name in ("replay", "ema"):
            if getattr(self, name) == 1:
                raise FieldError(f"recipe: {name} is 1; it must be below 1")
        if self.batch % self.accumulate:
            raise FieldError(f"recipe: a batch of {self.batch} can't be taken in {self.accumulate} equal parts")
        needs = self.objective_plugin.needs
        if self.original is None and (self.replay or needs & {"f0", "f0_adv"}):
            raise FieldError(f"recipe: {self.objective_name} needs `original`, the model whose outputs it keeps")

    @property
    def objective_name(self) -> str:
        return str(self.objective.get("name")) if isinstance(self.objective, Mapping) else self.objective

    @cached_property
    def objective_plugin(self) -> Objective:
        """The objective with its fields. Raises: UnknownName, FieldError."""
        given = self.objective if isinstance(self.objective, Mapping) else {}
        fields = {name: value for name, value in given.items() if name != "name"}
        return cast("Objective", registry.make("objective", self.objective_name, fields))

    def passes(self) -> tuple[int, int]:
        """Forward and backward passes that an example of a batch costs, replayed examples as the others."""
        needs = self.objective_plugin.needs
        attack = self.attack_steps if "f_adv" in needs else 0
        own = len(needs & {"f", "f_adv"})
        return attack + own + len(needs & {"f0", "f0_adv"}), attack + own


def find_recipes() -> dict[tuple[str, str, int | None], Path]:
    """The installed recipes by (method, backbone, stage); a backbone is one that some card has."""
    found: dict[tuple[str, str, int | None], Path] = {}
    backbones = {model.backbone for model in models()}
    for folder in folders():
        for path in sorted(folder.glob("*.yaml")):
            match = re.fullmatch(r"(.+?)(?:-stage(\d+))?", path.stem)
            if match and match[1] in backbones:
                found[folder.name, match[1], int(match[2]) if match[2] else None] = path
    return found


def list_methods() -> dict[str, tuple[int, ...]]:
    """Every trainable method with its stages; empty where it has only one."""
    table: dict[str, list[int]] = {}
    for method, _, stage in find_recipes():
        table.setdefault(method, []).extend([stage] if stage else [])
    return {method: tuple(sorted(set(stages))) for method, stages in sorted(table.items())}


def _read(path: Path, below: int = 8) -> dict[str, Any]:
    """A recipe's fields, with those of what it extends, in at most `below` steps."""
    whole = read(path, "recipe", FieldError)
    raw: dict[str, Any] = whole.value() if whole.items() else {}
    if "extends" not in raw:
        return raw
    base = whole.items()["extends"]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base.text()) or not below:
        base.fail(f"{quote(base.text())} must be METHOD/BACKBONE, and extend nothing that extends this file")
    return {**_read(path.parent.parent / f"{raw.pop('extends')}.yaml", below - 1), **raw}


def load_recipe(
    method: str,
    stage: int | None = None,
    *,
    modality: Modality,
    backbone: str = DEFAULT_BACKBONE,
    overrides: Mapping[str, object] | None = None,
) -> Recipe:
    """A method's recipe for a modality. Without `stage`: the last one.

    Raises:
        UnknownName: no such method, stage or modality. FieldError: a field's name or value.
    """
    stages = list_methods().get(method)
    if stages is None:
        raise UnknownName("training method", method, list_methods())
    if modality not in get_args(Modality):
        raise UnknownName("modality", modality, get_args(Modality))
    stage = max(stages) if stage is None and stages else stage
    path = find_recipes().get((method, backbone, stage))
    if path is None:
        raise FieldError(
            f"{method} has no stage {stage} for {backbone}; stages: {', '.join(map(str, stages)) or 'none'}"
        )
    raw = _read(path)
    own = raw.pop("modalities", None) or {}
    special = (own.get(modality) or {}) if isinstance(own, Mapping) else own
    if not isinstance(special, Mapping):
        raise FieldError(f"{path}: modalities must map modalities to fields")
    values = _override({**raw, **special, "backbone": backbone}, overrides or {})
    return Recipe(**cast(Any, check_fields(Recipe, values, f"recipe {path.parent.name}/{path.name}")))


def _override(values: dict[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """`values` with others in their place; `objective.tau` is a field of the objective."""
    for key, value in overrides.items():
        outer, dot, inner = key.partition(".")
        if not dot:
            values[key] = value
        elif outer != "objective":
            raise FieldError(f"recipe: {key} is no field; only `objective` has fields of its own, as in objective.tau")
        else:
            given = values["objective"]
            values["objective"] = {**(given if isinstance(given, Mapping) else {"name": given}), inner: value}
    return values


def describe(recipe: Recipe) -> str:
    """One line: where a run starts, how long it is, and its adversary."""
    names = {model.name for model in models()}
    start = "from random weights" if recipe.init == RANDOM else f"from {recipe.init}"
    bundled = " (the bundled one)" if default_name(recipe.init) in names else ""
    attack = f", Linf {recipe.eps} by PGD-{recipe.attack_steps}" if parse_eps(recipe.eps) else ""
    length = f"{recipe.steps} steps" if recipe.steps else f"{recipe.epochs} epochs of up to {recipe.examples} examples"
    return f"{start}{bundled}, {length}{attack}"
