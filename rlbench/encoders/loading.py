"""An encoder by its model's name: loaded, checked to be frozen, identified, and kept for the next call."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from types import FunctionType

import torch
from torch import Tensor

from rlbench.core import Encoder, Modality
from rlbench.core.errors import RLBenchError
from rlbench.encoders.cards import Model
from rlbench.encoders.contract import check_embed
from rlbench.encoders.identity import Identity, identify
from rlbench.encoders.models import load_encoder, resolve
from rlbench.encoders.reach import reach


def check_frozen(encoder: Encoder, model: str) -> None:
    """Raises RLBenchError where anything that the encoder holds is in training mode or requires gradients."""
    for path, value in ((one.path, one.value) for one in reach(encoder).held):
        if isinstance(value, torch.nn.Module) and value.training and not _is_steady(value):
            raise RLBenchError(f"the encoder {model!r} is in training mode at {path}; its factory must call eval()")
        if isinstance(value, Tensor) and value.requires_grad:
            raise RLBenchError(
                f"the encoder {model!r} is not frozen at {path}; its factory must call requires_grad_(False)"
            )


def _is_steady(module: torch.nn.Module) -> bool:
    """Whether a module is without weights and parts and never asks for its mode, such as a preparation of pictures."""
    if isinstance(module, torch.jit.ScriptModule) or any(True for _ in chain(module.buffers(), module.parameters())):
        return False
    own = [cls for cls in type(module).__mro__ if issubclass(cls, torch.nn.Module) and cls is not torch.nn.Module]
    code = [part.__code__ for cls in own for part in vars(cls).values() if isinstance(part, FunctionType)]
    return not any(module.children()) and not any("training" in one.co_names for one in code)


@dataclass(frozen=True)
class Loaded:
    """An encoder that was checked.

    Attributes:
        embedded: (2, D) embeddings of two inputs of the box.
        made_of: the card and files of its model, or None where only making it tells.
    """

    encoder: Encoder
    embedded: Tensor
    identity: Identity
    made_of: object


_KEPT: dict[tuple[str, Modality, str], Loaded] = {}


def _files(model: Model) -> object:
    """A card and the state of its files, which tell whether they were changed; None where the weights are elsewhere."""
    if ":" in model.family or any(weights.hub for weights in model.weights.values()):
        return None
    paths = [model.folder / weights.file for weights in model.weights.values() if weights.file]
    if any(path.is_dir() for path in paths):
        return None
    states = [path.stat() for path in paths if path.is_file()]
    return model, [(state.st_size, state.st_mtime_ns, state.st_ino) for state in states]


def load(name: str, modality: Modality, device: str = "cpu", known: Identity | None = None) -> Loaded:
    """The encoder of a model, checked; it is kept for the next call.

    One that was kept is taken where its card and files are as they were, so that loading it again would give the same,
    or where it is the one that is `known`; a user's own encoder may be another each time that it is made.

    Raises: UnknownName, CheckpointError, ModalityError; RLBenchError where it is not frozen, not the known one, or does
        not do what `core.Encoder` says.
    """
    model = resolve(name)
    place, made_of = (name, modality, device), _files(model)
    kept = _KEPT.get(place)
    if kept and kept.made_of == made_of and (known == kept.identity or (known is None and made_of is not None)):
        return kept
    encoder = load_encoder(name, modality, device)
    check_frozen(encoder, name)
    embedded = check_embed(encoder, name, modality, device)
    identity = identify(encoder, model, modality)
    if known is not None and identity != known:
        raise RLBenchError(
            f"the encoder {name!r} is another one each time that it is made: {known.difference(identity)}; "
            "seed what it draws, or leave its files alone while it is used"
        )
    _KEPT.pop(place, None)
    while len(_KEPT) >= 2:
        del _KEPT[next(iter(_KEPT))]
    _KEPT[place] = Loaded(encoder, embedded, identity, made_of)
    return _KEPT[place]
