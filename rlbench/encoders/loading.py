"""Loads the encoder of a model's name, checks it, identifies it, and caches it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from types import FunctionType

import torch
from torch import Tensor

from rlbench.core import Encoder, Modality
from rlbench.core.errors import RLBenchError
from rlbench.encoders.black_box.classes import FixedClasses
from rlbench.encoders.cards import Model
from rlbench.encoders.contract import check_embed
from rlbench.encoders.identity import Identity, identify
from rlbench.encoders.models import make_encoder, resolve
from rlbench.encoders.reach import reach


def check_frozen(encoder: Encoder, model: str) -> None:
    """Raises: RLBenchError: some part of the encoder is in training mode or requires gradients."""
    for path, value in ((one.path, one.value) for one in reach(encoder).held):
        if isinstance(value, torch.nn.Module) and value.training and not _is_steady(value):
            raise RLBenchError(f"the encoder {model!r} is in training mode at {path}; its factory must call eval()")
        if isinstance(value, Tensor) and value.requires_grad:
            raise RLBenchError(
                f"the encoder {model!r} is not frozen at {path}; its factory must call requires_grad_(False)"
            )


def _is_steady(module: torch.nn.Module) -> bool:
    """Whether a module's mode has no effect: it has no weights and no parts, and its code never reads `training`."""
    if isinstance(module, torch.jit.ScriptModule) or any(True for _ in chain(module.buffers(), module.parameters())):
        return False
    own = [cls for cls in type(module).__mro__ if issubclass(cls, torch.nn.Module) and cls is not torch.nn.Module]
    code = [part.__code__ for cls in own for part in vars(cls).values() if isinstance(part, FunctionType)]
    return not any(module.children()) and not any("training" in one.co_names for one in code)


@dataclass(frozen=True)
class Loaded:
    """A loaded and checked encoder.

    Attributes:
        encoder: the encoder, in evaluation mode and frozen.
        embedded: (2, D) embeddings of two inputs from the box; D is 0 for an encoder with fixed classes.
        identity: the encoder's identity.
        files: the card and the state of its files; None if they do not determine the encoder.
    """

    encoder: Encoder
    embedded: Tensor
    identity: Identity
    files: object


_CACHE: dict[tuple[str, Modality, str], Loaded] = {}  # by name, modality and device


def _read_state(model: Model) -> object:
    """A card and the size, time and inode of its files, to detect changes; None if the weights are elsewhere."""
    if ":" in model.family or any(weights.hub for weights in model.weights.values()):
        return None
    paths = [model.folder / weights.file for weights in model.weights.values() if weights.file]
    if any(path.is_dir() for path in paths):
        return None
    states = [path.stat() for path in paths if path.is_file()]
    return model, [(state.st_size, state.st_mtime_ns, state.st_ino) for state in states]


def load(name: str, modality: Modality, device: str = "cpu", known: Identity | None = None, *, held: int = 2) -> Loaded:
    """The checked encoder of a model's name; the cache holds the last two, or `held`.

    A cached encoder is returned if its card and files have not changed, or if its identity is `known`. A user's own
    encoder may differ each time that it is made.

    Args:
        name: the name of a model, see `models.resolve`.
        modality: loads only this tower.
        device: a torch device.
        known: the identity that the encoder must have, if any.
        held: the most encoders in the cache.

    Raises:
        UnknownName, CheckpointError, ModalityError: as `models.load_encoder`.
        RLBenchError: it is not frozen, its identity is not `known`, or it is not as `core.Encoder` requires.
    """
    model = resolve(name)
    key, files = (name, modality, device), _read_state(model)
    cached = _CACHE.get(key)
    if cached and cached.files == files and (known == cached.identity or (known is None and files is not None)):
        return cached
    encoder = make_encoder(model, modality, device)
    check_frozen(encoder, name)
    embedded = torch.empty(2, 0)
    if not isinstance(encoder, FixedClasses):
        embedded = check_embed(encoder, name, modality, device)
    identity = identify(encoder, model, modality)
    if known is not None and identity != known:
        raise RLBenchError(
            f"the encoder {name!r} is different each time that it is made: {known.difference(identity)}; "
            "seed its random numbers, and do not change its files while it is in use"
        )
    _CACHE.pop(key, None)
    while len(_CACHE) >= held:
        del _CACHE[next(iter(_CACHE))]
    _CACHE[key] = Loaded(encoder, embedded, identity, files)
    return _CACHE[key]
