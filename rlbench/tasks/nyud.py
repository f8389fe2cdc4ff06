"""NYU Depth v2: scene classification from depth or from colour pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import DataError
from rlbench.core.registry import register
from rlbench.tasks.lists import read_text
from rlbench.tasks.published import PAIRS, Item, Published, Source
from rlbench.tasks.trees import index_by_stem, load_templates, make_classes

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
    """NYU Depth v2 test pictures: ten kinds of room, from depth or from colour alone.

    Silberman et al., 2012, https://doi.org/10.1007/978-3-642-33715-4_54; as ten classes by Gupta et al., 2013,
    https://doi.org/10.1109/CVPR.2013.79, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852. Pictures are 16-bit
    PNG files in millimetres; https://github.com/TUI-NICR/nicr-scene-analysis-datasets converts the official file to
    test/depth and test/rgb, which are pairs, with the kind of room in test/scene_class; kinds beyond nine are "others".

    Attributes:
        modality: depth, or image, the colour pictures.
    """

    modality: Literal["depth", "image"] = field(default="depth", metadata=PAIRS)

    kind: ClassVar[Modality] = "depth"
    source: ClassVar[Source] = Source(
        title="NYU Depth v2",
        url="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        licence="none stated; cite the paper",
        folder="nyuv2",
        layout="data/val/<class>/*.png, depth in millimetres with 16 bits; or test/depth, test/rgb, test/scene_class",
        test=654,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_classes({name: name.replace("_", " ") for name in _CLASSES})

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80", "depth photo" if self.modality == "depth" else "photo")

    def list_items(self, split: Split) -> list[Item]:
        if (self.folder / "test" / "scene_class").is_dir():
            return self._list_pairs() if split == "test" else []
        if self.modality == "image":
            raise self.layout_error("folder test/rgb with test/scene_class")
        folder = self.find_folder("data/val", "val", "test")
        return self.list_tree(folder, (".png",)) if split == "test" else []

    def _list_pairs(self) -> list[Item]:
        """Lists the pictures with a kind of room. Raises: DataError: a picture or its kind is missing."""
        root, items = self.folder, list[Item]()
        kinds = index_by_stem(root, root / "test" / "scene_class", (".txt",))
        folder = self.find_folder("test/depth" if self.modality == "depth" else "test/rgb")
        pictures = index_by_stem(root, folder, (".png",))
        if alone := sorted(kinds.keys() ^ pictures.keys()):
            raise DataError(f"{root}: {alone[0]} lacks its picture for {self.modality}, or its test/scene_class")
        for stem, path in pictures.items():
            kind = read_text(root / kinds[stem]).strip()
            label = kind if kind in _CLASSES else "others"
            items.append(Item(f"{label}/{Path(path).name}", path, label, f"{label}/{stem}"))
        return items
