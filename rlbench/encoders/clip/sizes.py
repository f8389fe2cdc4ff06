"""The architecture of a published checkpoint, from its tensors and, where they do not show it, from its config.json.

config.json can be wrong: if it has `vision_config_dict`, the original code writes that over `vision_config`, and its
own defaults over the rest. So sizes come only from the tensors, and a section with another hidden size is ignored. A
section that is wrong elsewhere is used only for heads and mel bins, which can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from torch import Tensor
from transformers.activations import ACT2FN

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError
from rlbench.encoders.clip.towers import TextSizes, VisionSizes

_MODALITIES: tuple[Modality, ...] = ("image", "thermal", "depth", "audio", "video")
_HEAD = 64  # the width of an attention head if the config says nothing


@dataclass(frozen=True)
class Tensors:
    """The weights of a checkpoint under CLIP's names, and their file."""

    weights: Mapping[str, Tensor]
    source: str

    def shape(self, name: str, *dims: int) -> tuple[int, ...]:
        """The shape of a tensor. Raises: CheckpointError: missing, or the number of dimensions is not in `dims`."""
        if name not in self.weights:
            raise CheckpointError(f"{self.source} lacks {name}")
        found = tuple(self.weights[name].shape)
        if len(found) not in dims:
            raise CheckpointError(f"{self.source}: {name} has the shape {found}")
        return found

    def layers(self, model: str) -> int:
        """The number of layers of "vision_model" or "text_model". Raises: CheckpointError: one of them is missing."""
        prefix = f"{model}.encoder.layers."
        found = {name.removeprefix(prefix).split(".")[0] for name in self.weights if name.startswith(prefix)}
        lost = next((n for n in range(len(found)) if str(n) not in found), None)
        if lost is not None:
            raise CheckpointError(f"{self.source} lacks {prefix}{lost}, but has {prefix}{max(found)}")
        return len(found)


@dataclass(frozen=True)
class TowerConfig:
    """What config.json says about a tower.

    Attributes:
        sections: those with the right hidden size; first the ones that agree with the tensors in everything else.
        agreeing: how many of them, from the first, are trusted about what the tensors do not show.
        overwritten: whether the original code overwrites them.
        source: the file.
    """

    sections: tuple[Mapping[str, Any], ...]
    agreeing: int
    overwritten: bool
    source: str

    def first(self, key: str, default: Any) -> Any:
        """The first value of a key in the trusted sections that is neither missing nor 0."""
        return next((section[key] for section in self.sections[: self.agreeing] if section.get(key)), default)

    def number(self, section: Mapping[str, Any], key: str, *, whole: bool = True) -> float:
        """The number at a key of a section; 0 if missing. Raises: CheckpointError: it is not a positive number."""
        value = section.get(key) or 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise CheckpointError(f"{self.source}: {key} is {value!r}; it must be a positive number")
        if whole and value != int(value):
            raise CheckpointError(f"{self.source}: {key} is {value!r}; it must be a whole number")
        return value

    def first_number(self, key: str, default: float, *, whole: bool = True) -> float:
        """As `first`, for numbers. Raises: CheckpointError: a value is not a positive number."""
        numbers = (self.number(section, key, whole=whole) for section in self.sections[: self.agreeing])
        return next((value for value in numbers if value), default)

    def activation(self) -> str:
        """The name of the activation. Raises: CheckpointError: transformers has none of this name."""
        name = self.first("hidden_act", "gelu")
        if not isinstance(name, str) or name not in ACT2FN:
            raise CheckpointError(f"{self.source}: hidden_act is {name!r}, which is not an activation of transformers")
        return name

    def eps(self) -> float:
        """The eps of the layer norms. Raises: CheckpointError: it is not a positive number."""
        return float(self.first_number("layer_norm_eps", 1e-5, whole=False))

    def heads(self, hidden: int) -> int:
        """The number of heads. Raises: CheckpointError: no section fits, and 64 does not divide the hidden size."""
        numbers = [int(self.number(section, "num_attention_heads")) for section in self.sections]
        fitting = [heads for heads in numbers if heads and hidden % heads == 0]
        if not fitting and hidden % _HEAD:
            raise CheckpointError(f"{self.source} must give num_attention_heads for the hidden size {hidden}")
        return fitting[0] if fitting else hidden // _HEAD

    def check_rank(self, rank: int) -> None:
        """Raises: CheckpointError: the sections give another LoRA rank than the tensors have (0: no LoRA)."""
        ranks = {self.number(section, "lora_r") for section in self.sections if section.get("lora_r") is not None}
        if ranks and rank not in ranks and not self.overwritten:
            found = f"LoRA factors of rank {rank}" if rank else "no LoRA factors"
            raise CheckpointError(f"{self.source} says lora_r {max(ranks):g}; the weights have {found}")


