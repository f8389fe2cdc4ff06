"""NYU Depth v2: scene classification from depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.registry import register
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import load_templates, make_classes

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
    """NYU Depth v2 test pictures: ten kinds of room, from depth alone.

    Silberman et al., 2012, https://doi.org/10.1007/978-3-642-33715-4_54; as ten classes by Gupta et al., 2013,
    https://doi.org/10.1109/CVPR.2013.79, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852. Pictures are 16-bit
    PNG files in millimetres; https://github.com/TUI-NICR/nicr-scene-analysis-datasets converts the official file.
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
        return make_classes({name: name.replace("_", " ") for name in _CLASSES})

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80", "depth photo")

    def list_items(self, split: Split) -> list[Item]:
        folder = self.find_folder("data/val", "val", "test")
        return self.list_tree(folder, (".png",)) if split == "test" else []
