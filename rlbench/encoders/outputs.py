"""Calls encoders and turns their outputs, or a classifier's, into one tensor. An encoder gets a copy of its input.

An output may be a tensor, or may contain one obvious tensor: a dict or an output object of transformers with a field of
a known name, or a tuple, list, dict or object with a single float tensor that has one row per input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Encoder, Modality
from rlbench.core.errors import RLBenchError

MANY = 6  # parts of an output that a message lists


def embed(encoder: Encoder, x: Tensor, modality: Modality) -> Tensor:
    """(B, *box.shape) in the box -> (B, D) float32 on x's device, differentiable in x; x is not changed.

    A stateful encoder gets one input at a time, each after `reset()`.
    """
    if "stateful" in getattr(encoder, "traits", ()):
        if len(x) > 1:
            return torch.cat([embed(encoder, one, modality) for one in torch.split(x, 1)])
        encoder.reset()  # type: ignore[attr-defined]  # checked when the encoder was made
    return embeddings(encoder.embed(x.clone(), modality), len(x), "embed", modality).to(x.device)


def embed_text(encoder: Encoder, prompts: Sequence[str]) -> Tensor:
    """(P,) -> (P, D) float32, a copy."""
    return embeddings(encoder.embed_text(list(prompts)), len(prompts), "embed_text", "text").clone()


def embeddings(answer: object, n: int, source: str, modality: str) -> Tensor:
    """(n, D) float32 from what `source` returned for n inputs. Raises: RLBenchError: there is none."""
    kinds = (modality,) if modality == "text" else (modality, "image")
    found = find_tensor(answer, n, [f"{kind}_{what}" for kind in kinds for what in ("embeds", "features")])
    if found is None or found.dim() != 2 or len(found) != n or not found.shape[1] or not found.is_floating_point():
        raise RLBenchError(f"{source} returned {describe(answer)} for {n} inputs; it must return a tensor ({n}, D)")
    return found.float()


def logits_of(answer: object, n: int) -> Tensor:
    """(n, C) float32, a copy of what a classifier returned for n inputs. Raises: RLBenchError: there is none."""
    found = find_tensor(answer, n, ("logits",))
    if found is None or found.dim() != 2 or len(found) != n or found.shape[1] < 2 or not found.is_floating_point():
        score = found is not None and found.shape in ((n,), (n, 1))
        binary = "; from one score s, make them by torch.stack((-s, s), 1)" if score else ""
        raise RLBenchError(
            f"the classifier returned {describe(answer)} for {n} inputs; logits are ({n}, C) with C >= 2{binary}"
        )
    return found.float().clone()


def labels_of(answer: object, n: int) -> Tensor | None:
    """(n,) int64 labels, where a classifier returned labels for n inputs; None for anything else.

    Raises: RLBenchError: a label is negative.
    """
    if isinstance(answer, np.ndarray) and answer.dtype.kind in "iu":
        answer = torch.from_numpy(answer.astype(np.int64))
    whole = isinstance(answer, Tensor) and not (answer.is_floating_point() or answer.is_complex())
    if not isinstance(answer, Tensor) or not whole or answer.dtype == torch.bool or answer.shape != (n,):
        return None
    if n and int(answer.min()) < 0:
        raise RLBenchError(f"the classifier returned the label {int(answer.min())}; labels are 0 or larger")
    return answer.to(torch.int64)


def find_tensor(answer: object, n: int, names: Sequence[str]) -> Tensor | None:
    """The obvious tensor: the output itself, its part with one of these names, or its only (n, D) float part."""
    if isinstance(answer, np.ndarray) and answer.dtype.kind == "f":
        return torch.from_numpy(answer.astype(np.float32))
    if isinstance(answer, Tensor):
        return answer
    parts = dict(_parts(answer))
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    named = [tensors[name] for name in names if name in tensors]
    fitting = [t for t in tensors.values() if t.dim() == 2 and len(t) == n and t.is_floating_point()]
    return named[0] if named else fitting[0] if len(fitting) == 1 else None


def _parts(answer: object) -> Iterator[tuple[str, object]]:
    if isinstance(answer, Mapping):
        yield from ((str(name), value) for name, value in answer.items())
    elif isinstance(answer, tuple | list):
        names = getattr(answer, "_fields", [str(k) for k in range(len(answer))])
        yield from zip(names, answer, strict=True)
    elif is_dataclass(answer) and not isinstance(answer, type):
        yield from ((one.name, getattr(answer, one.name, None)) for one in fields(answer))
    elif hasattr(answer, "__dict__") and not isinstance(answer, type):
        yield from vars(answer).items()


def describe(answer: object) -> str:
    """`(2, 64) float32`, `tuple of (2, 64) float32, list`, `dict with a (2, 64) float32, b NoneType`."""
    if isinstance(answer, Tensor | np.ndarray):
        kind = str(answer.dtype).removeprefix("torch.")
        return f"{'numpy ' * isinstance(answer, np.ndarray)}{tuple(answer.shape)} {kind}"
    name, parts = type(answer).__name__, list(_parts(answer))
    plain = isinstance(answer, tuple | list) and not hasattr(answer, "_fields")
    inner = [f"{'' if plain else label + ' '}{_brief(part)}" for label, part in parts[:MANY]]
    more = [f"{len(parts) - MANY} more"] if len(parts) > MANY else []
    return f"{name}{' of ' if plain else ' with '}{', '.join([*inner, *more])}" if parts else name


def _brief(part: object) -> str:
    return describe(part) if isinstance(part, Tensor | np.ndarray) else type(part).__name__
