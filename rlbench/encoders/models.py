"""Turns a model's name into a Model, and a Model into an encoder.

A name is one of:

- `baseline` or `baseline:backbone`, by an installed card: the packages of the entry-point group `rlbench.baselines`
  have one folder per baseline;
- the path of a training run, whose folder has the same kind of card;
- an encoder family without a card, if its factory needs no files;
- a form such as `hf:ID`: a family with a colon in its registered name, made from the text after the colon;
- `random:BACKBONE`, random weights of a backbone's sizes;
- any of these with `+DEFENCE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rlbench.core import Modality, callables, registry
from rlbench.core.documents import expand_user
from rlbench.core.errors import CheckpointError, ModalityError, RLBenchError, UnknownName
from rlbench.encoders import hub
from rlbench.encoders.cards import Model, read_card

if TYPE_CHECKING:
    from rlbench.core import Encoder

GROUP = "rlbench.baselines"
DEFAULT_BACKBONE = "mini"
OWN = "MODULE:CALLABLE"  # the family of a user's own encoders
SERVERS = ("http:URL", "https:URL")  # the families that send inputs elsewhere
RANDOM = "random:BACKBONE"


def folders() -> Iterator[Path]:
    """The folders of all installed baselines, in order."""
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.value, p.name)):
        root = Path(str(files(point.value)))
        yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")


@cache
def _list_installed() -> tuple[Model, ...]:
    cards = (folder / "card.yaml" for folder in folders())
    carded = [model for path in cards if path.is_file() for model in read_card(path)]
    families = {model.family for model in carded}
    loose = [e for (kind, name), e in registry.entries().items() if kind == "encoder" and name not in families]
    alone = [
        Model(name=e.name, baseline=e.name, backbone="-" if ":" in e.name else e.name, family=e.name, summary=e.summary)
        for e in loose
    ]
    drawn = "Random weights of a backbone's sizes, for trying things out: random:mini, random:vit-l-14."
    alone.append(Model(name=RANDOM, baseline="random", backbone="-", family="", summary=drawn))
    return tuple(sorted(carded + alone, key=lambda model: model.name))


def models() -> list[Model]:
    """All installed models, sorted by name; does not import torch."""
    return list(_list_installed())


def default_name(name: str) -> str:
    """The full name of a baseline given without a backbone: `mini` if it has that one, or else its first."""
    of = [model.backbone for model in models() if model.baseline == name]
    if ":" in name or not of or name in {model.name for model in models()}:
        return name
    return f"{name}:{DEFAULT_BACKBONE if DEFAULT_BACKBONE in of else of[0]}"


def resolve(name: str) -> Model:
    """The model of a name: `rlbind` (= `rlbind:mini`), `baseline:backbone`, a form such as `hf:ID`, or a run's folder.

    Raises:
        UnknownName: there is no such model.
        CheckpointError, FieldError: the card in the folder is missing or faulty.
    """
    base, _, defence = name.rpartition("+")
    if base and defence in registry.names("defence"):
        model = resolve(base)
        return replace(
            model,
            name=f"{model.name}+{defence}",
            baseline=f"{model.baseline}+{defence}",
            defences=(*model.defences, defence),
        )
    known = {model.name: model for model in models()}
    formed = _parse_form(name, known)
    if formed is not None:
        return formed
    if default_name(name) in known:
        return _add_modalities(known[default_name(name)])
    folder = expand_user(name)
    if (folder / "card.yaml").is_file():
        return _read_run(name, folder)
    if own_file := _explain_own(name, folder):
        raise own_file
    if "/" in name or "\\" in name:
        own = "; for your own encoder, go to its folder and give MODULE:CALLABLE" if ":" in folder.name else ""
        if not folder.exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
            own = f"; a model of the hub is hf:{name}"
        raise CheckpointError(f"{name} is not a trained model: it has no card.yaml (rlbench train writes one){own}")
    if base:
        resolve(base)  # raises where the model, too, is unknown
        raise UnknownName("defence", defence, registry.names("defence"), see="rlbench list defences")
    known_names = {*known, *(model.baseline for model in known.values())}
    raise UnknownName("model", name, known_names, see="rlbench list models")


def _explain_own(name: str, path: Path) -> CheckpointError | None:
    """The error for a file of one's own, which alone is no model; None for any other name."""
    if name.endswith(".py"):
        return CheckpointError(f"{name} is a file; give MODULE:CALLABLE, such as {path.stem}:make, in its folder")
    if path.name and path.with_name(f"{path.name}.py").is_file():
        return CheckpointError(f"{name} is a module; give MODULE:CALLABLE, such as {path.name}:make, in its folder")
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors") and path.is_file():
        return CheckpointError(
            f"{name} has weights, and not the code that computes with them; write a function that loads it "
            "(rlbench new encoder mine), and give mine:make"
        )
    return None


def _parse_form(name: str, known: Mapping[str, Model]) -> Model | None:
    """The model of a name such as `hf:ID`, made from the text after the colon; None if the name is no such form."""
    scheme, _, rest = name.partition(":")
    forms = {form.partition(":")[0]: form for form in registry.names("encoder") if ":" in form}
    if name in (RANDOM, *forms.values()):
        raise UnknownName("model", name, [f"{scheme}:... with your own {rest}"])
    if not rest or name in known or scheme in {model.baseline for model in known.values() if model.weights}:
        return None
    if scheme == RANDOM.partition(":")[0]:
        return _make_random(name, rest)
    if scheme not in forms and callables.is_callable_name(name):
        if not callables.is_importable(name) and get_close_matches(name, known, n=1):
            return None
        forms[scheme], rest = OWN, name
    if scheme not in forms:
        return None
    about = known[forms[scheme]].summary
    fields, of = {"source": rest}, rest.strip("/") if forms[scheme] in SERVERS else rest
    return Model(name=name, baseline=scheme, backbone=of, family=forms[scheme], summary=about, fields=fields)


