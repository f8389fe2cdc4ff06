"""Cards: what a baseline's checkpoints are, where they came from and their checksums.

A card is `<folder>/card.yaml`:

    baseline: rlbind
    summary: One line.
    source: https://arxiv.org/abs/2509.14383
    backbones:
      mini:
        family: mini                  # a registered encoder; called with files={modality: path} if there are any
        fields: {}                    # further arguments of it, none of them a path
        data: procedural worlds
        modalities:
          thermal: {file: mini-thermal.safetensors, sha256: ..., bytes: 571000, trained: {...}}
          audio: {hub: LanguageBind/LanguageBind_Audio_FT, revision: ...}
          depth: {file: LanguageBind_Depth}     # a folder: a copy of such a checkpoint
          image: {}                             # no weights

A card may come from anywhere, so it names no code, and no file outside its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, cast, get_args

import yaml

from rlbench import registry
from rlbench.core import Modality
from rlbench.errors import CheckpointError, UnknownName
from rlbench.fields import checked


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One modality's weights, and how they were trained.

    Attributes:
        file: relative to the card; a folder is a published checkpoint's.
        hub, revision: a published checkpoint of the Hugging Face hub instead; without a revision, its newest.
        sha256, bytes: of the file; of a folder's or the hub's weights, the sha256 alone, if it is known.
    """

    file: str | None = None
    hub: str | None = None
    revision: str | None = None
    sha256: str = ""
    bytes: int = 0
    trained: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder that can be named: `baseline:backbone`, or the path of a training run.

    Attributes:
        modalities: those it has; empty where only the made encoder tells.
        source: paper or page. data: what it was trained on. size: bytes of all files.
        sha256: of each modality's file.
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

    @property
    def size(self) -> int:
        return sum(w.bytes for w in self.weights.values())

    @property
    def sha256(self) -> dict[Modality, str]:
        return {modality: w.sha256 for modality, w in self.weights.items() if w.file}


@dataclass(frozen=True, kw_only=True)
class _Backbone:
    family: str
    modalities: dict  # type: ignore[type-arg]
    data: str = ""
    fields: dict = field(default_factory=dict)  # type: ignore[type-arg]


@dataclass(frozen=True, kw_only=True)
class _Card:
    baseline: str
    summary: str
    backbones: dict  # type: ignore[type-arg]
    source: str = ""


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} must be a mapping; it is {value!r}")
    return value


def read_card(path: Path) -> list[Model]:
    """The models of a card, one per backbone.

    Raises:
        CheckpointError: not readable or not YAML. FieldError: an unknown or missing key, or a value of another type.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} can't be read as a card: {error}".replace("\n", " ")) from error
    card = _Card(**cast(Any, checked(_Card, _mapping(raw, str(path)), str(path))))
    return [_model(card, name, value, path) for name, value in card.backbones.items()]


def _check_contained(backbone: _Backbone, what: str) -> None:
    """Raises: UnknownName, CheckpointError: the family is none that is registered, or a field names a path."""
    families = [name for name in registry.names("encoder") if ":" not in name]
    if ":" in backbone.family:
        raise CheckpointError(
            f"{what}: family is {backbone.family!r}; a card names one of {', '.join(families)}, "
            "and forms with a colon are for the command line"
        )
    if backbone.family not in families:
        raise UnknownName("encoder", backbone.family, families)
    for name, value in backbone.fields.items():
        if name == "files" or any(_is_place(text) for text in _texts(value)):
            raise CheckpointError(f"{what}: the field {name} is {value!r}; a card's fields name no file or folder")


def _is_place(text: str) -> bool:
    return "/" in text or "\\" in text or ":" in text or text.startswith((".", "~"))


def _texts(value: object) -> Iterator[str]:
    """The texts in a value of YAML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(one)


def _model(card: _Card, name: str, value: object, path: Path) -> Model:
    what = f"{path}: backbone {name!r}"
    backbone = _Backbone(**cast(Any, checked(_Backbone, _mapping(value, what), what)))
    _check_contained(backbone, what)
    weights: dict[Modality, Weights] = {}
    for modality, entry in backbone.modalities.items():
        if modality not in get_args(Modality):
            raise UnknownName("modality", str(modality), get_args(Modality))
        entry = checked(Weights, _mapping(entry, f"{what}, {modality}"), f"{what}, {modality}")
        weights[modality] = Weights(**cast(Any, entry))
        file = PurePath(weights[modality].file or "")
        if file.is_absolute() or ".." in file.parts or "\\" in str(file):
            raise CheckpointError(f"{what}, {modality}: file is {str(file)!r}; it must lie in the card's folder")
    return Model(
        name=f"{card.baseline}:{name}",
        baseline=card.baseline,
        backbone=name,
        family=backbone.family,
        summary=card.summary,
        source=card.source,
        data=backbone.data,
        modalities=tuple(weights),
        weights=weights,
        fields=backbone.fields,
        folder=path.parent,
    )
