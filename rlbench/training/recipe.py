"""Recipes: everything that a training run depends on, from YAML in the baselines' folders; imports no torch.

`<baseline>/<backbone>.yaml`, or `<backbone>-stage<N>.yaml` for a method of several stages, holds the fields of Recipe
and, under `modalities:`, what differs for some of them. `extends: fare/mini` takes another recipe as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from rlbench.checkpoints import DEFAULT_BACKBONE, default_name, folders, models
from rlbench.core import Modality
from rlbench.errors import FieldError, UnknownName
from rlbench.fields import checked, parse_eps

ObjectiveName = Literal["infonce", "fare", "tecoa", "rlbind"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run of one modality.

    Attributes:
        objective: the loss, and what the adversary ascends.
        init: the model to start from; None: random weights.
        original: the frozen model whose embeddings or distributions the loss keeps.
        domain, subset, examples: of the procedural world's train split. A suite's split replaces them; an epoch
            then has `examples` of it, the same ones again up to 16 times where it is smaller, and all of it where
            it is larger.
        prompts: the class names that the loss compares with: those of the data's subset, or all of the world's.
        epochs, batch, lr, weight_decay, warmup: AdamW with a linear warm-up (a share of the steps) and a cosine to 0.
        eps, attack_steps, attack_step: the Linf adversary: PGD from a uniform start; the step is a share of eps.
        roll, flip: augmentation: a random shift of up to that many pixels, and mirroring.
        logit_scale: S of the zero-shot logits.
        adversarial, consistency, distil, tau: weights of the `rlbind` objective and its temperature.
        validation: examples to measure on after every epoch.
        seed: of the weights, the batches and the adversary's starts.
    """

    objective: ObjectiveName
    init: str | None = None
    original: str | None = None
    domain: Literal["web", "sensor"] = "sensor"
    subset: Literal["seen", "all"] = "seen"
    examples: int = 6000
    prompts: Literal["subset", "all"] = "subset"
    epochs: int = 3
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    eps: str = "0"
    attack_steps: int = 3
    attack_step: float = 0.5
    roll: int = 2
    flip: bool = False
    logit_scale: float = 20.0
    adversarial: float = 2.0
    consistency: float = 2.0
    distil: float = 1.0
    tau: float = 10.0
    validation: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        parse_eps(self.eps, "recipe: eps")
        for name in ("examples", "epochs", "batch", "attack_steps", "validation"):
            if getattr(self, name) < 1:
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "logit_scale", "tau", "attack_step"):
            if not 0 < getattr(self, name) < float("inf"):
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must be above 0 and finite")
        for name in ("weight_decay", "roll", "adversarial", "consistency", "distil"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.warmup <= 1:
            raise FieldError(f"recipe: warmup is {self.warmup}; it must be a share of the steps, 0 to 1")
        if self.original is None and self.objective in ("fare", "rlbind"):
            raise FieldError(
                f"recipe: objective {self.objective!r} needs `original`, the model whose embeddings it keeps"
            )


def recipe_paths() -> dict[tuple[str, str, int | None], Path]:
    """The installed recipes by (method, backbone, stage)."""
    found: dict[tuple[str, str, int | None], Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.yaml")):
            match = re.fullmatch(r"(.+?)(?:-stage(\d+))?", path.stem)
            if path.name != "card.yaml" and match:
                found[folder.name, match[1], int(match[2]) if match[2] else None] = path
    return found


def methods() -> dict[str, tuple[int, ...]]:
    """Every trainable method with its stages; empty where it has only one."""
    table: dict[str, list[int]] = {}
    for method, _, stage in recipe_paths():
        table.setdefault(method, []).extend([stage] if stage else [])
    return {method: tuple(sorted(set(stages))) for method, stages in sorted(table.items())}


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FieldError(f"{path} can't be read as a recipe: {error}".replace("\n", " ")) from error
    if not isinstance(raw, dict):
        raise FieldError(f"{path} must be a mapping of a recipe's fields")
    if "extends" in raw:
        return {**_read(path.parent.parent / f"{raw.pop('extends')}.yaml"), **raw}
    return raw


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
    stages = methods().get(method)
    if stages is None:
        raise UnknownName("training method", method, methods())
    if modality not in get_args(Modality):
        raise UnknownName("modality", modality, get_args(Modality))
    stage = max(stages) if stage is None and stages else stage
    path = recipe_paths().get((method, backbone, stage))
    if path is None:
        raise FieldError(
            f"{method} has no stage {stage} for {backbone}; stages: {', '.join(map(str, stages)) or 'none'}"
        )
    raw = _read(path)
    own = raw.pop("modalities", None) or {}
    values = {**raw, **(own.get(modality) or {}), **(overrides or {})}
    return Recipe(**cast(Any, checked(Recipe, values, f"recipe {path.parent.name}/{path.name}")))


def described(recipe: Recipe) -> str:
    """One line: where a run starts, how long it is, and its adversary."""
    names = {model.name for model in models()}
    start = f"from {recipe.init}" if recipe.init else "from random weights"
    bundled = " (the bundled one)" if default_name(recipe.init or "") in names else ""
    attack = f", Linf {recipe.eps} by PGD-{recipe.attack_steps}" if parse_eps(recipe.eps) else ""
    return f"{start}{bundled}, {recipe.epochs} epochs of up to {recipe.examples} examples{attack}"
