"""Recipes: everything that a training run depends on, as YAML in the folders of the baselines; imports no torch.

`<baseline>/<backbone>.yaml`, or `<backbone>-stage<N>.yaml` for a method with several stages, holds the fields of Recipe
and, under `modalities:`, fields that differ by modality. `extends: fare/mini` starts from the fields of another recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from rlbench.core import Modality, registry
from rlbench.core.errors import FieldError, UnknownName, quote
from rlbench.core.threat import check_eps, parse_eps
from rlbench.core.validation import check_fields
from rlbench.core.yaml_source import read
from rlbench.encoders.models import DEFAULT_BACKBONE, default_name, folders, models
from rlbench.training.extended import extend

if TYPE_CHECKING:
    from rlbench.training.types import Objective

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run of one modality.

    Attributes:
        objective: the name of a registered objective, or a mapping with its `name` and its fields.
        extras: the weights of further objectives, whose losses are added; the adversary raises the objective alone.
        backbone: the size of the encoder, from the file's name.
        init: the model to start from, or "random".
        original: the frozen model that the loss compares with; for random weights, a copy of them.
        world: the procedural world, a task with the fields `modality`, `domain` and `subset`; None: the world of the
            modality alone.
        domain: the domain of the procedural world's train split.
        subset: the classes of that split.
        examples: the number of examples of that split. With a suite, an epoch has this many: a smaller split is
            repeated up to 16 times, a larger one is used whole.
        prompts: the class names that the loss compares with: those of the data's subset, or all of the world's.
        replay: the share of each batch that comes unlabelled from all classes of the clean "web" domain, in [0, 1);
            on these examples, training keeps the original's distribution over classes.
        replay_weight: the weight of their loss.
        epochs: the length of the run.
        steps: the length in steps; if not 0, it replaces `epochs`.
        batch: the examples of a step, over all processes.
        accumulate: the number of micro-batches that a process splits its share of a batch into.
        optimiser: AdamW, or SGD with momentum 0.9.
        lr: the peak learning rate.
        weight_decay: the weight decay of the optimiser.
        warmup: the share of the steps with a linear warm-up, in [0, 1]; then lr falls to 0 along a cosine.
        eps: the radius of the Linf adversary.
        adversary: "pgd" from a uniform start, or "n-fgsm": one step of length eps from noise in +-2 eps, not clipped to
            the ball; it uses none of the three fields that follow.
        attack_steps: the steps of PGD.
        attack_step: the step size of PGD, as a share of eps.
        attack_momentum: the momentum of PGD, on the gradient's sign, in [0, 1].
        awp: the size of an adversarial perturbation of the weights, relative to each layer's norm, in [0, 1], such as
            0.005; 0: none.
        roll: the largest random shift, in pixels.
        flip: whether to mirror half of the examples.
        crop: the smallest share of the area of a random resized crop, in [0, 1]; 0: no crop.
        ema: the decay of a moving average of the weights, which is the result, in [0, 1); 0: no average.
        lora: the rank of low-rank updates of the attention, instead of training the whole tower; 0: no updates.
        precision: the precision of the tower; losses are float32.
        checkpointing: recompute activations in the backward pass to save memory.
        threads: the number of CPU threads; 0: torch's default.
        loaders: the number of processes that read data; 0: read in the main process.
        validation: the number of validation examples.
        validate: validate after this many steps; 0: after every epoch.
        seed: the seed of the weights, the batches and the starts of the adversary.
    """

    objective: str | Mapping[str, Any]
    extras: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = DEFAULT_BACKBONE
    init: str = RANDOM
    original: str | None = None
    world: str | None = None
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
    adversary: Literal["pgd", "n-fgsm"] = "pgd"
    attack_steps: int = 3
    attack_step: float = 0.5
    attack_momentum: float = 0.0
    awp: float = 0.0
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
        for name in ("warmup", "replay", "crop", "ema", "attack_momentum", "awp"):
            if not 0 <= getattr(self, name) <= 1:
                raise FieldError(f"recipe: {name} is {getattr(self, name)}; it must be a share, 0 to 1")
        for name in ("replay", "ema"):
            if getattr(self, name) == 1:
                raise FieldError(f"recipe: {name} is 1; it must be below 1")
        if self.batch % self.accumulate:
            raise FieldError(f"recipe: a batch of {self.batch} can't be taken in {self.accumulate} equal parts")
        needs = self.objective_plugin.needs
        if self.adversary == "n-fgsm" and "f_adv" not in needs:
            raise FieldError(f"recipe: {self.objective_name} trains without an adversary; leave `adversary` out")
        if "f_adv_before" in needs and not self.awp:
            raise FieldError("recipe: gram-volume compares the weights before and after AWP; set `awp`, such as 0.005")
        if self.original is None and (self.replay or needs & {"f0", "f0_adv"}):
            raise FieldError(
                f"recipe: {self.objective_name} needs `original`, the frozen model that its loss compares with"
            )

    @property
    def objective_name(self) -> str:
        return str(self.objective.get("name")) if isinstance(self.objective, Mapping) else self.objective

    @cached_property
    def objective_plugin(self) -> Objective:
        """The objective with its fields and extras, ready to compute. Raises: UnknownName, FieldError."""
        given = self.objective if isinstance(self.objective, Mapping) else {}
        fields = {name: value for name, value in given.items() if name != "name"}
        return extend(cast("Objective", registry.make("objective", self.objective_name, fields)), self.extras)

    def passes(self) -> tuple[int, int]:
        """Counts the forward and the backward passes of an example in a step; replayed examples count the same.

        AWP costs a pass in both directions, and another forward pass for clean features, which change with the weights.
        """
        needs = self.objective_plugin.needs
        steps = 1 if self.adversary == "n-fgsm" else self.attack_steps
        backwards = (steps if "f_adv" in needs else 0) + len(needs & {"f", "f_adv"}) + (1 if self.awp else 0)
        again = 1 if self.awp and "f" in needs else 0
        return backwards + again + len(needs & {"f0", "f0_adv", "f_adv_before"}), backwards


