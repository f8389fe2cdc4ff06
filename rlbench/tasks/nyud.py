"""NYU-D: rooms by their depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.registry import register
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import class_tree, first_folder, make_labels, templates

_CLASSES = (
    "bathroom",
    "bedroom",
    "bookstore",
    "classroom",
    "dining_room",
    "home_office",
    "kitchen",
    "living_room",
    "office",
    "others",
)


@register("task", "nyud")
@dataclass(frozen=True, kw_only=True)
class NyuD(Published):
    """NYU Depth v2's test pictures: ten kinds of room by their depth alone.

    Silberman et al., 2012, https://doi.org/10.1007/978-3-642-33715-4_54; as ten classes by Gupta et al., 2013,
    https://doi.org/10.1109/CVPR.2013.79, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852. Pictures are 16-bit
    PNG files in millimetres; of the official file, https://github.com/TUI-NICR/nicr-scene-analysis-datasets makes them.
    """

    kind: ClassVar[Modality] = "depth"
    source: ClassVar[Source] = Source(
        title="NYU Depth v2",
        url="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        licence="none stated; cite the paper",
        folder="nyuv2",
        layout="data/val/<class>/*.png, depth in millimetres with 16 bits",
        test=654,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_labels({name: name.replace("_", " ") for name in _CLASSES})

    @property
    def templates(self) -> tuple[str, ...]:
        return templates("openai80", "depth photo")

    def list_items(self, split: Split) -> list[Item]:
        folder = first_folder(self.folder, ("data/val", "val", "test"))
        if folder is None:
            raise self.misplaced("folder data/val")
        return class_tree(self.folder, folder, self.classes, (".png",), self.left) if split == "test" else []
