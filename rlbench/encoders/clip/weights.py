"""Reads a published checkpoint safely: tensors under CLIP's names, with the LoRA factors separate.

LoRA: Hu et al., 2021, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rlbench.core.errors import CheckpointError, first_line
from rlbench.encoders import hub

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.[^.]+)?\.weight")
_WRAPPED = ".base_model.model."  # PEFT's prefix
_LAYER = re.compile(r"\.layers\.\d+\.")
_CODE = re.compile(r"GLOBAL (\S+)")  # in torch's error for a pickle that it refuses
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64)
_POINTER = b"version https://git-lfs"
_LONGEST = 2**24  # bytes of a JSON file


@dataclass(frozen=True)
class Factors:
    """The LoRA factors of a module: a (r, inputs), b (outputs, r)."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return len(self.a)


def sha256_of(path: Path) -> str:
    """The sha256 of a file; of an index, that of the names and checksums of its shards."""
    if path.name.endswith(hub.INDEX):
        shards = sorted(set(hub.read_index(path).values()))
        parts = "".join(f"{shard} {sha256_of(path.with_name(shard))}\n" for shard in shards)
        return hashlib.sha256(parts.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises: CheckpointError: the file is missing, over 16 MB, or not a JSON object."""
    try:
        if path.stat().st_size > _LONGEST:
            raise CheckpointError(
                f"{path} is larger than {_LONGEST / 1e6:.0f} MB, too large for the description of a model"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return found


def check_no_code(path: Path) -> None:
    """Raises: CheckpointError: the JSON file exists and names classes in the checkpoint's own code."""
    if path.is_file() and read_json(path).get("auto_map"):
        raise CheckpointError(f"{path} names code of the checkpoint (auto_map), which is never run")


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of config.json. Raises: CheckpointError: it is missing or not a JSON object."""
    return read_json(folder / "config.json")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file in float32, without `position_ids`, which are not learned.

    Raises:
        CheckpointError: as `read_tensors`.
    """
    return {
        name: value.detach().float() for name, value in read_tensors(path).items() if not name.endswith("position_ids")
    }


def read_tensors(path: Path, *, wrapped: bool = False, ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """All tensors of a file: finite floating-point numbers of 16 bits or more, or indices.

    Args:
        path: a .safetensors file, a pickle (.bin, .pth), or the index of shards of these.
        wrapped: whether the tensors may be under "state_dict", next to the state of a training run.
        ignored: ends of the names of tensors that are left out, such as masks of -inf.

    Raises:
        CheckpointError: truncated, code in a pickle, anything but plain tensors, quantised weights, values that are
            not finite, more values than the file has bytes for, or other tensors in a shard than its index says.
    """
    if path.name.endswith(hub.INDEX):
        return _read_shards(path)
    with path.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise CheckpointError(f"{path} is a pointer of Git LFS, not weights; run `git lfs pull` to fetch them")
    found = _unpickle(path) if path.suffix in (".bin", ".pth") else _load(path)
    if wrapped and isinstance(found, Mapping) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path} must hold tensors by name and nothing else")
    weights = {str(name): value for name, value in found.items() if not str(name).endswith(ignored)}
    for name, value in weights.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise CheckpointError(f"{path} holds {name}, which is not a plain tensor")
        if value.dtype not in _DTYPES:
            raise CheckpointError(f"{path} holds {name} in {value.dtype}: quantised weights can't be used")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path} holds {name} of shape {tuple(value.shape)}, but fewer values than that")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds values that are not finite: {name}")
    return weights


def _read_shards(index: Path) -> dict[str, Tensor]:
    """All tensors of the shards of an index. Raises: CheckpointError: a shard has other tensors than the index says."""
    places = hub.read_index(index)
    found: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        tensors = read_tensors(index.with_name(shard))
        wrong = sorted(tensors.keys() ^ {name for name, place in places.items() if place == shard})
        if wrong:
            verb = "has" if wrong[0] in tensors else "lacks"
            raise CheckpointError(f"{index.with_name(shard)} {verb} {wrong[0]}, unlike {index.name}")
        found |= tensors
    return found


