"""A LoRA adapter in a repository of its own, as the library peft writes it, added to the weights of its base model.

LoRA: Hu et al., 2021, https://arxiv.org/abs/2106.09685; with `use_rslora` scaled as by Kalajdzievski, 2023,
https://arxiv.org/abs/2312.03732. Peft is not run: an adapter with any other option that changes the weights is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from rlbench.core.errors import CheckpointError, quote
from rlbench.encoders import hub
from rlbench.encoders.clip.weights import check_no_code, read_json, read_weights

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
_IDLE = {
    *("auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode"),
    *("init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "loftq_config"),
    *("lora_ga_config", "megatron_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"),
    *("revision", "target_modules", "task_type", "use_rslora", "ensure_weight_tying"),
}  # that change nothing once the factors are trained, or that are read here


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        base: the repository of the base model, or its folder.
        revision: of the base model; None: the newest.
        factors: A (r, inputs) and B (outputs, r) by module.
        scale: W becomes W + scale B A.
        path: the file.
    """

    base: str
    revision: str | None
    factors: dict[str, dict[str, Tensor]]
    scale: float
    path: Path


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / hub.ADAPTER.config).is_file() and not (folder / hub.TRANSFORMERS.config).is_file()


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter. Raises: CheckpointError: a file is missing or faulty, or an option is not supported."""
    about = folder / hub.ADAPTER.config
    config, path = read_json(about), hub.weights_file(folder, hub.ADAPTER)
    check_no_code(about)
    _check_options(config, about)
    rank, alpha, base = config.get("r"), config.get("lora_alpha"), config.get("base_model_name_or_path")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(
            f"{about}: r is {quote(str(rank))} and lora_alpha {quote(str(alpha))}; both must be positive"
        )
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{about} does not name its base model (base_model_name_or_path)")
    if (hub.is_folder(base) or base.count("/") != 1) and hub.name_of_snapshot(folder):
        raise CheckpointError(
            f"{about} names the base model {quote(base)}, a folder on its author's machine; "
            "download the adapter, and write the OWNER/NAME of its base model into that file"
        )
    factors: dict[str, dict[str, Tensor]] = {}
    for name, value in read_weights(path).items():
        found = _KEY.fullmatch(name)
        if found is None:
            raise CheckpointError(f"{path} holds {name}, which is no factor of a LoRA; only these are supported")
        factors.setdefault(found["module"], {})[found["factor"]] = value
    for module, pair in factors.items():
        if pair.keys() != {"A", "B"} or len(pair["A"]) != rank or pair["B"].shape[1:] != (rank,):
            raise CheckpointError(
                f"{path}: the factors of {module} are incomplete, or not of the rank {rank} of {about.name}"
            )
    revision = config.get("revision")
    return Adapter(base, str(revision) if revision else None, factors, _scale(config), path)


def _scale(config: dict[str, Any]) -> float:
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (sqrt(rank) if config.get("use_rslora") else rank)


def _check_options(config: dict[str, Any], about: Path) -> None:
    """Raises: CheckpointError: it is no LoRA, or has an option that is not supported."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{about} is an adapter of type {quote(str(kind))}; LORA is supported")
    for name, value in config.items():
        if name not in _IDLE and value not in (None, False, "none", {}, []) and not name.endswith("_config"):
            raise CheckpointError(f"{about}: {name} is {quote(str(value))}, which is not supported")


def add_adapter(weights: dict[str, Tensor], adapter: Adapter) -> None:
    """Adds an adapter to the weights of its base model, by name.

    Raises: CheckpointError: the base model has no such module, or one of another shape.
    """
    for module, pair in adapter.factors.items():
        name, update = f"{module}.weight", adapter.scale * pair["B"] @ pair["A"]
        if name not in weights or weights[name].shape != update.shape:
            shape = tuple(weights[name].shape) if name in weights else "missing"
            raise CheckpointError(
                f"{adapter.path} changes {name} of shape {tuple(update.shape)}; in {adapter.base} it is {shape}: "
                "it is an adapter of another model"
            )
        weights[name] = weights[name] + update
