"""Model names to encoders: a card says what a baseline's checkpoints are, where they came from and their checksums.

A card is `<folder>/card.yaml`. Installed cards live in the packages of the entry-point group `rlbench.baselines`, one
folder a baseline; a training run's folder has the same card, so that its path is a model name too. An encoder family
without a card is a model by itself when its factory needs no files.

    baseline: rlbind
    summary: One line.
    source: https://arxiv.org/abs/2509.14383
    backbones:
      mini:
        family: mini                  # a registered encoder; called with files={modality: path} if there are any
        fields: {}                    # further arguments of it
        data: procedural worlds
        modalities:
          thermal: {file: mini-thermal.safetensors, sha256: ..., bytes: 571000, trained: {...}}
          audio: {hub: LanguageBind/LanguageBind_Audio_FT, revision: ...}
          depth: {file: LanguageBind_Depth}     # a folder: a copy of such a checkpoint
          image: {}                             # no weights
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import yaml

from rlbench import hub, registry
from rlbench.core import Modality
from rlbench.errors import CheckpointError, ModalityError, UnknownName
from rlbench.fields import checked

if TYPE_CHECKING:
    from rlbench.core import Encoder

GROUP = "rlbench.baselines"
DEFAULT_BACKBONE = "mini"


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
        modalities: those it has; empty for a family without a card, which says so when it is resolved.
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


def _model(card: _Card, name: str, value: object, path: Path) -> Model:
    what = f"{path}: backbone {name!r}"
    backbone = _Backbone(**cast(Any, checked(_Backbone, _mapping(value, what), what)))
    weights: dict[Modality, Weights] = {}
    for modality, entry in backbone.modalities.items():
        if modality not in get_args(Modality):
            raise UnknownName("modality", str(modality), get_args(Modality))
        entry = checked(Weights, _mapping(entry, f"{what}, {modality}"), f"{what}, {modality}")
        weights[modality] = Weights(**cast(Any, entry))
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


def folders() -> Iterator[Path]:
    """The baselines' folders of every installed package, in order."""
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.value, p.name)):
        root = Path(str(files(point.value)))
        yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")


@cache
def _installed() -> tuple[Model, ...]:
    cards = (folder / "card.yaml" for folder in folders())
    carded = [model for path in cards if path.is_file() for model in read_card(path)]
    families = {model.family for model in carded}
    loose = [e for (kind, name), e in registry.entries().items() if kind == "encoder" and name not in families]
    alone = [Model(name=e.name, baseline=e.name, backbone=e.name, family=e.name, summary=e.summary) for e in loose]
    return tuple(sorted(carded + alone, key=lambda model: model.name))


def models() -> list[Model]:
    """Every installed model, sorted by name; imports no torch."""
    return list(_installed())


def default_name(name: str) -> str:
    """The full name of a baseline given alone: its `mini` backbone, or the only one that it has."""
    of = [model.backbone for model in models() if model.baseline == name]
    if ":" in name or not of or name in {model.name for model in models()}:
        return name
    return f"{name}:{DEFAULT_BACKBONE if DEFAULT_BACKBONE in of else of[0]}"


def resolve(name: str) -> Model:
    """The model of a name: `rlbind` (= `rlbind:mini`), `baseline:backbone`, or the folder of a training run.

    Raises:
        UnknownName; CheckpointError and FieldError for a folder with a faulty card.
    """
    known = {model.name: model for model in models()}
    if default_name(name) in known:
        return _with_modalities(known[default_name(name)])
    folder = Path(name).expanduser()
    if (folder / "card.yaml").is_file():
        return _of_run(name, folder)
    if "/" in name or "\\" in name:
        raise CheckpointError(f"{name} is not a trained model: it has no card.yaml (rlbench train writes one)")
    raise UnknownName("model", name, {*known, *(model.baseline for model in known.values())})


def _of_run(name: str, folder: Path) -> Model:
    found = read_card(folder / "card.yaml")
    if len(found) != 1:
        raise CheckpointError(f"{folder}/card.yaml has {len(found)} backbones; as a model name it must have one")
    return Model(**{**vars(found[0]), "name": name.rstrip("/") or name})


def _with_modalities(model: Model) -> Model:
    if model.folder != Path():
        return model
    return Model(**{**vars(model), "modalities": tuple(_made(model, None).boxes)})


def read_weights(model: Model, modality: Modality) -> Path:
    """The path of a modality's file, or of a published checkpoint's folder, checked against its card.

    A file must have the card's size and sha256; of a folder, the weights are checked where the card has their sha256.

    Raises:
        CheckpointError: missing, truncated or altered; the hub can't be reached.
    """
    weights = model.weights[modality]
    path = hub.fetched(weights.hub, weights.revision) if weights.hub else model.folder / str(weights.file)
    if path.is_dir():
        if weights.sha256:
            _check(hub.weights_file(path), weights.sha256)
        return path
    if not path.is_file():
        raise CheckpointError(f"{model.name} needs {path}, which is missing")
    if path.stat().st_size != weights.bytes:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; the card says {weights.bytes}: fetch it again")
    _check(path, weights.sha256)
    return path


def _check(path: Path, sha256: str) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise CheckpointError(f"{path} was altered: its sha256 is {digest[:12]}..., the card says {sha256[:12]}...")


def _made(model: Model, modality: Modality | None) -> Encoder:
    wanted = [m for m, w in model.weights.items() if (w.file or w.hub) and modality in (None, m)]
    paths = {m: read_weights(model, m) for m in wanted}
    arguments = {**model.fields, "files": paths} if paths else dict(model.fields)
    return cast("Encoder", registry.make("encoder", model.family, arguments))


def load_encoder(name: str, modality: Modality | None = None, device: str = "cpu") -> Encoder:
    """The encoder of a name (see `resolve`): in eval mode, frozen, its weights' sha256 checked.

    Args:
        name: such as "rlbind", "fare:mini", or a training run's folder.
        modality: load this tower alone; None: all of them.
        device: a torch device.

    Raises:
        UnknownName, CheckpointError; ModalityError: it has no such modality.
    """
    import torch

    model = resolve(name)
    if modality is not None and modality not in model.modalities:
        raise ModalityError(f"{model.name} has no {modality}; it has {', '.join(model.modalities)}")
    encoder = _made(model, modality)
    if isinstance(encoder, torch.nn.Module):
        encoder.eval().requires_grad_(False).to(device)
    return encoder
