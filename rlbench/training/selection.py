"""What a run trains: its modalities, their recipes, and which of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlbench.core import Modality, Suite
from rlbench.core.errors import FieldError, ModalityError
from rlbench.encoders.mini import BOXES
from rlbench.training.data import list_tasks
from rlbench.training.prepare import PAIRED
from rlbench.training.recipe import Recipe, load_recipe

WORLD = ("world", "domain", "subset")  # the fields that choose a procedural world's data


def load_recipes(
    method: str,
    modalities: Sequence[Modality] | None,
    stage: int | None,
    backbone: str,
    suite: Suite | None,
    overrides: Mapping[str, object] | None,
) -> dict[Modality, Recipe]:
    """Loads the recipes of a run by modality; the arguments are those of `run.train`.

    Raises:
        UnknownName, FieldError: see `load_recipe`; or a field that chooses a procedural world is given with a suite.
        ModalityError: The suite does not have a modality.
    """
    given = [name for name in WORLD if name in (overrides or ())]
    if suite and given:
        raise FieldError(
            f"recipe: {given[0]} is for procedural worlds, and {suite.name} has its own data; leave it out"
        )
    chosen = _choose_modalities(modalities, suite)
    return {m: load_recipe(method, stage, modality=m, backbone=backbone, overrides=overrides) for m in chosen}


def group_recipes(recipes: Mapping[Modality, Recipe], together: bool) -> list[Mapping[Modality, Recipe]]:
    """Groups the recipes of a run by what is trained at once.

    Raises:
        FieldError: A term compares sensors, and there is one alone.
    """
    groups: list[Mapping[Modality, Recipe]] = [{m: recipe} for m, recipe in recipes.items()]
    groups = [recipes] if together else groups
    for (modality, recipe), *others in (group.items() for group in groups):
        for need, names in PAIRED.items():
            if need in recipe.objective_plugin.needs and not others:
                raise FieldError(
                    f"recipe: {names} another sensor of each scene, and {modality} is trained alone; add --together "
                    "and two or more modalities, or leave the term out, as in objective.fused=0"
                )
    return groups


def _choose_modalities(modalities: Sequence[Modality] | None, suite: Suite | None) -> tuple[Modality, ...]:
    own = tuple(list_tasks(suite)) if suite else tuple(BOXES)
    chosen = tuple(modalities or own)
    if suite and not set(chosen) <= set(own):
        raise ModalityError(f"suite {suite.name} is {suite.modality}; it can't train {', '.join(chosen)}")
    return chosen