def read_tower_config(config: Mapping[str, Any], tower: str, facts: Mapping[str, int], source: str) -> TowerConfig:
    """What a config says about a tower.

    Args:
        config: the contents of config.json.
        tower: "vision" or "text".
        facts: the sizes that the tensors show, by the config's keys.
        source: the file.

    Raises:
        CheckpointError: there are sections, and all have another hidden size.
    """
    found = [config.get(f"{tower}_config"), config.get(f"{tower}_config_dict")]
    given = [section for section in found if isinstance(section, dict) and section]
    sections = [section for section in given if section.get("hidden_size") in (None, facts["hidden_size"])]
    if given and not sections:
        stated, are = given[0]["hidden_size"], facts["hidden_size"]
        raise CheckpointError(
            f"{source} describes another {tower} tower: its hidden_size is {stated}, the weights' {are}"
        )
    wrong = [any(section.get(key) not in (None, value) for key, value in facts.items()) for section in sections]
    ordered = sorted(zip(wrong, range(len(sections)), strict=True))
    overwritten = isinstance(found[1], dict)
    agreeing = wrong.count(False) if overwritten else len(sections)
    return TowerConfig(tuple(sections[i] for _, i in ordered), agreeing, overwritten, source)


def read_modality(config: Mapping[str, Any]) -> Modality | None:
    """The modality of a config, from its class such as "LanguageBindThermal"; None if it does not say."""
    names = config.get("architectures") or []
    text = " ".join(map(str, [*(names if isinstance(names, list) else [names]), config.get("model_type")])).lower()
    return next((modality for modality in _MODALITIES if f"languagebind{modality}" in text), None)


def vision_sizes(tensors: Tensors, config: Mapping[str, Any], rank: int, source: str) -> tuple[VisionSizes, float]:
    """The architecture of the visual tower, and the alpha of its LoRA factors.

    Args:
        tensors: the weights.
        config: the contents of config.json.
        rank: the rank of the LoRA factors; 0: there are none.
        source: the file of the config.

    Raises:
        CheckpointError: a tensor is missing, or the config contradicts the tensors or says too little.
    """
    embeddings, layer = "vision_model.embeddings", "vision_model.encoder.layers.0"
    hidden, channels, *kernel = tensors.shape(f"{embeddings}.patch_embedding.weight", 4, 5)
    if kernel[-1] != kernel[-2] or kernel[:-2] not in ([], [1]):
        raise CheckpointError(f"{tensors.source} has patches of {kernel}; they must be square and span one frame")
    positions, _ = tensors.shape(f"{embeddings}.position_embedding.weight", 2)
    mlp, _ = tensors.shape(f"{layer}.mlp.fc1.weight", 2)
    projection, _ = tensors.shape("visual_projection.weight", 2)
    classes = tensors.shape(f"{embeddings}.class_embedding", 1, 2)
    time = f"{layer}.temporal_embedding"
    facts = {"hidden_size": hidden, "intermediate_size": mlp, "patch_size": kernel[-1], "num_channels": channels}
    tower = read_tower_config(config, "vision", facts | {"num_hidden_layers": tensors.layers("vision_model")}, source)
    tower.check_rank(rank)
    modality = read_modality(config)
    height, width = _input(tower, modality, positions, kernel[-1])
    sizes = VisionSizes(
        hidden=hidden,
        mlp=mlp,
        layers=tensors.layers("vision_model"),
        heads=tower.heads(hidden),
        patch=kernel[-1],
        channels=channels,
        height=height,
        width=width,
        projection=projection,
        frames=tensors.shape(time, 3)[1] if time in tensors.weights else 0,
        frame_classes=classes[0] if len(classes) == 2 else 0,
        activation=tower.activation(),
        eps=tower.eps(),
    )
    _check_frames(tower, modality, sizes)
    return sizes, tower.first_number("lora_alpha", 16.0, whole=False)


