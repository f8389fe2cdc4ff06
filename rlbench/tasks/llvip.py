"""LLVIP: pedestrians at night, as crops of the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from rlbench.core import Label, Modality, Split
from rlbench.core.guard import guard
from rlbench.core.media.stills import PICTURES
from rlbench.core.registry import register
from rlbench.core.seeds import generator
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import below, class_tree, make_labels, templates

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels
_TRIES = 50  # places for a window of background, before the picture is taken to have none


@register("task", "llvip")
@dataclass(frozen=True, kw_only=True)
class Llvip(Published):
    """LLVIP's infrared test pictures: crops of people, and of background.

    Jia et al., 2021, https://arxiv.org/abs/2108.10831; as crops by Girdhar et al., 2023,
    https://arxiv.org/abs/2305.05665, and Zhu et al., 2023, https://arxiv.org/abs/2310.01852. The latter's published
    crops, val/person and val/background, are read as they are. From the data set itself: every annotated person, and
    for each a window of its size, at a place that the picture's name draws and that no person touches, if there is one.
    """

    kind: ClassVar[Modality] = "thermal"
    source: ClassVar[Source] = Source(
        title="LLVIP",
        url="https://bupt-ai-cz.github.io/LLVIP/",
        licence="non-commercial research, by the terms on that page",
        folder="LLVIP",
        layout="infrared/test/*.jpg and Annotations/*.xml; or LanguageBind's crops, val/person and val/background",
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_labels({"background": "background", "person": "people"})

    @property
    def templates(self) -> tuple[str, ...]:
        return templates("openai80")

    def list_items(self, split: Split) -> list[Item]:
        root = self.folder
        if split == "val":
            return []
        if (root / "val").is_dir():
            crops = root / ("val" if split == "test" else split)  # what they call val is LLVIP's test
            return class_tree(root, crops, self.classes, PICTURES, self.left) if crops.is_dir() else []
        pictures = root / "infrared" / split
        if not (root / "infrared" / "test").is_dir() or not (root / "Annotations").is_dir():
            raise self.misplaced("folder infrared/test with Annotations, nor val/person")
        return [item for path in below(root, pictures, PICTURES, self.left) for item in _crops(root, path)]


def _crops(root: Path, path: str) -> Iterator[Item]:
    name = Path(path).stem
    size, people = _read_annotation(root / "Annotations" / f"{name}.xml")
    for k, person in enumerate(people):
        yield Item(f"{name}/person/{k}", path, "person", name, person)
        window = _background(f"{name}/{k}", size, person, people)
        if window is not None:
            yield Item(f"{name}/background/{k}", path, "background", name, window)


def _read_annotation(path: Path) -> tuple[tuple[int, int], list[Rectangle]]:
    """Width and height of the picture, and its people, of a VOC annotation. Raises: DataError."""
    with guard(f"can't read the boxes of {path}"):
        tree = ElementTree.parse(path).getroot()
        size = int(_text(tree, "size/width")), int(_text(tree, "size/height"))
        boxes = tree.findall("object/bndbox")
        people = [_rectangle([float(_text(box, edge)) for edge in ("xmin", "ymin", "xmax", "ymax")]) for box in boxes]
    return size, [one for one in people if one[0] < one[2] and one[1] < one[3]]


def _text(place: ElementTree.Element, name: str) -> str:
    """Raises: ValueError."""
    found = place.findtext(name)
    if found is None:
        raise ValueError(f"there is no {name}")
    return found


def _rectangle(edges: Sequence[float]) -> Rectangle:
    left, top, right, bottom = map(round, edges)
    return left, top, right, bottom


def _background(name: str, size: tuple[int, int], person: Rectangle, people: Sequence[Rectangle]) -> Rectangle | None:
    """A window as large as the person that touches no person."""
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
