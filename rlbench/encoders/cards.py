"""Cards: the checkpoints of a baseline, their sources and their checksums.

A card is `<folder>/card.yaml`:

    baseline: rlbind
    summary: One line.
    source: https://arxiv.org/abs/2509.14383
    backbones:
      mini:
        family: mini                  # a registered encoder, called with files={modality: path} if there are files
        fields: {}                    # its other arguments; none may be a path
        data: procedural worlds
        modalities:
          thermal: {file: mini-thermal.safetensors, sha256: ..., bytes: 571000, trained: {...}}
          audio: {hub: LanguageBind/LanguageBind_Audio_FT, revision: ...}
          depth: {file: LanguageBind_Depth}     # a folder: a copy of such a checkpoint
          image: {}                             # no weights

A card may come from an untrusted source, so it can name neither code nor files outside its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast, get_args

from rlbench.core import Modality, registry
from rlbench.core.errors import CheckpointError, FieldError, UnknownName, quote
from rlbench.core.yaml_source import YamlPart, read


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of one modality, and how they were trained.

    Attributes:
        file: a path relative to the card; a folder holds a published checkpoint.
        hub: a published checkpoint of the Hugging Face hub, instead of a file.
        revision: the commit of the hub's checkpoint; None: the newest.
        sha256: of the file, or of the weights in the folder or on the hub, if known.
        bytes: size of the file.
        trained: how the weights were trained.
    """

    file: str | None = None
    hub: str | None = None
    revision: str | None = None
    sha256: str = ""
    bytes: int = 0
    trained: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise FieldError(f"sha256 is {quote(self.sha256)}; it must be 64 hexadecimal digits", "sha256")
        if self.bytes < 0:
            raise FieldError(f"bytes is {self.bytes}; it must be at least 0", "bytes")
        if self.file is not None and self.hub is not None:
            raise FieldError("file and hub are both given; choose one", "hub")


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder that can be named: `baseline:backbone`, or the path of a training run.

    Attributes:
        name: the full name.
        baseline: the first part of the name.
        backbone: the second part of the name.
        family: the registered encoder.
        summary: one line.
        source: paper or page.
        data: the training data.
        modalities: what it embeds; empty if only the encoder itself can tell.
        weights: the files of weights by modality.
        fields: arguments of the family.
        folder: the folder of the card; files are relative to it.
        defences: names of the defences around the encoder, the innermost first.
    """

    name: str
    baseline: str
    backbone: str
    family: str
    summary: str
    source: str = ""
    data: str = ""
    modalities: tuple[Modality, ...] = ()
    weights: Mapping[Modality, Weights] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    defences: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(w.bytes for w in self.weights.values())

    @property
    def sha256(self) -> dict[Modality, str]:
        """The checksum of each modality's file."""
        return {modality: w.sha256 for modality, w in self.weights.items() if w.file}


@dataclass(frozen=True, kw_only=True)
class _Backbone:
    family: str
    modalities: Mapping[str, Any]
    data: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Card:
    baseline: str
    summary: str
    backbones: Mapping[str, Any]
    source: str = ""


def read_card(path: Path) -> list[Model]:
    """The models of a card, one per backbone.

    Raises:
        CheckpointError: the file can't be read or is not YAML.
        FieldError, UnknownName: a key is unknown or missing, or a value is not allowed.
    """
    whole = read(path, "card", CheckpointError)
    card = whole.make(_Card)
    return [_model(card, part, path) for part in whole.items()["backbones"].items().values()]


def _check_contained(backbone: _Backbone, part: YamlPart) -> None:
    """Raises: UnknownName: no such family. CheckpointError: the family is a form, or a field names a path."""
    families = [name for name in registry.names("encoder") if ":" not in name]
    if ":" in backbone.family:
        part.fail(
            f"family is {quote(backbone.family)}; a card may name {', '.join(families)}; "
            "names with a colon are for the command line"
        )
    if backbone.family not in families:
        raise UnknownName("encoder", backbone.family, families, where=f"{part.path}:{part.line}: ")
    for name, value in backbone.fields.items():
        if name == "files" or any(_is_path(text) for text in _texts(value)):
            part.fail(f"the field {name} is {quote(value)}; the fields of a card must not name files or folders")


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or ":" in text or text.startswith((".", "~"))


def _texts(value: object) -> Iterator[str]:
    """All texts in a YAML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(one)


def _model(card: _Card, part: YamlPart, path: Path) -> Model:
    backbone = part.make(_Backbone)
    _check_contained(backbone, part)
    weights: dict[Modality, Weights] = {}
    for modality, entry in part.items()["modalities"].items().items():
        if modality not in get_args(Modality):
            raise UnknownName("modality", modality, get_args(Modality), where=f"{entry.path}:{entry.line}: ")
        weights[cast(Modality, modality)] = made = entry.make(Weights)
        file = PurePath(made.file or "")
        if file.is_absolute() or ".." in file.parts or "\\" in str(file):
            entry.fail(f"file is {quote(str(file))}; it must lie in the card's folder")
    return Model(
        name=f"{card.baseline}:{part.key}",
        baseline=card.baseline,
        backbone=part.key,
        family=backbone.family,
        summary=card.summary,
        source=card.source,
        data=backbone.data,
        modalities=tuple(weights),
        weights=weights,
        fields=backbone.fields,
        folder=path.parent,
    )
