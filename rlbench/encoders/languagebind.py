"""LanguageBind: one visual tower per modality and one text tower for all, with published, trained or random weights.

Zhu et al., 2023, https://arxiv.org/abs/2310.01852; the published weights are https://huggingface.co/LanguageBind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core import Box, Modality, Trait, seeds
from rlbench.core.errors import CheckpointError, ModalityError
from rlbench.core.registry import register
from rlbench.encoders import hub
from rlbench.encoders.clip.checkpoint import Checkpoint, load_checkpoint
from rlbench.encoders.clip.fronts import BoxOptions, Front, front_of
from rlbench.encoders.clip.saved import read_tower, write_tower
from rlbench.encoders.clip.text import ClipTokens, HashedTokens, Text, digest
from rlbench.encoders.clip.towers import (
    Attention,
    TextSizes,
    VisionSizes,
    VisionTower,
    random_weights,
    text_tower,
    vision_tower,
)

__all__ = ["Checkpoint", "LanguageBind", "languagebind", "load_checkpoint"]
Size = Literal["vit-l-14", "tiny"]
_TINY = VisionSizes(hidden=64, mlp=96, layers=2, heads=4, patch=7, height=28, width=28, projection=24)
_TINY_TEXT = TextSizes(hidden=32, mlp=64, layers=2, heads=4, vocabulary=4096, positions=32, projection=24)


class ModalityTower(nn.Module):
    """The trainable part of a modality: (B, *box.shape) in the box -> (B, D), not normalised."""

    def __init__(self, modality: Modality, vision: VisionTower, options: BoxOptions) -> None:
        super().__init__()
        self.front: Front = front_of(modality, vision.sizes, options)
        self.vision, self.options = vision, options

    def gradient_checkpointing_enable(self) -> None:
        """As for VisionTower."""
        self.vision.gradient_checkpointing_enable()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.vision(self.front(x)))


class LanguageBind(nn.Module):
    """Visual towers of some modalities and their text tower, as a trainable Encoder."""

    traits: frozenset[Trait] = frozenset()
    logit_scale = 100.0  # as in the published zero-shot evaluations, which ignore the learned scale

    def __init__(self, towers: Mapping[Modality, ModalityTower], text: Text, sha256: Mapping[Modality, str]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({str(modality): tower for modality, tower in towers.items()})
        self.text = text
        self._sha256 = dict(sha256)

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {cast(Modality, m): cast(ModalityTower, tower).front.box for m, tower in self.towers.items()}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return self._sha256

    def tower(self, modality: Modality) -> ModalityTower:
        """The trainable module of a modality: (B, *box.shape) -> (B, D)."""
        if modality not in self.towers:
            raise ModalityError(f"this encoder has no {modality}; it has {', '.join(self.towers)}")
        return cast(ModalityTower, self.towers[modality])

    def features(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), not normalised, differentiable in x and in the tower's parameters."""
        return cast(Tensor, self.tower(modality)(x))

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        found = self.features(x, modality)
        return normalize(found.to(torch.promote_types(found.dtype, torch.float32)), dim=-1)  # not in bfloat16

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        return cast(Tensor, self.text(prompts))

    def save(self, modality: Modality, path: Path) -> None:
        """Writes a tower and its architecture as safetensors, which `files` takes; the text tower is not included."""
        tower, bound = self.tower(modality), digest(self.text.tower)
        about = {"modality": modality, "box": asdict(tower.options), "text": self.text.source, "text_sha256": bound}
        write_tower(tower.vision, path, about)


def _generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(int(seeds.generator("languagebind", *parts).integers(2**63)))


def choose_sizes(size: Size, modality: Modality) -> VisionSizes:
    """The published architecture of a modality's tower, or a tiny one of the same kind."""
    full = size == "vit-l-14"
    sizes = VisionSizes() if full else _TINY
    if modality == "audio":
        return replace(sizes, height=112 if full else 28, width=1036 if full else 70)
    return replace(sizes, frames=8 if full else 4) if modality == "video" else sizes


def _fresh_vision(size: Size, seed: int, modality: Modality, attention: Attention) -> VisionTower:
    sizes = choose_sizes(size, modality)
    return vision_tower(random_weights(sizes, _generator(size, seed, modality)), sizes, attention)


def _fresh_text(size: Size, seed: int, attention: Attention) -> Text:
    sizes = TextSizes() if size == "vit-l-14" else _TINY_TEXT
    tower = text_tower(random_weights(sizes, _generator(size, seed, "text")), sizes, attention)
    return Text(tower, HashedTokens(sizes.vocabulary, sizes.positions), f"fresh {size} {seed}")


def _load_published_text(checkpoint: Checkpoint, folder: Path) -> Text:
    sizes = checkpoint.text.sizes
    name = hub.name_of_snapshot(folder)
    source = f"hub {' '.join(name)}" if name else f"folder {folder.absolute()}"
    return Text(checkpoint.text, ClipTokens(folder, sizes.vocabulary, sizes.positions), source)


