"""Four classes with short names, a tower that adds up letters, and inputs near the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box, Examples, Label, Record
from rlbench.core.registry import register
from rlbench.core.seeds import generator
from rlbench.encoders.heads import zero_shot
from rlbench.store.flags import flags_of

NAMES = ("cat", "dog", "owl", "key")
CLASSES = tuple(Label(name, name) for name in NAMES)
TEMPLATES = ("a photo of {a}.", "{}")
BOX = Box(shape=(1, 8, 8))
N = 60
HEAD = """\
suite: texts
version: 1
summary: Letters.
modality: image
task: {name: short-names}
examples: 60
perturbations:
"""


class Letters:
    """Logits of the sign and order of (x - 1/2) a; a text is a sum of vectors, one per letter.

    An edit of a name with three letters moves its embedding by a third of its way.
    """

    traits = frozenset[str]()
    logit_scale = 20.0
    sha256: ClassVar[Mapping[str, str]] = {}

    @property
    def boxes(self) -> Mapping[str, Box]:
        return {"image": BOX}

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return torch.nn.functional.normalize(x.flatten(1) - 0.5, dim=1)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        letters = torch.from_numpy(generator("letters").standard_normal((128, 64))).float()
        rows = torch.stack([letters[list(prompt.encode())].sum(0) for prompt in prompts])
        return rows / rows.norm(dim=1, keepdim=True)


def letters() -> Letters:
    return Letters()


class Random(Letters):
    traits = frozenset({"randomised"})


def random() -> Random:
    return Random()


class Strict(Letters):
    """A text tower that knows only the words of the task's own prompts."""

    unknown: ClassVar[float | None] = None  # what unknown words get; None: an exception

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        rows = super().embed_text(prompts)
        words = {word.strip(".") for template in TEMPLATES for word in template.split()} | set(NAMES) | {"a", "an"}
        for row, prompt in zip(rows, prompts, strict=True):
            if not words >= {word.strip(".") for word in prompt.split()}:
                if self.unknown is None:
                    raise KeyError(prompt)
                row[:] = self.unknown
        return rows


class Undefined(Strict):
    unknown = float("nan")


def strict() -> Strict:
    return Strict()


def undefined() -> Undefined:
    return Undefined()


@register("task", "short-names")
@dataclass(frozen=True, kw_only=True)
class ShortNames:
    """Inputs near the anchors of the classes; other fields are for tasks that can't have edits."""

    val: int = 60
    names: str = " ".join(NAMES)
    views: int = 1

    modality: ClassVar[str] = "image"
    templates: ClassVar[tuple[str, ...]] = TEMPLATES

    @property
    def classes(self) -> tuple[Label, ...]:
        return tuple(Label(name, name) for name in self.names.split())

    def size(self, split: str) -> int | None:
        return self.val if split == "val" else N

    def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
        y = torch.arange(start, stop) % 4
        anchors = zero_shot(Letters(), "image", CLASSES, TEMPLATES).anchors  # type: ignore[arg-type]
        noise = np.stack([generator(split, k).standard_normal(64) for k in range(start, stop)])
        f = torch.nn.functional.normalize(anchors[y] + 0.13 * torch.from_numpy(noise).float(), dim=1)
        names = tuple(f"{split}/{k}" for k in range(start, stop))
        return Examples(0.5 + 0.4 * f.view(-1, 1, 8, 8), y, names, names)

    def fingerprint(self) -> str:
        return f"short names {self.names}"


@register("task", "short-captions")
@dataclass(frozen=True, kw_only=True)
class ShortCaptions(ShortNames):
    """The same, with a caption of each class."""

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        return tuple((f"this is {name}",) for name in NAMES)


def suite_file(folder: Path, *entries: str, head: str = HEAD) -> str:
    path = folder / "texts.yaml"
    path.write_text(head + "".join(f"  - {entry}\n" for entry in entries))
    return str(path)


def flags(records: Sequence[Record]) -> dict[str, Tensor]:
    """By column, (N,) bool, which examples are correct."""
    assert not [record.error for record in records if record.error]
    return {str(record.perturbation): torch.from_numpy(flags_of(record)) for record in records}