def _input(tower: TowerConfig, modality: Modality | None, positions: int, patch: int) -> tuple[int, int]:
    """Height and width of the input: mel bins and frames from the config, or a square."""
    sizes = [
        [int(tower.number(section, key)) for key in ("num_mel_bins", "target_length")] for section in tower.sections
    ]
    bins = [(height, width) for height, width in sizes if height]
    if modality == "audio" or (modality is None and bins):
        for height, width in bins:
            if (height // patch) * (width // patch) + 1 == positions:
                return height, width
        named = " or ".join(f"{height} x {width}" for height, width in bins) or "no"
        raise CheckpointError(
            f"{tower.source} says {named} mel bins x frames, which do not give the weights' {positions} positions "
            f"of {patch} x {patch} patches"
        )
    side = isqrt(positions - 1)
    if side * side != positions - 1:
        raise CheckpointError(
            f"{tower.source} is not for audio, but the weights' {positions - 1} patches do not form a square"
        )
    return side * patch, side * patch


def _check_frames(tower: TowerConfig, modality: Modality | None, sizes: VisionSizes) -> None:
    if sizes.clip and modality not in (None, "video"):
        raise CheckpointError(f"{tower.source} is for {modality}, but the weights are a video tower's")
    if sizes.frames and sizes.frame_classes not in (0, sizes.frames):
        raise CheckpointError(
            f"the weights beside {tower.source} have {sizes.frame_classes} class tokens for {sizes.frames} frames"
        )
    if not sizes.frames and tower.first("add_time_attn", False):
        raise CheckpointError(f"{tower.source} says add_time_attn; the weights have no attention over time")
    frames = tower.first_number("num_frames", 1)
    if sizes.clip and frames > 1 and sizes.clip != frames and not tower.overwritten:
        raise CheckpointError(f"{tower.source} says num_frames {frames:g}; the weights are for {sizes.clip} frames")


def text_sizes(tensors: Tensors, config: Mapping[str, Any], source: str) -> TextSizes:
    """The text tower's architecture. Raises: CheckpointError, as `vision_sizes`."""
    vocabulary, hidden = tensors.shape("text_model.embeddings.token_embedding.weight", 2)
    positions, _ = tensors.shape("text_model.embeddings.position_embedding.weight", 2)
    mlp, _ = tensors.shape("text_model.encoder.layers.0.mlp.fc1.weight", 2)
    projection, _ = tensors.shape("text_projection.weight", 2)
    facts = {"hidden_size": hidden, "intermediate_size": mlp, "vocab_size": vocabulary}
    facts |= {"max_position_embeddings": positions, "num_hidden_layers": tensors.layers("text_model")}
    tower = read_tower_config(config, "text", facts, source)
    return TextSizes(
        hidden=hidden,
        mlp=mlp,
        layers=tensors.layers("text_model"),
        heads=tower.heads(hidden),
        vocabulary=vocabulary,
        positions=positions,
        projection=projection,
        activation=tower.activation(),
        eps=tower.eps(),
    )
