"""Checks that an encoder does what `core.Encoder` requires, so that a mistake is an error line and not a wrong number.

The checks run once, when the encoder is made. They cost a forward pass of two inputs, a forward and a backward pass of
one, and three prompts. Zero gradients (H7), and outputs that change between calls or with the batch (`consistency`),
are checked during a run.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from math import isfinite
from numbers import Real
from pathlib import Path
from textwrap import shorten
from typing import TypeVar, get_args

import torch
from torch import Tensor

from rlbench.core import Box, Encoder, Modality, Trait
from rlbench.core.errors import RLBenchError, first_line
from rlbench.core.knowledge import KNOWLEDGE, knowledge_of
from rlbench.core.seeds import generator
from rlbench.encoders.outputs import describe, embeddings

R = TypeVar("R")
NEEDED = ("boxes", "traits", "logit_scale", "sha256", "embed", "embed_text")
MODALITIES: tuple[str, ...] = get_args(Modality)
TRAITS: tuple[str, ...] = get_args(Trait)
UNITS = ("intensity", "log-mel", "fbank", "waveform")
AXES = {"image": "C, H, W", "video": "C, T, H, W", "thermal": "C, H, W", "depth": "C, H, W", "audio": "1, mels, frames"}
UNIT = 0.01  # how far a norm in half precision may be from 1
APART = 0.01  # how far two embeddings of one prompt may be apart in half precision
STEP = 4 / 255  # of the box's range: how far the second random input is from the first, in every coordinate
MOVED = 1e-3  # the smallest distance of their embeddings that is no rounding
EXPLAINED = 0.05  # the least share of that distance that the gradient explains: 0.2 with 16 levels of x, 0.5 for a ViT
REMEDY = "use no torch.no_grad, detach or numpy in it, or declare the trait non_differentiable"
_LIBRARIES = (
    *{str(Path(sysconfig.get_path(name))) for name in ("stdlib", "purelib", "platlib")},
    str(Path(__file__).parent),
)


def scale_of(encoder: Encoder) -> float:
    """The logit scale as a float; the encoder may hold a tensor of one element."""
    scale: object = encoder.logit_scale
    return float(scale.detach().item()) if isinstance(scale, Tensor) else float(encoder.logit_scale)


def check_fields(encoder: Encoder, model: str) -> None:
    """Raises: RLBenchError: boxes, traits, logit_scale or sha256 are not as `core.Encoder` requires."""
    if isinstance(encoder, type):
        raise RLBenchError(f"{model} returned the class {encoder.__name__}; it must return an instance of it")
    missing = [name for name in NEEDED if not call(partial(hasattr, encoder, name), f"{model}: {name}")]
    if missing:
        kind = type(encoder).__name__
        raise RLBenchError(f"{model} returned {kind}, which is not an encoder: it lacks {', '.join(missing)}")
    for name in NEEDED[-2:]:
        if not callable(getattr(encoder, name)):
            raise RLBenchError(f"{model}: {name} is {describe(getattr(encoder, name))}; it must be a method")
    for name, check in zip(NEEDED, (_check_boxes, _check_traits, _check_scale, _check_sha256), strict=False):
        check(getattr(encoder, name), model)
    if "stateful" in encoder.traits and not callable(getattr(encoder, "reset", None)):
        raise RLBenchError(
            f"{model} keeps state between inputs, so an answer would depend on the rest of its batch; a stateful one "
            "needs reset(), which is called before every input"
        )
    if (knowledge := knowledge_of(encoder)) not in KNOWLEDGE:
        raise RLBenchError(f"{model}: knowledge is {knowledge!r}; it must be one of {', '.join(KNOWLEDGE)}")


def _check_boxes(boxes: object, model: str) -> None:
    if not isinstance(boxes, Mapping) or not boxes or not all(isinstance(box, Box) for box in boxes.values()):
        raise RLBenchError(f"{model}: boxes is {boxes!r}; it must map modalities to rlbench.core.Box")
    for modality, box in boxes.items():
        if modality not in MODALITIES:
            raise RLBenchError(f"{model}: boxes has {modality!r}; modalities are {', '.join(MODALITIES)}")
        wrong = _wrong_box(box, modality)
        if wrong:
            raise RLBenchError(f"{model}: boxes[{modality!r}] has {wrong}")


def _wrong_box(box: Box, modality: str) -> str:
    shape, axes = box.shape, "1, samples" if box.unit == "waveform" else AXES[modality]
    if box.unit not in UNITS:
        return f"the unit {box.unit!r}; it must be one of {', '.join(UNITS)}"
    if not isinstance(shape, tuple) or not all(type(size) is int and size > 0 for size in shape):
        return f"the shape {shape!r}; it must be a tuple of positive ints ({axes})"
    if len(shape) != len(axes.split(",")):
        return f"the shape {shape}; that of one example is ({axes})"
    if axes[0] == "C" and shape[0] not in (1, 3) and shape[-1] in (1, 3):
        return f"the shape {shape}; channels come first, ({axes})"
    if not all(_is_number(value) for value in (box.low, box.high)) or not box.low < box.high:
        return f"the range {box.low} to {box.high}; low and high must be finite, low below high"
    if type(box.rate) is not int or box.rate < 0:
        return f"the rate {box.rate!r}; it must be an int of samples a second, or 0"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _check_traits(traits: object, model: str) -> None:
    if not isinstance(traits, Set) or not traits <= set(TRAITS):
        raise RLBenchError(f"{model}: traits is {traits!r}; it must be a frozenset of some of {', '.join(TRAITS)}")


def _check_scale(scale: object, model: str) -> None:
    value = scale.detach().item() if isinstance(scale, Tensor) and scale.numel() == 1 else scale
    if not _is_number(value) or not value > 0:  # type: ignore[operator]
        raise RLBenchError(
            f"{model}: logit_scale is {describe(scale) if isinstance(scale, Tensor) else repr(scale)}; "
            "it must be a finite positive number, such as 100.0"
        )


def _check_sha256(sha256: object, model: str) -> None:
    if not isinstance(sha256, Mapping) or not all(isinstance(value, str) for value in sha256.values()):
        raise RLBenchError(f"{model}: sha256 is {sha256!r}; it must map modalities to hexadecimal strings, or be {{}}")
    if unknown := [name for name in sha256 if name not in MODALITIES]:
        raise RLBenchError(f"{model}: sha256 has {unknown[0]!r}; modalities are {', '.join(MODALITIES)}")


def check_embed(encoder: Encoder, model: str, modality: Modality, device: str) -> Tensor:
    """(2, D) embeddings of two random inputs that are near each other.

    Raises: RLBenchError: `embed` is not as `core.Encoder` requires; `check_text` checks the norms.
    """
    of = f" of {modality}" if len(encoder.boxes) > 1 else ""
    source, x = f"{model}: embed{of}", _draw_pair(encoder.boxes[modality]).to(device)
    found = _embed_two(encoder, x, modality, source)
    if not found.isfinite().all():
        raise RLBenchError(f"{source} returned values that are not finite for random inputs of its box")
    exempt = "non_differentiable" in encoder.traits or hasattr(encoder, "honest")
    exempt = exempt or knowledge_of(encoder) != "white-box"
    one = x[:1].clone().requires_grad_(not exempt)
    with torch.enable_grad():
        answer = call(lambda: encoder.embed(one.clone(), modality), source)
        alone = embeddings(answer, 1, source, modality)
    if alone.shape[1] != found.shape[1]:
        raise RLBenchError(
            f"{source} returned {found.shape[1]} values per input for 2 inputs, but {alone.shape[1]} for 1"
        )
    if not exempt:
        _check_gradient(alone, one, source)
        if "randomised" not in encoder.traits:
            _check_explained(lambda pair: _embed_two(encoder, pair, modality, source), x, found, (one, alone), source)
    return found


def _embed_two(encoder: Encoder, x: Tensor, modality: Modality, source: str) -> Tensor:
    """(2, D) the embeddings of two inputs. Raises: RLBenchError."""
    with torch.no_grad():
        return embeddings(call(lambda: encoder.embed(x.clone(), modality), source), 2, source, modality)


def _draw_pair(box: Box) -> Tensor:
    """(2, *shape) in the box: a random input, and one that is STEP of the range away from it in every coordinate."""
    drawn = torch.from_numpy(generator("contract").random((2, *box.shape))).float()
    step = STEP * (drawn[1] - 0.5).sign()
    near = torch.where((drawn[0] + step - 0.5).abs() > 0.5, drawn[0] - step, drawn[0] + step)
    return (box.low + (box.high - box.low) * torch.stack([drawn[0], near])).clamp(box.low, box.high)


def _check_gradient(found: Tensor, x: Tensor, source: str) -> None:
    """Checks that the embedding found (1, D) has a finite gradient in x (1, *shape). Raises: RLBenchError."""
    if not found.requires_grad:
        raise RLBenchError(f"{source} returned a tensor without a gradient in x, which attacks need; {REMEDY}")
    weights = torch.from_numpy(generator("contract", "weights").standard_normal(found.shape)).to(found)
    (gradient,) = call(
        lambda: torch.autograd.grad((found * weights).sum(), x, allow_unused=True, retain_graph=True),
        f"{source}'s gradient",
    )
    if gradient is None:
        raise RLBenchError(f"{source} returned a tensor that, for autograd, does not depend on x; {REMEDY}")
    if not gradient.isfinite().all():
        raise RLBenchError(
            f"{source} has a gradient that is not finite at random inputs of its box; look for sqrt or division at 0"
        )


def _check_explained(
    embed: Callable[[Tensor], Tensor], x: Tensor, found: Tensor, graph: tuple[Tensor, Tensor], source: str
) -> None:
    """Checks that the gradient predicts how the embedding of x_0 moves towards that of x_1, or a quarter of the way.

    A curved encoder is nearly linear on the shorter way; one whose gradient is cut off, or whose x is rounded, is not.

    Args:
        embed: (2, *shape) -> (2, D), for the shorter way.
        x: (2, *shape).
        found: (2, D) their embeddings.
        graph: x_0 (1, *shape), which requires a gradient, and its embedding (1, D) in a batch of its own. Where this is
            not far nearer to found_0 than what moves, the engine's consistency checks, and not this one, tell why.
        source: the name of `embed`.

    Raises: RLBenchError.
    """
    (one, alone), shares = graph, list[float]()
    for way in (1.0, 0.25):
        end = x[0] + way * (x[1] - x[0])
        moved = (found if way == 1 else embed(torch.stack([x[0], end])))[1] - found[0]
        far = float(moved.norm())
        if far <= MOVED or float((alone.detach()[0] - found[0]).norm()) >= 0.1 * far:
            continue
        (gradient,) = torch.autograd.grad((alone[0] * moved).sum() / far**2, one, retain_graph=True)
        shares.append(float((gradient[0] * (end - x[0])).sum()))  # 1 for a linear encoder
        if shares[-1] >= EXPLAINED:
            return
    if shares:
        raise RLBenchError(
            f"{source} has a gradient in x that explains {max(*shares, 0.0):.1%} of how its values change with x, so "
            f"attacks would find too little: a part of it is cut off, or x is rounded; {REMEDY}"
        )


def check_text(encoder: Encoder, model: str, prompts: Sequence[str], embedded: Tensor) -> None:
    """Checks `embed_text` on prompts: all together, the last one alone, and against (B, D) outputs of `embed`.

    Raises: RLBenchError: they are not as `core.Encoder` requires.
    """
    source, width = f"{model}: embed_text", embedded.shape[1]

    def embed_prompts(some: Sequence[str]) -> Tensor:
        answer = call(lambda: encoder.embed_text(list(some)), source)
        return embeddings(answer, len(some), source, "text").clone()

    with torch.no_grad():
        both, alone = embed_prompts(prompts), embed_prompts(prompts[-1:])
    if both.shape[1] != width:
        raise RLBenchError(f"{source} returned vectors of width {both.shape[1]}; those of embed have {width}")
    check_unit(embedded, f"{model}: embed")
    check_unit(both, source)
    if alone.shape != both[-1:].shape or float((both[-1] - alone[0]).norm()) > APART:
        raise RLBenchError(
            f"{source} gives {shorten(prompts[-1], 60)!r} another vector alone than after another prompt; prompts "
            "must not affect each other: mask the padding and keep the order"
        )


def check_unit(found: Tensor, source: str) -> None:
    """Checks that rows (B, D) are finite and of unit norm. Raises: RLBenchError."""
    if not found.isfinite().all():
        raise RLBenchError(f"{source} returned values that are not finite")
    norms = found.norm(dim=1)
    if float((norms - 1).abs().max()) > UNIT:
        raise RLBenchError(
            f"{source} returned vectors of norm {norms.max():.4g}; they must have unit norm: "
            "torch.nn.functional.normalize(features, dim=-1)"
        )


def call(what: Callable[[], R], source: str) -> R:
    """The result of the call. Raises: RLBenchError: one line for whatever the call raises."""
    try:
        return what()
    except RLBenchError:
        raise
    except (Exception, SystemExit) as error:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_LIBRARIES)
        ]
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        raise RLBenchError(f"{source} raised {type(error).__name__}{place}: {first_line(error)}") from error
