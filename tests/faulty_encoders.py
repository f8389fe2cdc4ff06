"""Encoders as users write them: a correct one, and classes with one mistake each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Box
from rlbench.encoders.linear import Linear

BOX, ORACLE = Box(shape=(1, 8, 8)), Linear()


class Good:
    """A correct encoder: the linear oracle as a user's class."""

    boxes: ClassVar[Any] = {"image": BOX}
    traits: Any = frozenset()
    logit_scale: Any = 20.0
    sha256: ClassVar[Any] = {}

    def embed(self, x: Tensor, modality: str) -> Any:
        return ORACLE.embed(x, "image")

    def embed_text(self, prompts: Any) -> Any:
        return ORACLE.embed_text(prompts)


def with_embed(change: Any) -> type[Good]:
    return type("Changed", (Good,), {"embed": lambda self, x, modality: change(Good().embed(x, modality))})


def with_embed_text(change: Any) -> type[Good]:
    return type("Changed", (Good,), {"embed_text": lambda self, prompts: change(Good().embed_text(prompts))})


def with_fields(**fields: Any) -> type[Good]:
    return type("Changed", (Good,), fields)


def with_input(change: Any) -> type[Good]:
    return type("Changed", (Good,), {"embed": lambda self, x, modality: Good().embed(change(x), modality)})


def _cut(x: Tensor) -> Tensor:
    """Cuts the gradient, except for a small part."""
    return x.detach() + 0.01 * (x - x.detach())


