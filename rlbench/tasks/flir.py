"""FLIR ADAS: objects on the road in pictures of a car's thermal camera, cropped to their bounding boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.guard import guard
from rlbench.core.media.stills import PICTURES
from rlbench.core.registry import register
from rlbench.tasks.lists import read_text
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import fold_name, load_templates, make_classes

_LICENCE = "under the terms to accept on that page"


@dataclass(frozen=True, kw_only=True)
class Flir(Published):
    """What both versions share: crops of COCO boxes, or the crops that Zhu et al., 2023, published.

    Attributes:
        smallest: boxes whose shorter side has fewer pixels are left out. The limit of the published crops is unknown.
    """

    smallest: int = 1

    kind: ClassVar[Modality] = "thermal"
    named: ClassVar[Mapping[str, str]]  # class names by category of the annotations
    lists: ClassVar[Mapping[Split, str]]  # annotations of the splits

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_classes(self.named)

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80")

    def list_items(self, split: Split) -> list[Item]:
        root = self.folder
        if split == "val":
            return []
        if (root / self.lists["test"]).is_file():
            return self._crops(root / self.lists[split])
        if not (root / "val").is_dir():
            raise self.layout_error(f"file {self.lists['test']}, nor a folder val")
        return self.list_tree(root / ("val" if split == "test" else split), PICTURES)

    def _crops(self, path: Path) -> list[Item]:
        known = {fold_name(one.label): one.label for one in self.classes}
        with guard(f"can't read the boxes of {path}"):
            coco = json.loads(read_text(path))
            labels = {one["id"]: known.get(fold_name(one["name"])) for one in coco["categories"]}
            pictures = {one["id"]: str(one["file_name"]) for one in coco["images"]}
            boxes = [_parse_box(one, labels, pictures) for one in coco["annotations"]]
        folder = path.parent.relative_to(self.folder)
        items = []
        for name, label, picture, (left, top, width, height) in boxes:
            if label is None or min(width, height) < self.smallest:
                continue
            part = left, top, left + width, top + height
            stem = Path(picture).stem
            items.append(Item(f"{stem}/{name}", (folder / picture).as_posix(), label, _name_clip(stem), part))
        return items


def _parse_box(
    one: Mapping[str, Any], labels: Mapping[int, str | None], pictures: Mapping[int, str]
) -> tuple[str, str | None, str, tuple[int, int, int, int]]:
    """Reads the id, label, picture and box (left, top, width, height) of an annotation."""
    left, top, width, height = (round(float(edge)) for edge in one["bbox"])
    return str(one["id"]), labels[one["category_id"]], pictures[one["image_id"]], (left, top, width, height)


def _name_clip(stem: str) -> str:
    """Names the clip of a frame; in version 2 frames are video-<clip>-frame-<number>-<hash>."""
    return stem.split("-frame-")[0]


@register("task", "flir-v1")
@dataclass(frozen=True, kw_only=True)
class FlirV1(Flir):
    """FLIR ADAS 1.3: crops of bicycles, cars, dogs and people in pictures of a car's thermal camera.

    FLIR, https://www.flir.com/oem/adas/adas-dataset-form/; as crops by Zhu et al., 2023, https://arxiv.org/abs/2310.01852,
    whose published crops, val/<class>/*, are used unchanged.
    """

    named: ClassVar[Mapping[str, str]] = {"bicycle": "bicycle", "car": "car", "dog": "dog", "person": "person"}
    lists: ClassVar[Mapping[Split, str]] = {
        "train": "train/thermal_annotations.json",
        "test": "val/thermal_annotations.json",
    }
    source: ClassVar[Source] = Source(
        title="FLIR ADAS 1.3",
        url="https://www.flir.com/oem/adas/adas-dataset-form/",
        licence=_LICENCE,
        folder="FLIR_ADAS_1_3",
        layout="val/thermal_annotations.json and val/thermal_8_bit/*.jpeg; or LanguageBind's crops, val/<class>/*",
    )


@register("task", "flir-v2")
@dataclass(frozen=True, kw_only=True)
class FlirV2(Flir):
    """FLIR ADAS 2: crops of twelve kinds of object on the road in pictures of a car's thermal camera.

    FLIR, https://www.flir.com/oem/adas/adas-dataset-form/; as crops by Zhu et al., 2023, https://arxiv.org/abs/2310.01852,
    whose published crops, val/<class>/*, are used unchanged.
    """

    named: ClassVar[Mapping[str, str]] = {
        "bike": "bike",
        "bus": "bus",
        "car": "car or pick-up trucks or vans",
        "hydrant": "hydrant",
        "light": "traffic light",
        "motor": "motor",
        "other vehicle": "construction equipment or trailers",
        "person": "person",
        "sign": "sign",
        "skateboard": "skateboard",
        "stroller": "stroller or pram",
        "truck": "semi truck or freight truck",
    }
    lists: ClassVar[Mapping[Split, str]] = {
        "train": "images_thermal_train/coco.json",
        "test": "images_thermal_val/coco.json",
    }
    source: ClassVar[Source] = Source(
        title="FLIR ADAS 2",
        url="https://www.flir.com/oem/adas/adas-dataset-form/",
        licence=_LICENCE,
        folder="FLIR_ADAS_v2",
        layout="images_thermal_val/coco.json and images_thermal_val/data/*.jpg; or LanguageBind's crops, val/<class>/*",
    )
