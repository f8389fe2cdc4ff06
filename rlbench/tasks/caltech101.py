"""Caltech-101."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.media.stills import PICTURES
from rlbench.core.registry import register
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import load_names, load_templates


@register("task", "caltech101")
@dataclass(frozen=True, kw_only=True)
class Caltech101(Published):
    """Caltech-101: pictures of 101 kinds of object, and of background.

    Fei-Fei et al., 2004, https://doi.org/10.22002/D1.20086. It has no splits: every picture is a test example. Class
    names and templates of Radford et al., 2021, https://arxiv.org/abs/2103.00020, where background is a class.
    """

    kind: ClassVar[Modality] = "image"
    source: ClassVar[Source] = Source(
        title="Caltech-101",
        url="https://doi.org/10.22002/D1.20086",
        licence="CC BY 4.0",
        folder="caltech101",
        layout="101_ObjectCategories/<class>/image_*.jpg",
        test=9_144,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return load_names("caltech101")

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("caltech34")

    def list_items(self, split: Split) -> list[Item]:
        folder = self.find_folder("101_ObjectCategories", "caltech-101/101_ObjectCategories")
        return self.list_tree(folder, PICTURES) if split == "test" else []
