"""Model names to encoders: by the cards of baselines and training runs, by a form such as `hf:ID`, or random.

Installed cards live in the packages of the entry-point group `rlbench.baselines`, one folder a baseline; a training
run's folder has the same card, so that its path is a model name too. An encoder family without a card is a model by
itself when its factory needs no files. One whose registered name has a colon, such as
`hf:ID`, is made of what the user writes behind the colon; `random:BACKBONE` has random weights of a backbone's sizes.
"""

from __future__ import annotations

import hashlib
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
OWN = "MODULE:CALLABLE"  # the family of the encoders that a user names by what makes them
RANDOM = "random:BACKBONE"


def folders() -> Iterator[Path]:
    """The baselines' folders of every installed package, in order."""
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
    drawn = "Random weights of a backbone's sizes, to try things out: random:mini, random:vit-l-14."
    alone.append(Model(name=RANDOM, baseline="random", backbone="-", family="", summary=drawn))
    return tuple(sorted(carded + alone, key=lambda model: model.name))


def models() -> list[Model]:
    """Every installed model, sorted by name; imports no torch."""
    return list(_list_installed())


def default_name(name: str) -> str:
    """The full name of a baseline given alone: its `mini` backbone, or the only one that it has."""
    of = [model.backbone for model in models() if model.baseline == name]
    if ":" in name or not of or name in {model.name for model in models()}:
        return name
    return f"{name}:{DEFAULT_BACKBONE if DEFAULT_BACKBONE in of else of[0]}"


def resolve(name: str) -> Model:
    """The model of a name: `rlbind` (= `rlbind:mini`), `baseline:backbone`, a form such as `hf:ID`, or a run's folder.

    Raises:
        UnknownName; CheckpointError and FieldError for a folder with a faulty card.
    """
    if (behind := _behind(name)) is not None:
        model, defence = resolve(behind[0]), behind[1]
        return replace(model, name=f"{model.name}+{defence}", baseline=f"{model.baseline}+{defence}")
    known = {model.name: model for model in models()}
    formed = _parse_form(name, known)
    if formed is not None:
        return formed
    if default_name(name) in known:
        return _with_modalities(known[default_name(name)])
    folder = expand_user(name)
    if (folder / "card.yaml").is_file():
        return _of_run(name, folder)
    if "/" in name or "\\" in name:
        own = "; your own encoder is MODULE:CALLABLE, without a folder: run from there" if ":" in folder.name else ""
        raise CheckpointError(f"{name} is not a trained model: it has no card.yaml (rlbench train writes one){own}")
    raise UnknownName("model", name, {*known, *(model.baseline for model in known.values())})


def _parse_form(name: str, known: Mapping[str, Model]) -> Model | None:
    """The model of a name that is made of a form and of what is behind the colon, if it is one."""
    scheme, _, rest = name.partition(":")
    forms = {form.partition(":")[0]: form for form in registry.names("encoder") if ":" in form}
    if name in (RANDOM, *forms.values()):
        raise UnknownName("model", name, [f"{scheme}:... with yours in the place of {rest}"])
    if not rest or name in known or scheme in {model.baseline for model in known.values() if model.weights}:
        return None
    if scheme == RANDOM.partition(":")[0]:
        return _random(name, rest)
    if scheme not in forms and callables.is_callable_name(name):
        if not callables.is_importable(name) and get_close_matches(name, known, n=1):
            return None
        forms[scheme], rest = OWN, name
    if scheme not in forms:
        return None
    about = known[forms[scheme]].summary
    fields = {"source": rest}
    return Model(name=name, baseline=scheme, backbone=rest, family=forms[scheme], summary=about, fields=fields)


def _random(name: str, backbone: str) -> Model:
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
    """The model of a name that a file says; that of the user's own code is for the command line alone.

    Raises: as `resolve`; RLBenchError for MODULE:CALLABLE.
    """
    model = resolve(name)
    if model.family == OWN:
        raise RLBenchError(
            f"{source} names the encoder {name}, which is code to be run; if you trust it, name it: --model {name}"
        )
    return model


def _behind(name: str) -> tuple[str, str] | None:
    """(BASE, DEFENCE) of `BASE+DEFENCE`, such as `rlbind+jpeg`."""
    base, _, defence = name.rpartition("+")
    return (base, defence) if base and defence in registry.names("defence") else None


def is_path(name: str) -> bool:
    """Whether a model's name is a path of this machine, or holds one, so that it says nothing on another."""
    scheme, _, rest = name.partition(":")
    if scheme in ("hf", "open_clip") and "\\" not in name:
        return hub.is_folder(rest) or rest.startswith("local-dir:") or hub.is_folder(rest.removeprefix("hf-hub:"))
    return "/" in name or "\\" in name


def _of_run(name: str, folder: Path) -> Model:
    found = read_card(folder / "card.yaml")
    if len(found) != 1:
        raise CheckpointError(f"{folder}/card.yaml has {len(found)} backbones; as a model name it must have one")
    return Model(**{**vars(found[0]), "name": name.rstrip("/") or name})


def _with_modalities(model: Model) -> Model:
    if model.folder != Path():
        return model
    return Model(**{**vars(model), "modalities": tuple(_make(model, None).boxes)})


def read_weights(model: Model, modality: Modality) -> Path:
    """The path of a modality's file, or of a published checkpoint's folder, checked against its card.

    A file must have the card's size and sha256; of a folder, the weights are checked where the card has their sha256.

    Raises:
        CheckpointError: missing, truncated or altered; the hub can't be reached.
    """
    weights = model.weights[modality]
    path = hub.fetch(weights.hub, weights.revision) if weights.hub else model.folder / str(weights.file)
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


def _make(model: Model, modality: Modality | None) -> Encoder:
    wanted = [m for m, w in model.weights.items() if (w.file or w.hub) and modality in (None, m)]
    paths = {m: read_weights(model, m) for m in wanted}
    arguments = {**model.fields, "files": paths} if paths else dict(model.fields)
    if modality is not None and "fresh" in arguments:
        arguments["fresh"] = (modality,)
    encoder = cast("Encoder", registry.make("encoder", model.family, arguments))
    from rlbench.encoders.contract import check_fields

    check_fields(encoder, model.name)
    return encoder


def load_encoder(name: str, modality: Modality | None = None, device: str = "cpu") -> Encoder:
    """The encoder of a name (see `resolve`): in eval mode, frozen, its weights' sha256 checked.

    Args:
        name: such as "rlbind", "fare:mini", or a training run's folder; with `+DEFENCE`, behind that defence.
        modality: load this tower alone; None: all of them.
        device: a torch device.

    Raises:
        UnknownName, CheckpointError; ModalityError: it has no such modality.
    """
    import torch

    if (behind := _behind(name)) is not None:
        from rlbench.encoders.defences.defended import Defended

        return Defended(load_encoder(behind[0], modality, device), registry.make("defence", behind[1])).eval()
    model = resolve(name)
    if modality is not None and model.modalities and modality not in model.modalities:
        raise ModalityError(f"{model.name} has no {modality}; it has {', '.join(model.modalities)}")
    encoder = _make(model, modality)
    if modality is not None and modality not in encoder.boxes:
        raise ModalityError(f"{model.name} has no {modality}; it has {', '.join(encoder.boxes)}")
    if isinstance(encoder, torch.nn.Module):
        encoder.eval().requires_grad_(False).to(device)
    return encoder