def find_recipes() -> dict[tuple[str, str, int | None], Path]:
    """Finds the installed recipes, by (method, backbone, stage); a backbone is one that a card names."""
    found: dict[tuple[str, str, int | None], Path] = {}
    backbones = {model.backbone for model in models()}
    for folder in folders():
        for path in sorted(folder.glob("*.yaml")):
            match = re.fullmatch(r"(.+?)(?:-stage(\d+))?", path.stem)
            if match and match[1] in backbones:
                found[folder.name, match[1], int(match[2]) if match[2] else None] = path
    return found


def list_methods() -> dict[str, tuple[int, ...]]:
    """Lists the training methods with their stages; a method of one stage has an empty tuple."""
    table: dict[str, list[int]] = {}
    for method, _, stage in find_recipes():
        table.setdefault(method, []).extend([stage] if stage else [])
    return {method: tuple(sorted(set(stages))) for method, stages in sorted(table.items())}


def _read(path: Path, below: int = 8) -> dict[str, Any]:
    """Reads a recipe's fields and those of the recipes that it extends, at most `below` of them."""
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
    """Loads a method's recipe for a modality.

    Args:
        method: the name of the method, a folder of baselines.
        stage: the stage of a method with several; None: the last one.
        modality: the modality to train.
        backbone: the size of the encoder.
        overrides: fields that replace the recipe's; "objective.tau" is a field of its objective, "extras.teacher" the
            weight of a further one.

    Raises:
        UnknownName: There is no such method or modality.
        FieldError: There is no such stage, or a field has a wrong name or value.
    """
    stages = list_methods().get(method)
    if stages is None:
        raise UnknownName("training method", method, list_methods())
    if modality not in get_args(Modality):
        raise UnknownName("modality", modality, get_args(Modality))
    stage = max(stages) if stage is None and stages else stage
    path = find_recipes().get((method, backbone, stage))
    if path is None:
        sizes = sorted({size for name, size, _ in find_recipes() if name == method})
        if backbone not in sizes:
            raise FieldError(f"{method} has no recipe for {backbone}; its backbones are {', '.join(sizes)}")
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
    """Replaces values; `objective.tau` is a field of the objective, `extras.teacher` a weight."""
    for key, value in overrides.items():
        outer, dot, inner = key.partition(".")
        if not dot:
            values[key] = value
        elif outer not in ("objective", "extras"):
            raise FieldError(
                f"recipe: {key} is not a field; only `objective` and `extras` have fields, as in objective.tau"
            )
        else:
            given = values.get(outer) or {}
            values[outer] = {**(given if isinstance(given, Mapping) else {"name": given}), inner: value}
    return values


def describe(recipe: Recipe) -> str:
    """Describes in a line where a run starts, how long it is, and its adversary."""
    names = {model.name for model in models()}
    start = "from random weights" if recipe.init == RANDOM else f"from {recipe.init}"
    bundled = " (the bundled one)" if default_name(recipe.init) in names else ""
    by = "N-FGSM" if recipe.adversary == "n-fgsm" else f"PGD-{recipe.attack_steps}"
    attack = f", Linf {recipe.eps} by {by}" if parse_eps(recipe.eps) else ""
    attack += f", AWP {recipe.awp:g}" if recipe.awp else ""
    epochs = f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''} of up to {recipe.examples} examples"
    length = f"{recipe.steps} steps" if recipe.steps else epochs
    return f"{start}{bundled}, {length}{attack}"
