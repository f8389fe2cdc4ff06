"""A tree of pictures, one folder a class, as ImageNet is kept: train/<class>/..., and val/... or test/<class>/..."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from rlbench.core import Label
from rlbench.core.errors import DataError, FieldError
from rlbench.core.media.readers import VERSIONS
from rlbench.core.media.stills import PICTURES
from rlbench.core.registry import register
from rlbench.tasks.folder import Folder, Row, classes_of, interleave, templates_of
from rlbench.tasks.trees import below, class_folders


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Folder):
    """The task of a tree; every picture is a source of its own."""

    def fingerprint(self) -> str:
        """A hash of the classes, and of all splits' paths and bytes."""
        labels = [one.label for one in self.classes]
        version = VERSIONS.get(self.modality, 1)
        digest = hashlib.sha256(f"image-folder {version} {self.modality} {labels}".encode())
        self._add_files(digest)
        return digest.hexdigest()[:16]


def _rows(root: Path, name: str, classes: tuple[Label, ...], left: Counter[str]) -> tuple[Row, ...]:
    """The pictures of root/<name>, in the fixed order; none where there is no such folder."""
    folder = root / name
    if not folder.is_dir():
        return ()
    labels = [path.name for path in class_folders(folder)]
    if not labels:
        raise DataError(f"{folder} has no folders; its pictures must be in one folder a class, {name}/<class>/*.jpg")
    known = {one.label for one in classes}
    for label in labels:
        if label not in known:
            raise DataError(f"classes has no {label!r}, a folder of {folder}; add it to classes")
    rows = {
        label: [Row(path, label, name, path) for path in below(root, folder / label, PICTURES, left)]
        for label in labels
    }
    for label, found in rows.items():
        if not found:
            raise DataError(f"{folder / label} has no pictures ({', '.join(PICTURES)})")
    return interleave([row for found in rows.values() for row in found], classes)


def _splits(root: Path, classes: tuple[Label, ...], holdout: float, left: Counter[str]) -> dict[str, tuple[Row, ...]]:
    train, val, test = (_rows(root, name, classes, left) for name in ("train", "val", "test"))
    if not val and not test:
        raise DataError(f"data has nothing to test: {root} has neither a folder 'test' nor 'val'")
    if not val or not test:
        kept = ceil(holdout * len(train))
        return {"train": train[kept:], "val": train[:kept], "test": val or test}
    return {"train": train, "val": val, "test": test}


@register("task", "image-folder")
def image_folder(
    *,
    data: str,
    modality: Literal["image", "thermal", "depth"] = "image",
    classes: str | Mapping[str, str] | tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
    holdout: float = 0.01,
) -> ImageFolder:
    """A tree of pictures in ImageNet's layout: one folder a class in train, and in val or test.

    Deng et al., 2009, https://doi.org/10.1109/CVPR.2009.5206848. The fingerprint is of every path and of all
    bytes, which are read once (about 1 GB a second from a fast disk; see `hashes`). Pictures may lie in subfolders of a
    class's folder, and links are followed.

    Args:
        data: the folder that has train, val and test, or some of them. Without test, val is the test split.
        modality: of the pictures; grey for a box of one channel.
        classes: a CSV file of the columns label,name, where a label is a class's folder; or names by label; or labels
            whose names are the same with spaces. Without it, classes.csv in `data`. The order is that of the logits.
        templates: prompt templates; without it, the lines of prompts.txt in `data`.
        holdout: share of train that is the validation split, where the tree has no val beside its test.

    Raises:
        DataError: a folder is missing, empty or of no class, a list can't be read, or there is nothing to test.
        FieldError: holdout is no share below 1.
    """
    if not 0 <= holdout < 1:
        raise FieldError(f"image-folder: holdout is {holdout}; it must be a share, at least 0 and below 1")
    root = Path(data)
    if not root.is_dir():
        raise DataError(f"data is {data!r}; there is no such folder")
    known, left = classes_of(root, classes), Counter[str]()
    return ImageFolder(
        root=root,
        modality=modality,
        classes=known,
        templates=templates_of(root, templates),
        rows=_splits(root, known, holdout, left),
        rate=1,
        seconds=1.0,
        left=tuple(sorted(left.items())),
    )