def _load(path: Path) -> object:
    try:
        return load_file(path)
    except Exception as error:  # safetensors may raise anything for damaged bytes
        raise CheckpointError(f"{path} can't be read, or is truncated: {first_line(error)}") from error


def _unpickle(path: Path) -> object:
    """Unpickles a file with torch's unpickler for tensors only, which may raise anything for damaged bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a pickle that is refused anyway
            if zipfile.is_zipfile(path):
                _check_stored(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        code = _CODE.search(str(error))
        if code:
            raise CheckpointError(
                f"{path} is refused: it holds code ({code[1]}), which is never run; ask its author for safetensors"
            ) from error
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(f"{path} is refused: it holds code or more than tensors, or is truncated") from error
        raise CheckpointError(f"{path} can't be read, or is truncated: {first_line(error)}") from error


def _check_stored(path: Path) -> None:
    """Raises: CheckpointError: a member is compressed, which torch never does; it could expand beyond memory."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size:
                raise CheckpointError(
                    f"{path} is refused: {member.filename} in it is compressed, which torch never does"
                )


def separate_lora(weights: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """The weights under CLIP's own names, and the LoRA factors by module.

    PEFT stores a module's own weight as `<module>.weight`, or as `<module>.base_layer.weight` in newer releases.

    Raises:
        CheckpointError: a factor or its weight is missing, shapes or ranks do not match, or a layer lacks factors that
            others have.
    """
    plain: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        own = name.replace(_WRAPPED, ".").replace(".base_layer.", ".")
        found = _FACTOR.fullmatch(own)
        table, key = (factors.setdefault(found["module"], {}), found["factor"]) if found else (plain, own)
        if key in table:
            raise CheckpointError(f"{source} holds {own} twice, under two names")
        table[key] = value
    if not factors and any(_WRAPPED in name for name in weights):
        raise CheckpointError(f"{source} was fine-tuned with LoRA, but has no factors (lora_A, lora_B)")
    pairs = {module: _pair(module, plain, pair, source) for module, pair in factors.items()}
    _check_alike(plain, pairs, source)
    return plain, pairs


def _pair(module: str, plain: Mapping[str, Tensor], pair: Mapping[str, Tensor], source: str) -> Factors:
    for factor in "AB":
        if factor not in pair:
            raise CheckpointError(f"{source} lacks {module}.lora_{factor}")
    if f"{module}.weight" not in plain:
        raise CheckpointError(f"{source} lacks {module}.weight, which its LoRA factors add to")
    a, b, w = pair["A"], pair["B"], plain[f"{module}.weight"]
    if a.dim() != 2 or b.dim() != 2 or len(a) != b.shape[1] or (len(b), a.shape[1]) != tuple(w.shape):
        sizes = f"lora_A {tuple(a.shape)}, lora_B {tuple(b.shape)}, weight {tuple(w.shape)}"
        raise CheckpointError(f"{source}: the shapes of {module} do not match: {sizes}")
    return Factors(a, b)


def _check_alike(plain: Mapping[str, Tensor], pairs: Mapping[str, Factors], source: str) -> None:
    ranks = {pair.rank: module for module, pair in pairs.items()}
    if len(ranks) > 1:
        listed = ", ".join(f"{rank} of {module}" for rank, module in ranks.items())
        raise CheckpointError(f"{source} has LoRA factors of several ranks: {listed}")
    layers = {found[0] for name in plain if name.startswith("vision_model.") and (found := _LAYER.search(name))}
    for module in pairs:
        for layer in sorted(layers):
            if (other := _LAYER.sub(layer, module)) not in pairs:
                raise CheckpointError(f"{source} lacks {other}.lora_A and lora_B, which {module} has")


def fold(plain: dict[str, Tensor], factors: Mapping[str, Factors], alpha: float) -> None:
    """Replaces W by W + alpha / r B A; tensors that share memory with W do not change."""
    for module, pair in factors.items():
        plain[f"{module}.weight"] = plain[f"{module}.weight"] + alpha / pair.rank * pair.b @ pair.a
