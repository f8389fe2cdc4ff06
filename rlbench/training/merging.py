"""Merging of the weights of models that were fine-tuned from one backbone, without training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rlbench.core import Modality, Suite
from rlbench.core.errors import CheckpointError, ModalityError, RLBenchError, UnknownName
from rlbench.encoders.cards import Model
from rlbench.encoders.models import resolve
from rlbench.training.folder import save_card, save_tower
from rlbench.training.lineage import PASSES, find_backbone, list_seen, sum_passes
from rlbench.training.prepare import load_trainable
from rlbench.training.stability import KAPPA, Sensitivity, measure_sensitivity
from rlbench.training.state import writing

Rule = Literal["mean", "pistole"]
NATURAL = 0.2  # PISTOLE's share of the natural model
States = Sequence[Mapping[str, Tensor]]


def merge_weights(
    names: Sequence[str],
    out: Path,
    *,
    rule: Rule = "mean",
    suite: Suite | None = None,
    device: str = "auto",
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[Modality, ...]:
    """Merges models into a folder that is a model; returns the modalities, which are those that all models have.

    Args:
        names: models of one architecture and one backbone; for "pistole", the natural one and then the robust one.
        out: a new folder.
        rule: "mean", the average of the weights (Wortsman et al., 2022, https://arxiv.org/abs/2203.05482), or "pistole"
            (see `apply_masks`).
        suite: PISTOLE's data, the train split of the suite's task; None: the modality's procedural world.
        device: "auto", "cpu" or "cuda".
        announce: called with a line before each modality.

    Raises:
        RLBenchError: `out` exists, the rule takes another number of models, or the models differ in architecture,
            backbone or shapes, or have no modality in common.
    """
    check_request(names, out, rule)
    models = [resolve(name) for name in names]
    modalities = list_common(models)
    found = {}
    for modality in modalities:
        announce(f"merging {modality} by {rule}")
        found[modality] = merge_modality(names, modality, rule, suite, device)
    entries = {}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for modality, (state, trained) in found.items():
            encoder = load_trainable(names[0], modality)
            encoder.tower(modality).load_state_dict(dict(state))
            path = out / f"{models[0].backbone}-{modality}.safetensors"
            entries[modality] = {**save_tower(encoder, modality, path), "trained": trained}
        summary = f"Weights merged by rlbench merge-weights --rule {rule}."
        data = "; ".join(dict.fromkeys(model.data for model in models if model.data))
        save_card(out, f"merged-{rule}", summary, models[0].backbone, data, entries)
    return modalities


def check_request(names: Sequence[str], out: Path, rule: Rule) -> None:
    """Checks what can be checked before any model loads. Raises: RLBenchError."""
    if rule not in get_args(Rule):
        raise UnknownName("rule", rule, get_args(Rule))
    if rule == "pistole" and len(names) != 2:
        raise RLBenchError(f"pistole merges a natural and a robust model, in this order; {len(names)} were given")
    if len(names) < 2:
        raise RLBenchError("one model was given; name two or more models to merge")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RLBenchError(f"{twice} is given twice; name each model once")
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise RLBenchError(f"{out} exists; name a new folder with --out")


def list_common(models: Sequence[Model]) -> tuple[Modality, ...]:
    """Lists the modalities that all models have. Raises: CheckpointError, ModalityError: they differ."""
    first = models[0]
    for model in models[1:]:
        if (model.family, model.backbone) != (first.family, first.backbone):
            raise CheckpointError(
                f"{first.name} is {first.family} {first.backbone}, {model.name} is {model.family} {model.backbone}; "
                "only weights of one architecture can be merged"
            )
    common = tuple(m for m in first.modalities if all(m in model.modalities for model in models))
    if not common:
        have = "; ".join(f"{model.name} has {', '.join(model.modalities) or 'none'}" for model in models)
        raise ModalityError(f"the models have no modality in common: {have}")
    return common


def merge_modality(
    names: Sequence[str], modality: Modality, rule: Rule, suite: Suite | None, device: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Merges the weights of a modality; returns them and the facts for the card. Raises: see `merge_weights`."""
    base = check_backbones(names, modality)
    states = [load_state(name, modality) for name in names]
    check_shapes(names, states, modality)
    own = dict.fromkeys(PASSES, 0)
    if rule == "mean":
        merged = average(states)
    else:
        kinds = zip(names, (False, True), strict=True)
        found = [measure_sensitivity(name, modality, suite, device, adversarial=kind) for name, kind in kinds]
        own = {"forwards": sum(one.forwards for one in found), "backwards": sum(one.backwards for one in found)}
        merged = apply_masks(load_state(base, modality), states, found)
    before = sum_passes(names, modality)
    sums = [resolve(name).weights[modality].sha256 for name in names]
    trained: dict[str, Any] = {
        "init": base,
        "rule": rule,
        "merged": [{"model": name, "sha256": sha256} for name, sha256 in zip(names, sums, strict=True)],
        "sees": list_seen(names, modality),
        "passes": own,
        "since": {key: own[key] + before[key] for key in PASSES},
    }
    return merged, trained


def check_backbones(names: Sequence[str], modality: Modality) -> str:
    """Returns the name of the backbone that all models were fine-tuned from. Raises: CheckpointError: they differ."""
    bases = [find_backbone(name, modality) for name in names]
    for name, base in zip(names, bases, strict=True):
        if base.identity != bases[0].identity:
            raise CheckpointError(
                f"{modality}: {names[0]} comes from the backbone {bases[0].name}, {name} from {base.name}; "
                "only weights of one backbone can be merged"
            )
    return bases[0].name


def check_shapes(names: Sequence[str], states: States, modality: Modality) -> None:
    """Checks that models have the same weights. Raises: CheckpointError, which names the first that differs."""
    first = {key: tuple(value.shape) for key, value in states[0].items()}
    for name, state in zip(names, states, strict=True):
        own = {key: tuple(value.shape) for key, value in state.items()}
        for key in first.keys() | own.keys():
            if first.get(key) != own.get(key):
                shapes = f"{first.get(key, 'missing')} in {names[0]}, {own.get(key, 'missing')} in {name}"
                raise CheckpointError(f"{modality}: {key} is {shapes}; only weights of the same shapes can be merged")


def load_state(name: str, modality: Modality) -> dict[str, Tensor]:
    """Loads the weights of a model's tower, by name. Raises: see `load_trainable`."""
    return dict(load_trainable(name, modality).tower(modality).state_dict())


def average(states: States) -> dict[str, Tensor]:
    """Averages weights of equal shapes; what is no floating-point number is the first model's."""
    merged = {}
    for name, value in states[0].items():
        rows = [state[name].double() for state in states]
        merged[name] = torch.stack(rows).mean(0).to(value.dtype) if value.is_floating_point() else value
    return merged


def apply_masks(base: Mapping[str, Tensor], states: States, sensitivities: Sequence[Sensitivity]) -> dict[str, Tensor]:
    """Merges a natural and a robust model by PISTOLE's masks.

    theta = theta_0 + 0.2 M_nat (theta_nat - theta_0) + 0.8 M_rob (theta_rob - theta_0), with
    M_nat = (1 - g_rob)^kappa and M_rob = (1 - g_nat)^kappa: each model keeps the changes of the weights to which the
    other one's objective is not sensitive. PISTOLE, ICLR 2026, https://openreview.net/forum?id=KOO1cDm2bt, from a note
    on it (see `stability`).

    Args:
        base: theta_0, the weights of the backbone.
        states: the natural and the robust weights.
        sensitivities: g_nat and g_rob, of the parameters.
    """
    merged = {}
    for name, value in base.items():
        if name not in sensitivities[0].weights:
            merged[name] = value
            continue
        natural, robust = (state[name] - value for state in states)
        masks = [(1 - one.weights[name].to(value.device)) ** KAPPA for one in sensitivities]
        merged[name] = value + NATURAL * masks[1] * natural + (1 - NATURAL) * masks[0] * robust
    return merged
