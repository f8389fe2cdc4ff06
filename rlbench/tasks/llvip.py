"""LLVIP: pedestrians at night in infrared or visible pictures, cropped to their bounding boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media.stills import PICTURES
from rlbench.core.registry import register
from rlbench.core.seeds import generator
from rlbench.tasks.published import PAIRS, Item, Published, Source
from rlbench.tasks.trees import list_files, load_templates, make_classes

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels
_TRIES = 50  # random places for a background window; a picture without a free one gets none


@register("task", "llvip")
@dataclass(frozen=True, kw_only=True)
class Llvip(Published):
    """LLVIP test pictures, infrared or visible: crops of people and of background.

    Jia et al., 2021, https://arxiv.org/abs/2108.10831; as crops by Girdhar et al., 2023,
    https://arxiv.org/abs/2305.05665, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852, whose published crops,
    val/person and val/background, are used unchanged. In the data set itself, every annotated person is cropped, and
    for each person one background window of the same size. Its place is random, seeded by the picture's name, and
    touches no person; it is left out if no such place is found. The visible pictures have the same names and boxes as
    the infrared ones, so that their crops are pairs.

    Attributes:
        modality: thermal, the infrared pictures, or image, the visible ones, which the published crops lack.
    """

    modality: Literal["thermal", "image"] = field(default="thermal", metadata=PAIRS)

    kind: ClassVar[Modality] = "thermal"
    source: ClassVar[Source] = Source(
        title="LLVIP",
        url="https://bupt-ai-cz.github.io/LLVIP/",
        licence="non-commercial research, under the terms on that page",
        folder="LLVIP",
        layout="infrared/test/*.jpg, visible/test/*.jpg for images, and Annotations/*.xml; or LanguageBind's crops, "
        "val/person and val/background",
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_classes({"background": "background", "person": "people"})

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80")

    def list_items(self, split: Split) -> list[Item]:
        root = self.folder
        if split == "val":
            return []
        if (root / "val").is_dir() and self.modality == "thermal":
            return self.list_tree(root / ("val" if split == "test" else split), PICTURES)  # their val is LLVIP's test
        if not (root / "infrared" / "test").is_dir() or not (root / "Annotations").is_dir():
            raise self.layout_error("folder infrared/test with Annotations, nor val/person")
        paths = list(list_files(root, root / "infrared" / split, PICTURES, self.left_out))
        if self.modality == "image":
            paths = self._find_partners(paths, split)
        return [item for path in paths for item in _list_crops(root, path)]

    def _find_partners(self, infrared: Sequence[str], split: Split) -> list[str]:
        """The visible pictures of the infrared ones. Raises: DataError: one of either has no partner."""
        folder = self.find_folder(f"visible/{split}")
        visible = {Path(path).stem: path for path in list_files(self.folder, folder, PICTURES)}
        names = {Path(path).stem: path for path in infrared}
        if alone := [path for name, path in {**visible, **names}.items() if (name in visible) != (name in names)]:
            raise DataError(
                f"{self.folder}: {alone[0]} has no partner of the same name in infrared and visible/{split}"
            )
        return [visible[name] for name in names]


def _list_crops(root: Path, path: str) -> Iterator[Item]:
    name = Path(path).stem
    size, people = _read_annotation(root / "Annotations" / f"{name}.xml")
    for k, person in enumerate(people):
        yield Item(f"{name}/person/{k}", path, "person", name, person)
        window = _draw_background(f"{name}/{k}", size, person, people)
        if window is not None:
            yield Item(f"{name}/background/{k}", path, "background", name, window)


def _read_annotation(path: Path) -> tuple[tuple[int, int], list[Rectangle]]:
    """Reads the width and height of a picture and the boxes of its people from a VOC file. Raises: DataError."""
    with guard(f"can't read the boxes of {path}"):
        tree = ElementTree.parse(path).getroot()
        size = int(_find_text(tree, "size/width")), int(_find_text(tree, "size/height"))
        boxes = tree.findall("object/bndbox")
        people = [
            _to_rectangle([float(_find_text(box, edge)) for edge in ("xmin", "ymin", "xmax", "ymax")]) for box in boxes
        ]
    return size, [one for one in people if one[0] < one[2] and one[1] < one[3]]


def _find_text(place: ElementTree.Element, name: str) -> str:
    """Raises: ValueError."""
    text = place.findtext(name)
    if text is None:
        raise ValueError(f"there is no {name}")
    return text


def _to_rectangle(edges: Sequence[float]) -> Rectangle:
    left, top, right, bottom = map(round, edges)
    return left, top, right, bottom


def _draw_background(
    name: str, size: tuple[int, int], person: Rectangle, people: Sequence[Rectangle]
) -> Rectangle | None:
    """Draws a window of a person's size that touches no person; None if no try succeeds."""
    width, height = person[2] - person[0], person[3] - person[1]
    if width > size[0] or height > size[1]:
        return None
    draw = generator("llvip", name)
    for _ in range(_TRIES):
        left, top = int(draw.integers(size[0] - width + 1)), int(draw.integers(size[1] - height + 1))
        window = left, top, left + width, top + height
        if not any(_overlap(window, one) for one in people):
            return window
    return None


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
