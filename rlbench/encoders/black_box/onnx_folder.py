"""A folder with ONNX files and `onnx.yaml`, which says what they are; read and checked without onnxruntime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rlbench.core import Box, Modality
from rlbench.core.errors import CheckpointError, FieldError, RLBenchError, first_line
from rlbench.core.yaml_source import YamlPart, read
from rlbench.encoders.black_box.classes import check_classes

NAME = "onnx.yaml"


@dataclass(frozen=True, kw_only=True)
class Vision:
    """The model of images, video or audio: its file, its input, and the output with embeddings or scores."""

    file: str
    input: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Text:
    """The model of prompts.

    Attributes:
        file: of the model.
        input, output: the names of the token ids and of the embeddings.
        mask: the name of the attention mask; "" for none.
        tokenizer: a file of the library tokenizers, such as tokenizer.json.
        length: prompts are cut or padded to so many tokens.
        pad: the id of the padding.
    """

    file: str
    input: str
    output: str
    mask: str = ""
    tokenizer: str = "tokenizer.json"
    length: int = 77
    pad: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.length <= 2**16 or self.pad < 0:
            raise FieldError(
                f"length is {self.length} and pad {self.pad}; they must be 1 to 65536 and at least 0", "length"
            )


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Precomputed embeddings: a safetensors file whose tensor `anchors` has one row (D,) per class."""

    file: str


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What `onnx.yaml` says.

    Attributes:
        modality, shape, low, high, unit, rate: the box of the inputs.
        vision: the model of the inputs.
        text: the model of prompts; or else `classes`.
        anchors: embeddings of the classes, where the vision model gives embeddings.
        classes: names; without `anchors`, the vision model's output is a score per class.
        mean, std: subtracted from a channel, and divided by; none where the model does it.
        logit_scale: of the cosine.
        providers: onnxruntime's, in the order of preference.
    """

    modality: Modality
    shape: tuple[int, ...]
    vision: Mapping[str, Any]
    text: Mapping[str, Any] = field(default_factory=dict)
    anchors: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    unit: str = "intensity"
    rate: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    logit_scale: float = 100.0
    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __post_init__(self) -> None:
        if bool(self.text) == bool(self.classes):
            raise FieldError("it needs either text, a model of prompts, or classes, their names", "classes")
        if self.anchors and not self.classes:
            raise FieldError("anchors has one row per class; give their names as classes", "anchors")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) not in (1, self.shape[0]):
                raise FieldError(
                    f"{name} has {len(values)} values; it must have 1 or {self.shape[0]}, one a channel", name
                )
        outside = [value for value in self.mean if not self.low <= value <= self.high]
        if outside:
            raise FieldError(
                f"mean is {outside[0]:g}, outside of the inputs' {self.low:g} to {self.high:g}; divide mean and std by "
                "255 if they are of levels from 0 to 255",
                "mean",
            )
        if any(value <= 0 for value in self.std):
            raise FieldError("std has a value that is not above 0", "std")
        if not self.providers:
            raise FieldError("providers is empty; the default is CPUExecutionProvider", "providers")

    @property
    def box(self) -> Box:
        """Of the inputs."""
        return Box(shape=self.shape, low=self.low, high=self.high, unit=self.unit, rate=self.rate)


@dataclass(frozen=True)
class OnnxFolder:
    """A folder that was read.

    Attributes:
        path: of the folder.
        about: what it says.
        vision, text: the models; text is None for fixed classes.
        anchors: (C, D) float32 unit rows; None where there are none.
        sha256: of all its files.
    """

    path: Path
    about: Declaration
    vision: Vision
    text: Text | None
    anchors: np.ndarray | None
    sha256: str


def read_folder(path: Path) -> OnnxFolder:
    """Reads a folder.

    Raises: CheckpointError, FieldError, UnknownName: `onnx.yaml` is missing or wrong, with its line; or a file that it
        names is missing, lies elsewhere or is damaged.
    """
    if not path.is_dir():
        what = "is a file" if path.is_file() else "does not exist"
        raise CheckpointError(f"{path} {what}; give the folder that has the ONNX files and {NAME}")
    if not (path / NAME).is_file():
        raise CheckpointError(f"{path} has no {NAME}, which says what its ONNX files are")
    whole = read(path / NAME, NAME, CheckpointError)
    about, parts = whole.make(Declaration), whole.items()
    if about.classes:
        check_classes(about.classes, str(path / NAME))
    vision = parts["vision"].make(Vision)
    _check_inside(path, parts["vision"], vision.file)
    text = anchors = None
    if about.text:
        text = parts["text"].make(Text)
        _check_inside(path, parts["text"], text.file, text.tokenizer)
    if about.anchors:
        file = parts["anchors"].make(Anchors).file
        _check_inside(path, parts["anchors"], file)
        anchors = _read_anchors(path / file, len(about.classes))
    return OnnxFolder(path, about, vision, text, anchors, _hash(path))


def _check_inside(folder: Path, part: YamlPart, *names: str) -> None:
    for name in names:
        pure = PurePath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            part.fail(f"{name!r} must lie in the folder")
        if not (folder / name).is_file():
            part.fail(f"there is no file {name!r} in {folder}")


def _read_anchors(path: Path, classes: int) -> np.ndarray:
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {first_line(error)}") from error
    rows = found.get("anchors")
    if rows is None or rows.ndim != 2 or len(rows) != classes or rows.dtype.kind != "f":
        held = ", ".join(f"{name} {value.shape} {value.dtype}" for name, value in sorted(found.items()))
        raise CheckpointError(
            f"{path} holds {held or 'nothing'}; it must hold anchors ({classes}, D), one row per class"
        )
    rows = rows.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(rows).all() or not norms.all():
        raise CheckpointError(f"{path} holds anchors that are zero or not finite")
    return np.asarray(rows / norms)


def _hash(folder: Path) -> str:
    """Of the names and bytes of all files in the folder, since ONNX files may keep their weights in others."""
    digest = hashlib.sha256()
    try:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            with path.open("rb") as file:
                one = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()} {one}\n".encode())
    except OSError as error:
        raise RLBenchError(f"{folder} can't be read: {error.strerror or error}") from error
    return digest.hexdigest()
