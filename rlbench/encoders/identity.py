"""What makes an encoder this one and no other: its weights, code, defence and fields, for cell keys and caches.

An encoder that rlbench's own code makes of files is what their checksums and the card's fields say. Of all others, a
user's own above all, the weights that were loaded are hashed, with everything else that the encoder holds (see
`reach`), the source of its modules, and what its own `identity()` says.
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

_NAMED = 2000  # parts whose hashes are kept by path, to say which one differs


@dataclass(frozen=True)
class Identity:
    """Of an encoder as it was loaded; equal for equal encoders, in any process.

    Attributes:
        checkpoint: the weights' sha256: as it is stated, or of those that were found; "" where there are none.
        facts: hashes of what else its numbers depend on, by name; none where the checkpoint says it all.
        parts: a short hash of each thing that was found, by its path.
    """

    checkpoint: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict, compare=False)

    def difference(self, other: Identity) -> str:
        """In which respects another one is not the same, with an example of a part."""
        names = {"checkpoint": (self.checkpoint, other.checkpoint)}
        names |= {fact: (self.facts.get(fact, ""), other.facts.get(fact, "")) for fact in {*self.facts, *other.facts}}
        changed = sorted(name for name, (one, two) in names.items() if one != two)
        paths = [path for path, part in self.parts.items() if other.parts.get(path) != part]
        example = f", such as {paths[0]}" if paths else ""
        return f"its {' and '.join(changed)} differ{'s' * (len(changed) == 1)}{example}"


def identify(encoder: Encoder, model: Model, modality: Modality) -> Identity:
    """The identity of an encoder that was just loaded by its model's name.

    Raises: RLBenchError: what its `identity()` returns is neither text nor a mapping of plain values.
    """
    stated = str(encoder.sha256.get(modality, ""))
    foreign = _foreign(encoder, model)
    if stated and not foreign and _is_told_by_files(model, modality):
        return Identity(stated, {"fields": _hash(dict(model.fields))} if model.fields else {})
    found = reach(encoder, own={top for module in foreign for top in distribution(module.partition(".")[0])})
    trusted = bool(stated and not foreign)  # then the checksum speaks for the parameters
    weights = {one.path: _digest(one.value, brief=trusted) for one in found.held if _is_weight(one.value)}
    others = {one.path: text for one in found.held if (text := _text(one.value)) is not None}
    fields = {} if ":" in model.family else dict(model.fields)  # a form's is where the encoder comes from
    facts = {
        "weights": _hash(sorted(weights.items())),
        "code": _hash(sorted({source_hash(module) for module in {*found.modules, *foreign}})),
        "fields": _hash([sorted(others.items()), fields, _declared(encoder, modality)]),
        "stated checksum": stated,
        "identity()": _asked(encoder, model.name),
    }
    checkpoint = stated if trusted or not weights else _hash(sorted(weights.items()), 64)
    parts = {path: crc32(text.encode()) for path, text in [*weights.items(), *others.items()][:_NAMED]}
    return Identity(checkpoint, facts, parts)


def _foreign(encoder: Encoder, model: Model) -> list[str]:
    """The modules of the user's or of plugins that made the encoder and its defences."""
    entry = registry.entries().get(("encoder", model.family))
    made = model.fields["source"].partition(":")[0] if model.family == OWN else entry.module if entry else ""
    modules = [made]
    while isinstance(encoder, Defended):
        modules.append(type(encoder.defence).__module__)
        encoder = encoder.sibling
    return [module for module in modules if module.partition(".")[0] != "rlbench"]


def _is_told_by_files(model: Model, modality: Modality) -> bool:
    """Whether rlbench's own code makes it of files whose checksums the card has, and of the card's fields alone."""
    weights = model.weights.get(modality)
    files = weights is None or (weights.hub is None and bool(weights.file is None or weights.bytes))
    return ":" not in model.family and files


def _declared(encoder: Encoder, modality: Modality) -> list[str]:
    return [str(encoder.boxes.get(modality)), str(sorted(encoder.traits)), repr(float(encoder.logit_scale))]


def _asked(encoder: Encoder, name: str) -> str:
    """What the encoder's own `identity()` says, of any encoder behind defences."""
    while isinstance(encoder, Defended):
        encoder = encoder.sibling
    if not callable(getattr(type(encoder), "identity", None)):
        return ""
    said = encoder.identity()  # type: ignore[attr-defined]
    if not isinstance(said, str | Mapping):
        raise RLBenchError(f"{name}: identity() returned {type(said).__name__}; it must return a text or a mapping")
    try:
        return _hash(said if isinstance(said, str) else sorted((str(key), json.dumps(said[key])) for key in said))
    except TypeError as error:
        raise RLBenchError(f"{name}: identity() holds a value that is no text, number, list or mapping") from error


def _is_weight(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype != object)


def _digest(value: object, *, brief: bool) -> str:
    """A tensor's or array's dtype, shape and bytes; in brief, of a parameter the first two alone."""
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
    """What the hash of the fields holds of a thing that is no weight; a module's parts and its class follow it."""
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
