"""CLIP, SigLIP and CLAP of the library transformers, and any LanguageBind, by a hub id or a folder.

CLIP: Radford et al., 2021, https://arxiv.org/abs/2103.00020. SigLIP: Zhai et al., 2023,
https://arxiv.org/abs/2303.15343. CLAP: Wu et al., 2022, https://arxiv.org/abs/2211.06687.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel, CLIPModel, SiglipModel
from transformers.utils import logging as reports

from rlbench import hub
from rlbench.core import Box, Modality, Trait
from rlbench.encoders.clap_front import ClapWaveform
from rlbench.encoders.clip_fronts import MEAN, STD, Front, Pixels
from rlbench.encoders.clip_sizes import declared
from rlbench.encoders.clip_weights import read_config, sha256_of
from rlbench.encoders.languagebind import LanguageBind, languagebind
from rlbench.errors import CheckpointError, FieldError, ModalityError, first_line
from rlbench.registry import register

_MODELS = {"clip": CLIPModel, "siglip": SiglipModel, "clap": ClapModel}
_BUFFERS = ("position_ids", "relative_position_index", "num_batches_tracked")  # that no one learns
_DAMAGED = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, pickle.UnpicklingError, EOFError)
_VOCABULARIES = ("vocab.json", "tokenizer.json", "spiece.model", "vocab.txt")
_IMAGEBIND = (
    "transformers has no ImageBind; make an encoder of the package of https://github.com/facebookresearch/ImageBind "
    "and name it MODULE:CALLABLE, or take --model languagebind:vit-l-14"
)
_BATCH = 256  # prompts at a time


class HuggingFace(nn.Module):
    """A pair of towers of transformers as an Encoder of one modality.

    Zero-shot logits are `logit_scale * cos`. SigLIP adds `logit_bias` to all of them alike, which no argmax, margin or
    softmax sees, so it is left out; its own probabilities are sigmoid(logit_scale * cos + logit_bias).

    Attributes:
        logit_scale: what the checkpoint learned.
        logit_bias: of SigLIP; else 0.
    """

    traits: frozenset[Trait] = frozenset()

    def __init__(self, model: nn.Module, front: Front, tokens: Tokens, sha256: str) -> None:
        super().__init__()
        self.model, self.front, self.tokens = model, front, tokens
        self.modality: Modality = "audio" if isinstance(front, ClapWaveform) else "image"
        scale = getattr(model, "logit_scale_a" if self.modality == "audio" else "logit_scale")
        self.logit_scale = float(scale.exp())
        self.logit_bias = float(getattr(model, "logit_bias", 0.0))
        self._sha256 = sha256

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {self.modality: self.front.box}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {self.modality: self._sha256}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        if modality != self.modality:
            raise ModalityError(f"this encoder has no {modality}; it has {self.modality}")
        if modality == "audio":
            longer = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
            return _unit(self.model.get_audio_features(self.front(x), is_longer=longer))  # type: ignore[operator]
        return _unit(self.model.get_image_features(pixel_values=self.front(x)))  # type: ignore[operator]

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        if not prompts:
            return self.embed_text([""])[:0]
        device, rows = next(self.model.parameters()).device, []
        with torch.no_grad():
            for start in range(0, len(prompts), _BATCH):
                ids = {name: t.to(device) for name, t in self.tokens(prompts[start : start + _BATCH]).items()}
                rows.append(_unit(self.model.get_text_features(**ids)))  # type: ignore[operator]
        return torch.cat(rows)


def _unit(features: Any) -> Tensor:
    """Unit rows of what `get_..._features` returns: a tensor, or since transformers 5 an object that holds it."""
    return normalize(getattr(features, "pooler_output", features), dim=-1)


class Tokens:
    """A folder's tokenizer, with the padding that its model was trained with; longer prompts are cut.

    Raises: CheckpointError: the folder has no vocabulary, or a larger one than its text tower.
    """

    def __init__(self, folder: Path, kind: str, config: Any) -> None:
        if not any((folder / name).is_file() for name in _VOCABULARIES):
            raise CheckpointError(f"{folder} has no tokenizer: it needs one of {', '.join(_VOCABULARIES)}")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (*_DAMAGED, ImportError) as error:
            raise CheckpointError(f"the tokenizer of {folder} can't be read: {first_line(error)}") from error
        if len(self._tokenizer) > config.vocab_size:
            raise CheckpointError(f"{folder}: {len(self._tokenizer)} tokens for a text tower of {config.vocab_size}")
        # RoBERTa's positions, which are CLAP's, begin behind that of the padding.
        self._positions = config.max_position_embeddings - (config.pad_token_id + 1 if kind == "clap" else 0)
        self._padding = "longest" if kind == "clap" else "max_length"

    def __call__(self, prompts: Sequence[str]) -> Mapping[str, Tensor]:
        """(P,) -> (P, L) int64 by the names of the text tower's arguments."""
        cut = {"padding": self._padding, "max_length": self._positions, "truncation": True}
        found = self._tokenizer(list(prompts), return_tensors="pt", **cut)
        return {name: found[name] for name in ("input_ids", "attention_mask") if name in found}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports: what is wrong is raised."""
    level, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.CRITICAL)
    reports.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()  # type: ignore[no-untyped-call]


def _loaded(folder: Path, kind: str) -> nn.Module:
    """The towers in float32, frozen, in eval mode. Raises: CheckpointError: a tensor is missing, left over or wrong."""
    path = hub.weights_file(folder)
    try:
        with _quiet():
            model, info = _MODELS[kind].from_pretrained(  # type: ignore[attr-defined]
                folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except _DAMAGED as error:
        raise CheckpointError(f"{path} can't be read, or is truncated: {first_line(error)}") from error
    said = {"missing_keys": "lacks", "unexpected_keys": "has no place for", "mismatched_keys": "has of another shape"}
    for key, what in said.items():
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in info[key])
        wrong = [name for name in names if not name.endswith(_BUFFERS)]
        if wrong:
            raise CheckpointError(f"{path} {what} {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}")
    model = model.float().eval().requires_grad_(False)
    for name, value in model.state_dict().items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds values that are not finite: {name}")
    return model  # type: ignore[no-any-return]


def _processing(folder: Path) -> dict[str, Any]:
    """What the checkpoint says of its processor of images; older and newer releases write it to different files."""
    for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (folder / name).is_file():
            try:
                found = json.loads((folder / name).read_text(encoding="utf-8"))
                return dict(found.get(part, {}) if part else found)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise CheckpointError(f"{folder / name} can't be read: {first_line(error)}") from error
    return {}


def _ears(folder: Path) -> ClapFeatureExtractor:
    try:
        return ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except _DAMAGED as error:
        raise CheckpointError(f"the feature extractor of {folder} can't be read: {first_line(error)}") from error


def _pixels(folder: Path, kind: str, vision: Any) -> Pixels:
    """The box of the tower's size, with the mean and deviation of the processor, or the family's where it is silent."""
    said, side = _processing(folder), vision.image_size
    cut = said.get("crop_size") or said.get("size") or side
    sides = set(cut.values()) if isinstance(cut, dict) else {cut}
    if sides != {side}:
        raise CheckpointError(f"{folder}: its processor cuts pictures to {cut}; its tower is for {side} x {side}")
    mean, std = (MEAN, STD) if kind == "clip" else ((0.5,) * 3, (0.5,) * 3)
    if said.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    return Pixels(
        Box(shape=(3, side, side)), tuple(said.get("image_mean") or mean), tuple(said.get("image_std") or std)
    )


@register("encoder", "hf:ID")
def hugging_face(*, source: str, seconds: float | None = None) -> HuggingFace | LanguageBind:
    """Any CLIP, SigLIP, CLAP or LanguageBind of the hub, such as hf:openai/clip-vit-base-patch32, or hf:./FOLDER.

    Args:
        source: a repository, with `@REVISION` if it is to be pinned, or a folder that begins with `/`, `.` or `~`.
        seconds: of CLAP's waveforms; by default as many as it hears.

    Raises:
        CheckpointError: a file is missing or faulty, the hub can't be reached, or it is no model of these kinds.
    """
    if "imagebind" in source.lower() and not hub.is_folder(source):
        raise CheckpointError(f"{source}: {_IMAGEBIND}")
    folder = hub.folder_of(source)
    said = read_config(folder)
    bound, kind = declared(said), str(said.get("model_type"))
    if bound is not None:
        return languagebind(files={bound: folder}, seconds=seconds)
    if kind not in _MODELS:
        raise CheckpointError(
            f"{source} is a model of the type {kind!r}; hf: takes {', '.join(_MODELS)} and LanguageBind"
        )
    if seconds is not None and kind != "clap":
        raise FieldError(f"{source} is a {kind}; seconds is for clap")
    model = _loaded(folder, kind)
    config: Any = model.config
    front: Front
    if kind == "clap":
        front = ClapWaveform(_ears(folder), seconds, fused=config.audio_config.enable_fusion)
    else:
        front = _pixels(folder, kind, config.vision_config)
    tokens = Tokens(folder, kind, config.text_config)
    return HuggingFace(model, front, tokens, sha256_of(hub.weights_file(folder))).eval().requires_grad_(False)