def _make_random(name: str, backbone: str) -> Model:
    sizes = {model.backbone: model for model in models() if model.baseline == "languagebind"}
    if backbone not in sizes:
        raise UnknownName("backbone", backbone, sizes)
    of = sizes[backbone]
    fields = {**of.fields, "fresh": of.modalities}
    about = f"Random weights of the sizes of {of.name}."
    return Model(
        name=name,
        baseline="random",
        backbone=backbone,
        family=of.family,
        summary=about,
        modalities=of.modalities,
        fields=fields,
    )


def resolve_plain(name: str, source: object) -> Model:
    """The model of a name that was read from a file, which must name neither code to run nor a server.

    Args:
        name: a name as for `resolve`.
        source: the file, for the error message.

    Raises: as `resolve`; RLBenchError: the name is MODULE:CALLABLE or a URL.
    """
    model = resolve(name)
    if model.family in (OWN, *SERVERS):
        does = "run code" if model.family == OWN else "send data to a server"
        raise RLBenchError(
            f"{source} names the encoder {name}, which would {does}; if you trust it, give --model {name}"
        )
    return model


def is_path(name: str) -> bool:
    """Whether a model's name is or contains a path, which has no meaning on another machine."""
    scheme, _, rest = name.partition(":")
    if scheme in ("http", "https", "onnx", "imagebind"):
        return scheme in ("onnx", "imagebind")
    if scheme in ("hf", "open_clip") and "\\" not in name:
        return hub.is_folder(rest) or rest.startswith("local-dir:") or hub.is_folder(rest.removeprefix("hf-hub:"))
    return "/" in name or "\\" in name


def _read_run(name: str, folder: Path) -> Model:
    found = read_card(folder / "card.yaml")
    if len(found) != 1:
        raise CheckpointError(f"{folder}/card.yaml has {len(found)} backbones; to be a model, it must have one")
    return Model(**{**vars(found[0]), "name": name.rstrip("/") or name})


def _add_modalities(model: Model) -> Model:
    """The model with the modalities of its encoder, if no card tells them."""
    if model.folder != Path():
        return model
    return Model(**{**vars(model), "modalities": tuple(_call_factory(model, None).boxes)})


def read_weights(model: Model, modality: Modality) -> Path:
    """The path of a modality's file, or the folder of its published checkpoint, checked against the card.

    A file must have the size and sha256 of the card; in a folder, the weights must have the sha256 if the card has one.

    Raises:
        CheckpointError: the file is missing, truncated or altered, or the hub can't be reached.
    """
    weights = model.weights[modality]
    path = hub.fetch(weights.hub, weights.revision) if weights.hub else model.folder / str(weights.file)
    if path.is_dir():
        if weights.sha256:
            _check_sha256(hub.weights_file(path), weights.sha256)
        return path
    if not path.is_file():
        raise CheckpointError(f"{model.name} needs {path}, which is missing")
    if path.stat().st_size != weights.bytes:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; the card says {weights.bytes}: fetch it again")
    _check_sha256(path, weights.sha256)
    return path


def _check_sha256(path: Path, sha256: str) -> None:
    from rlbench.encoders.clip.weights import sha256_of

    digest = sha256_of(path)
    if digest != sha256:
        raise CheckpointError(f"{path} was altered: its sha256 is {digest[:12]}..., the card says {sha256[:12]}...")


def _call_factory(model: Model, modality: Modality | None) -> Encoder:
    wanted = [m for m, w in model.weights.items() if (w.file or w.hub) and modality in (None, m)]
    paths = {m: read_weights(model, m) for m in wanted}
    arguments = {**model.fields, "files": paths} if paths else dict(model.fields)
    if modality is not None and "fresh" in arguments:
        arguments["fresh"] = (modality,)
    from rlbench.encoders.contract import check_fields
    from rlbench.encoders.settings import keep_settings

    with keep_settings(model.name):
        encoder = cast("Encoder", registry.make("encoder", model.family, arguments))
    check_fields(encoder, model.name)
    return encoder


def load_encoder(name: str, modality: Modality | None = None, device: str = "cpu") -> Encoder:
    """The encoder of a model's name (see `resolve`): in evaluation mode, frozen, its files checked against the card.

    Args:
        name: a name such as "rlbind" or "fare:mini", or the folder of a training run; `+DEFENCE` puts it behind one.
        modality: loads only this tower; None: all of them.
        device: a torch device.

    Raises:
        UnknownName: there is no such model.
        CheckpointError: its card or its files are missing or faulty.
        ModalityError: it has no such modality.
    """
    return make_encoder(resolve(name), modality, device)


def make_encoder(model: Model, modality: Modality | None = None, device: str = "cpu") -> Encoder:
    """The encoder of a resolved model; arguments and errors as for `load_encoder`."""
    import torch

    if modality is not None and model.modalities and modality not in model.modalities:
        raise ModalityError(f"{model.name} has no {modality}; it has {', '.join(model.modalities)}")
    encoder = _call_factory(model, modality)
    if modality is not None and modality not in encoder.boxes:
        raise ModalityError(f"{model.name} has no {modality}; it has {', '.join(encoder.boxes)}")
    if isinstance(encoder, torch.nn.Module):
        encoder.eval().requires_grad_(False).to(device)
    for defence in model.defences:
        encoder = registry.make("defence", defence).around(encoder, f"{model.name}: +{defence}").eval()
    return encoder