def _text(source: str, attention: Attention) -> Text:
    """The text tower of "fresh SIZE SEED", "hub REPOSITORY REVISION" or "folder PATH". Raises: CheckpointError."""
    kind, _, rest = source.partition(" ")
    if kind == "fresh":
        size, seed = rest.split()
        return _fresh_text(cast(Size, size), int(seed), attention)
    repo, _, revision = rest.partition(" ")
    folder = hub.fetch(repo, revision or None) if kind == "hub" else Path(rest)
    return _load_published_text(load_checkpoint(folder, attention=attention), folder)


@dataclass
class _Parts:
    """Collects the parts of an encoder: towers with their fronts, and the text tower that they share.

    Attributes:
        options: given fields of BoxOptions; the others come from the saved tower, or are the defaults.
        attention: transformers' implementation.
        text: the text tower, once it is known.
        towers: the towers by modality.
        sha256: the checksums of the towers' files by modality.
    """

    options: dict[str, Any]
    attention: Attention
    text: Text | None
    towers: dict[Modality, ModalityTower] = field(default_factory=dict)
    sha256: dict[Modality, str] = field(default_factory=dict)

    def add(self, modality: Modality, vision: VisionTower, sha256: str, box: Mapping[str, Any] | None = None) -> None:
        self.towers[modality] = ModalityTower(modality, vision, BoxOptions(**{**(box or {}), **self.options}))
        self.sha256[modality] = sha256

    def draw(self, modality: Modality, size: Size, seed: int) -> None:
        name, vision = f"fresh {size} {seed}", _fresh_vision(size, seed, modality, self.attention)
        self.add(modality, vision, hashlib.sha256(name.encode()).hexdigest())
        self.text = self.text or _text(name, self.attention)

    def read(self, modality: Modality, path: Path) -> None:
        """Adds the tower of a published checkpoint's folder, or a saved tower.

        Raises: CheckpointError: it is faulty, or was trained with another text tower than the others.
        """
        if path.is_dir():
            checkpoint = load_checkpoint(path, modality=modality, attention=self.attention)
            self.text, bound = self.text or _load_published_text(checkpoint, path), digest(checkpoint.text)
            self.add(modality, checkpoint.vision, checkpoint.sha256)
        else:
            saved = read_tower(path, modality, self.attention)
            self.text, bound = self.text or _text(saved.text, self.attention), saved.text_sha256
            self.add(modality, saved.vision, saved.sha256, saved.box)
        if bound != digest(self.text.tower):
            raise CheckpointError(f"{path} was trained with another text tower than that of {self.text.source}")


@register("encoder", "languagebind")
def languagebind(
    *,
    files: Mapping[Modality, Path] | None = None,
    fresh: tuple[Modality, ...] = (),
    seed: int = 0,
    size: Literal["vit-l-14", "tiny"] = "vit-l-14",
    thermal: Literal[1, 3] | None = None,
    audio: Literal["log-mel", "waveform"] | None = None,
    pieces: Literal[1, 3] | None = None,
    seconds: float | None = None,
    text: str | None = None,
    attention: Literal["sdpa", "eager"] = "sdpa",
) -> LanguageBind:
    """LanguageBind's ViT-L/14 towers for image, thermal, depth, audio and video, and their text tower.

    Args:
        files: for each modality, the folder of a published checkpoint, or a file written by `save`.
        fresh: modalities that get a random tower instead; their text tower is random too, and hashes the words.
        seed: the seed of the random weights.
        size: the size of random towers; "tiny" is for tests.
        thermal: channels of the thermal box (default of this and the next three: as in the training of a saved tower).
        audio: the audio box.
        pieces: log-mel spectrograms of the audio box, see BoxOptions.
        seconds: length of the audio box, see BoxOptions.
        text: folder of the published checkpoint with a saved tower's text tower, if it has been moved.
        attention: transformers' implementation.

    Raises:
        CheckpointError: a file is missing, faulty, of another modality, or trained with another text tower.
        ModalityError: neither files nor fresh names a modality.
        FieldError: seconds is out of range.
    """
    given = {"thermal": thermal, "audio": audio, "pieces": pieces, "seconds": seconds}
    options = {name: value for name, value in given.items() if value is not None}
    parts = _Parts(options, attention, _text(f"folder {text}", attention) if text else None)
    for modality, path in (files or {}).items():
        parts.read(modality, path)
    for modality in fresh:
        if modality not in parts.towers:
            parts.draw(modality, size, seed)
    if parts.text is None:
        raise ModalityError("a languagebind encoder needs a modality: give files or fresh")
    return LanguageBind(parts.towers, parts.text, parts.sha256).eval().requires_grad_(False)