def _add_hashed(x: Tensor) -> Tensor:
    """Adds noise that is drawn from the content of each input."""
    seeds = [int(1e6 * float(one.detach().sum())) for one in x]
    return x + torch.stack([torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _raise(*_: Any) -> Any:
    raise ZeroDivisionError("planned\nand a second line")


# By name: the encoder, and texts that its error message must contain.
MISTAKES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no_boxes": (type("Changed", (), {"traits": 1, "logit_scale": 1, "sha256": 1}), ("lacks boxes, embed",)),
    "boxes_list": (with_fields(boxes=[BOX]), ("boxes is [Box", "must map modalities")),
    "boxes_modality": (with_fields(boxes={"images": BOX, "image": BOX}), ("boxes has 'images'", "image, video")),
    "boxes_channels_last": (with_fields(boxes={"image": Box(shape=(8, 8, 3))}), ("(8, 8, 3)", "channels come first")),
    "boxes_batch": (with_fields(boxes={"image": Box(shape=(1, 1, 8, 8))}), ("(1, 1, 8, 8)", "one example")),
    "boxes_shape_list": (with_fields(boxes={"image": Box(shape=[1, 8, 8])}), ("[1, 8, 8]", "tuple")),  # type: ignore[arg-type]
    "boxes_range": (with_fields(boxes={"image": Box(shape=(1, 8, 8), low=1.0)}), ("1.0 to 1.0", "low below high")),
    "boxes_nan": (with_fields(boxes={"image": Box(shape=(1, 8, 8), high=float("nan"))}), ("nan", "finite")),
    "boxes_unit": (with_fields(boxes={"image": Box(shape=(1, 8, 8), unit="pixels")}), ("'pixels'", "intensity")),
    "traits_text": (with_fields(traits="randomised"), ("traits is 'randomised'", "frozenset")),
    "traits_spelling": (with_fields(traits=frozenset({"randomized"})), ("randomized", "randomised, dynamic")),
    "scale_zero": (with_fields(logit_scale=0), ("logit_scale is 0", "positive")),
    "scale_nan": (with_fields(logit_scale=float("nan")), ("logit_scale is nan", "finite")),
    "scale_tensor": (with_fields(logit_scale=torch.ones(2)), ("logit_scale is (2,) float32", "positive number")),
    "scale_text": (with_fields(logit_scale="100"), ("logit_scale is '100'", "number")),
    "sha256_text": (with_fields(sha256="abc"), ("sha256 is 'abc'", "must map")),
    "sha256_modality": (with_fields(sha256={"img": "abc"}), ("sha256 has 'img'",)),
    "embed_none": (with_embed(lambda f: None), ("embed returned NoneType", "(2, D)")),
    "embed_two": (with_embed(lambda f: (f, f + 1)), ("embed returned tuple of (2, 5) float32, (2, 5) float32",)),
    "embed_dict": (with_embed(lambda f: {"a": f, "b": f}), ("embed returned dict with a (2, 5) float32, b (2, 5)",)),
    "embed_tokens": (with_embed(lambda f: f[:, None]), ("embed returned (2, 1, 5) float32",)),
    "embed_mean": (with_embed(lambda f: f.mean(0)), ("embed returned (5,) float32 for 2 inputs",)),
    "embed_squeezed": (with_embed(lambda f: f.squeeze(0)), ("embed returned (5,) float32 for 1 inputs",)),
    "embed_fixed": (with_embed(lambda f: f.repeat(8, 1)[:8]), ("embed returned (8, 5) float32 for 2 inputs",)),
    "embed_int": (with_embed(lambda f: (100 * f).int()), ("embed returned (2, 5) int32",)),
    "embed_complex": (with_embed(lambda f: f + 0j), ("embed returned (2, 5) complex64",)),
    "embed_nan": (with_embed(lambda f: f * float("nan")), ("embed returned values that are not finite",)),
    "embed_norm": (with_embed(lambda f: 13 * f), ("embed returned vectors of norm 13", "unit norm", "normalize")),
    "embed_detached": (with_embed(lambda f: f.detach()), ("without a gradient in x", "non_differentiable")),
    "embed_numpy": (with_embed(lambda f: f.detach().numpy()), ("without a gradient in x", "numpy")),
    "embed_sqrt": (with_embed(lambda f: f + 0 * (f - f).abs().sqrt()), ("gradient that is not finite",)),
    "embed_cut": (with_input(_cut), ("embed has a gradient in x that explains 1.0%", "detach", "non_differentiable")),
    "embed_rounded": (with_input(lambda x: (15 * x).round() / 15), ("explains 0.0%", "x is rounded")),
    "embed_hashed": (with_input(_add_hashed), ("a gradient in x that explains",)),
    "embed_raises": (with_embed(_raise), ("embed raised ZeroDivisionError at faulty_encoders.py:", "planned")),
    "embed_signature": (with_fields(embed=lambda self, x: x), ("embed raised TypeError", "positional argument")),
    "embed_attribute": (with_fields(embed=torch.ones(2, 2)), ("embed is (2, 2) float32", "method")),
    "text_width": (
        with_embed_text(lambda f: normalize(f[:, :4], dim=1)),
        ("embed_text returned vectors of width 4", "5"),
    ),
    "text_mean": (with_embed_text(lambda f: f.mean(0)), ("embed_text returned (5,) float32",)),
    "text_norm": (with_embed_text(lambda f: 2 * f), ("embed_text returned vectors of norm 2", "unit norm")),
    "text_nan": (with_embed_text(lambda f: f / 0 * 0), ("embed_text returned values that are not finite",)),
    "text_list": (with_embed_text(lambda f: f.tolist()), ("embed_text returned list",)),
    "text_raises": (with_embed_text(_raise), ("embed_text raised ZeroDivisionError", "planned")),
    "text_padded": (with_embed_text(lambda f: normalize(f + 0.5 * len(f), dim=1)), ("another vector alone",)),
    "text_sorted": (with_embed_text(lambda f: f.flip(0)), ("another vector alone",)),
    "default_dtype": (
        lambda: torch.set_default_dtype(torch.float16) or Good(),  # type: ignore[func-returns-value]
        ("sets torch's default dtype to torch.float16", "dtype="),
    ),
    "default_device": (
        lambda: torch.set_default_device("meta") or Good(),  # type: ignore[func-returns-value]
        ("sets torch's default device to meta", "device="),
    ),
    "a_class": (lambda: Good, ("returned the class Good", "instance")),
}
for _name, (_made, _) in MISTAKES.items():
    globals()[_name] = _made


# Outputs of other types whose meaning is clear, so they are accepted.
class Output(Good):
    def embed(self, x: Tensor, modality: str) -> Any:
        return SimpleNamespace(pooler_output=super().embed(x, modality), last_hidden_state=torch.zeros(len(x), 3, 5))


Single = with_embed(lambda f: (f, [f]))
Mapping = with_embed(lambda f: {"image_embeds": f, "text_embeds": f + 1, "logit_scale": torch.ones(())})
Half = with_embed(lambda f: f.half())
Double = with_embed(lambda f: f.double())
StraightThrough = with_input(lambda x: x + ((15 * x).round() / 15 - x).detach())


def no_gradients() -> Good:
    """Ends torch's gradients for the whole program, as scripts for inference do."""
    torch.set_grad_enabled(False)
    return Good()


NumpyText = with_embed_text(lambda f: f.numpy())
Parameter = with_fields(logit_scale=torch.nn.Parameter(torch.tensor([20.0]), requires_grad=False))
ACCEPTED = ("Output", "Single", "Mapping", "Half", "Double", "NumpyText", "Parameter", "no_gradients")
