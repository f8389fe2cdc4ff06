"""The identity of an encoder, for cell keys and caches: hashes of its weights, code, defence and fields.

If rlbench's own code makes an encoder from files, their checksums and the card's fields identify it. For all others,
such as a user's own, the identity hashes the loaded weights, everything else that the encoder holds (see `reach`), the
source of its modules, and the result of its own `identity()`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from rlbench.core import Encoder, Modality, registry
from rlbench.core.errors import RLBenchError
from rlbench.core.sources import distribution, source_hash
from rlbench.encoders.cards import Model
from rlbench.encoders.defences.defended import Defended
from rlbench.encoders.models import OWN
from rlbench.encoders.reach import Code, Name, reach

_NAMED = 2000  # number of parts whose hashes are stored by path, to name one that differs


@dataclass(frozen=True)
class Identity:
    """The identity of a loaded encoder; equal encoders have equal identities in any process.

    Attributes:
        checkpoint: sha256 of the weights, as stated by the encoder or computed from them; "" if it has none.
        facts: hashes of everything else that its outputs depend on, by name; empty if the checkpoint is enough.
        parts: a short hash of each part of the encoder, by its path.
    """

    checkpoint: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict, compare=False)

    def difference(self, other: Identity) -> str:
        """The facts in which another identity differs, with an example of a part."""
        names = {"checkpoint": (self.checkpoint, other.checkpoint)}
        names |= {fact: (self.facts.get(fact, ""), other.facts.get(fact, "")) for fact in {*self.facts, *other.facts}}
        changed = sorted(name for name, (one, two) in names.items() if one != two)
        paths = [path for path, part in self.parts.items() if other.parts.get(path) != part]
        example = f", such as {paths[0]}" if paths else ""
        return f"its {' and '.join(changed)} differ{'s' * (len(changed) == 1)}{example}"


def identify(encoder: Encoder, model: Model, modality: Modality) -> Identity:
    """The identity of an encoder that was just loaded.

    Args:
        encoder: the loaded encoder.
        model: the model that it was made from.
        modality: the modality whose weights count.

    Raises: RLBenchError: its `identity()` returns neither a text nor a mapping of plain values.
    """
    stated = str(encoder.sha256.get(modality, ""))
    foreign = _list_foreign_modules(encoder, model)
    if stated and not foreign and _is_identified_by_files(model, modality):
        return Identity(stated, {"fields": _hash(dict(model.fields))} if model.fields else {})
    found = reach(encoder, own={top for module in foreign for top in distribution(module.partition(".")[0])})
    trusted = bool(stated and not foreign)  # then the checksum stands for the parameters
    weights = {one.path: _digest(one.value, brief=trusted) for one in found.held if _is_weight(one.value)}
    others = {one.path: text for one in found.held if (text := _text(one.value)) is not None}
    fields = {} if ":" in model.family else dict(model.fields)  # the field of a form is the source of the encoder
    facts = {
        "weights": _hash(sorted(weights.items())),
        "code": _hash(sorted({source_hash(module) for module in {*found.modules, *foreign}})),
        "fields": _hash([sorted(others.items()), fields, _list_declared(encoder, modality)]),
        "stated checksum": stated,
        "identity()": _hash_own_identity(encoder, model.name),
    }
    checkpoint = stated if trusted or not weights else _hash(sorted(weights.items()), 64)
    parts = {path: crc32(text.encode()) for path, text in [*weights.items(), *others.items()][:_NAMED]}
    return Identity(checkpoint, facts, parts)


def _list_foreign_modules(encoder: Encoder, model: Model) -> list[str]:
    """The modules outside rlbench that define the encoder's factory and its defences."""
    entry = registry.entries().get(("encoder", model.family))
    factory = model.fields["source"].partition(":")[0] if model.family == OWN else entry.module if entry else ""
    modules = [factory]
    while isinstance(encoder, Defended):
        modules.append(type(encoder.defence).__module__)
        encoder = encoder.sibling
    return [module for module in modules if module.partition(".")[0] != "rlbench"]


def _is_identified_by_files(model: Model, modality: Modality) -> bool:
    """Whether the encoder is made only from the card's fields and from files whose checksums the card has."""
    weights = model.weights.get(modality)
    files = weights is None or (weights.hub is None and bool(weights.file is None or weights.bytes))
    return ":" not in model.family and files


def _list_declared(encoder: Encoder, modality: Modality) -> list[str]:
    return [str(encoder.boxes.get(modality)), str(sorted(encoder.traits)), repr(float(encoder.logit_scale))]


def _hash_own_identity(encoder: Encoder, name: str) -> str:
    """A hash of the result of the encoder's own `identity()`, also behind defences; "" if it has none."""
    while isinstance(encoder, Defended):
        encoder = encoder.sibling
    if not callable(getattr(type(encoder), "identity", None)):
        return ""
    answer = encoder.identity()  # type: ignore[attr-defined]
    if not isinstance(answer, str | Mapping):
        raise RLBenchError(f"{name}: identity() returned {type(answer).__name__}; it must return a text or a mapping")
    try:
        return _hash(
            answer if isinstance(answer, str) else sorted((str(key), json.dumps(answer[key])) for key in answer)
        )
    except TypeError as error:
        raise RLBenchError(f"{name}: identity() holds a value that is not a text, number, list or mapping") from error


def _is_weight(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype != object)


def _digest(value: object, *, brief: bool) -> str:
    """Dtype, shape and hash of a tensor or array; with `brief`, only dtype and shape of a parameter."""
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        return f"{value.dtype.str} {value.shape} {digest.hexdigest()}"
    assert isinstance(value, Tensor)
    facts = f"{value.dtype} {tuple(value.shape)}"
    if value.is_meta or (brief and isinstance(value, nn.Parameter)):
        return facts
    dense = value.detach().cpu()
    dense = dense.dequantize() if dense.is_quantized else dense.to_dense() if dense.layout != torch.strided else dense
    flat = dense.resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8)
    return f"{facts} {hashlib.sha256(flat.numpy().data).hexdigest()}"


def _text(value: object) -> str | None:
    """The text for a value in the hash of the fields; None for weights, and for modules, whose parts follow."""
    if _is_weight(value) or isinstance(value, nn.Module):
        return None
    if isinstance(value, Name):
        return value.text
    if isinstance(value, Code):
        return f"{value.name} {value.digest}"
    if isinstance(value, re.Pattern):
        return f"{value.pattern!r} {value.flags}"
    return repr(value)


def _hash(value: object, length: int = 16) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
