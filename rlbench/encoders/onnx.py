"""ONNX files as an encoder: `onnx:FOLDER`, a folder with `onnx.yaml`.

    modality: image
    shape: [3, 224, 224]
    vision: {file: vision_model.onnx, input: pixel_values, output: image_embeds}
    mean: [0.481, 0.458, 0.408]                # left out where the file normalises
    std: [0.269, 0.261, 0.276]
    text: {file: text_model.onnx, input: input_ids, mask: attention_mask, output: text_embeds}
    logit_scale: 100
    providers: [CUDAExecutionProvider, CPUExecutionProvider]

Instead of `text`, `classes: [cat, dog]` with `anchors: {file: anchors.safetensors}` gives their embeddings, or without
`anchors` says that the output is a score per class. Names and dtypes are checked against the files. The encoder gives
scores, not gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Box, Modality, Trait
from rlbench.core.documents import expand_user
from rlbench.core.errors import CheckpointError, ModalityError, first_line
from rlbench.core.knowledge import Knowledge
from rlbench.core.registry import register
from rlbench.encoders.black_box.classes import WithoutPrompts
from rlbench.encoders.black_box.onnx_folder import Declaration, OnnxFolder, Text, read_folder
from rlbench.encoders.black_box.onnx_session import Session, open_session


@dataclass(frozen=True, eq=False)
class _Models:
    """The sessions of an encoder, and its tokenizer."""

    vision: Session
    text: Session | None = None
    tokenizer: Any = None


_MODELS: WeakKeyDictionary[OnnxScores, _Models] = WeakKeyDictionary()  # not fields: the checksum identifies them


class OnnxScores:
    """The part that all ONNX encoders have.

    Attributes:
        about: what `onnx.yaml` says.
    """

    traits: frozenset[Trait] = frozenset({"non_differentiable"})
    knowledge: Knowledge = "score"

    def __init__(self, folder: OnnxFolder, models: _Models) -> None:
        self.about, self._sha256 = folder.about, folder.sha256
        _MODELS[self] = models

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {self.about.modality: self.about.box}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {self.about.modality: self._sha256}

    def ask(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D) float32, the vision model's output on the CPU."""
        if modality != self.about.modality:
            raise ModalityError(f"this encoder has no {modality}; it has {self.about.modality}")
        session = _MODELS[self].vision
        (name,) = session.dtypes
        return torch.from_numpy(session.run({name: _normalise(x.detach().cpu().numpy(), self.about)}))


class OnnxEncoder(OnnxScores):
    """A vision and a text model, as an Encoder without gradients."""

    @property
    def logit_scale(self) -> float:
        return self.about.logit_scale

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        return normalize(self.ask(x, modality), dim=-1).to(x.device)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        models = _MODELS[self]
        assert models.text is not None
        found = [models.tokenizer.encode(prompt) for prompt in prompts]
        ids = np.array([one.ids for one in found], dtype=np.int64)
        mask = np.array([one.attention_mask for one in found], dtype=np.int64)
        named = dict(zip(_text_inputs(self.about), (ids, mask), strict=False))
        return normalize(torch.from_numpy(models.text.run(named)), dim=-1)


class OnnxClasses(OnnxScores, WithoutPrompts):
    """A vision model with fixed classes: by anchors (C, D), or by an output (B, C) of scores."""

    def __init__(self, folder: OnnxFolder, models: _Models) -> None:
        super().__init__(folder, models)
        self.anchors = None if folder.anchors is None else torch.from_numpy(folder.anchors)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.about.classes

    def classify(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, C) scores."""
        found = self.ask(x, modality)
        if self.anchors is None:
            return found
        return self.about.logit_scale * (normalize(found, dim=-1) @ self.anchors.T)


def _normalise(x: np.ndarray, about: Declaration) -> np.ndarray:
    """(B, C, ...) float32, less the mean and over the deviation of each channel."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    if about.mean:
        x = x - np.array(about.mean, dtype=np.float32).reshape(shape)
    if about.std:
        x = x / np.array(about.std, dtype=np.float32).reshape(shape)
    return x


def _text_inputs(about: Declaration) -> list[str]:
    """The names of the ids and, if there is one, of the mask."""
    return [str(about.text["input"]), *([str(about.text["mask"])] if about.text.get("mask") else [])]


def _tokenizer(path: Path, text: Text) -> Any:
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise CheckpointError(f"{path} is no tokenizer: {first_line(error)}") from error
    made.enable_truncation(text.length)
    made.enable_padding(length=text.length, pad_id=text.pad)
    return made


@register("encoder", "onnx:FOLDER")
def onnx(*, source: str) -> OnnxScores:
    """ONNX files as a black box that gives scores: onnx:FOLDER, a folder with onnx.yaml and the files that it names.

    Args:
        source: the folder.

    Raises:
        RLBenchError: onnxruntime is not installed, or lacks a provider.
        CheckpointError, FieldError: the folder, `onnx.yaml` or a file is missing or wrong.
    """
    folder = read_folder(expand_user(source))
    about, text = folder.about, folder.text
    inputs = {folder.vision.input: about.shape}
    vision = open_session(folder.path / folder.vision.file, inputs, folder.vision.output, about.providers)
    if text is None:
        found = OnnxClasses(folder, _Models(vision))
        width = found.anchors.shape[1] if found.anchors is not None else len(about.classes)
        _check_width(found, width, "classes" if found.anchors is None else "anchors")
        return found
    names = dict.fromkeys(_text_inputs(about), (text.length,))
    prompts = open_session(folder.path / text.file, names, text.output, about.providers)
    return OnnxEncoder(folder, _Models(vision, prompts, _tokenizer(folder.path / text.tokenizer, text)))


def _check_width(encoder: OnnxScores, width: int, what: str) -> None:
    """Raises: CheckpointError: the vision model's output has not so many columns."""
    box = encoder.about.box
    found = encoder.ask(torch.full((1, *box.shape), (box.low + box.high) / 2), encoder.about.modality)
    if found.shape[1] != width:
        raise CheckpointError(f"the vision model's output has {found.shape[1]} columns; {what} has {width}")
