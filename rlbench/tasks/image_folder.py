"""A tree of pictures in ImageNet's layout, one folder per class: train/<class>/..., and val/ or test/<class>/..."""

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
from rlbench.tasks.folder import Folder, Row, interleave, read_classes, read_templates
from rlbench.tasks.trees import count_loose_files, explain_spelling, list_class_folders, list_files


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Folder):
    """The task of a tree; every picture is its own source."""

    def fingerprint(self) -> str:
        """A hash of the classes, and of all splits' paths and bytes."""
        labels = [one.label for one in self.classes]
        version = VERSIONS.get(self.modality, 1)
        digest = hashlib.sha256(f"image-folder {version} {self.modality} {labels}".encode())
        self._add_files(digest)
        return digest.hexdigest()[:16]


def _list_rows(root: Path, name: str, classes: tuple[Label, ...], left_out: Counter[str]) -> tuple[Row, ...]:
    """Lists the pictures of root/<name> in a fixed order; none if there is no such folder."""
    folder = root / name
    if not folder.is_dir():
        return ()
    labels = [path.name for path in list_class_folders(folder)]
    if not labels:
        raise DataError(f"{folder} has no folders; its pictures must be in one folder per class, {name}/<class>/*.jpg")
    known = {one.label for one in classes}
    for label in labels:
        if label not in known:
            hint = explain_spelling(label, known) or "; add it to classes"
            raise DataError(f"classes has no {label!r}, a folder of {folder}{hint}")
    count_loose_files(folder, left_out)
    rows = {
        label: [Row(path, label, name, path) for path in list_files(root, folder / label, PICTURES, left_out)]
        for label in labels
    }
    for label, pictures in rows.items():
        if not pictures:
            raise DataError(
                f"{folder / label} has no pictures ({', '.join(PICTURES)}); sounds and clips need the task folder, "
                "with a labels.csv"
            )
    return interleave([row for pictures in rows.values() for row in pictures], classes)


def _make_splits(
    root: Path, classes: tuple[Label, ...], holdout: float, left_out: Counter[str]
) -> dict[str, tuple[Row, ...]]:
    train, val, test = (_list_rows(root, name, classes, left_out) for name in ("train", "val", "test"))
    if not val and not test:
        present = ", ".join(path.name for path in list_class_folders(root)[:5])
        raise DataError(
            f"data has nothing to test: {root} has neither a folder 'test' nor 'val' with a folder per class in it; "
            + (
                f"its folders are {present}: move those of the classes into {root / 'test'}"
                if present
                else "it has none"
            )
        )
    if not val or not test:
        n = ceil(holdout * len(train))
        return {"train": train[n:], "val": train[:n], "test": val or test}
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
    """A tree of pictures in ImageNet's layout, with one folder per class in train, and in val or test.

    Deng et al., 2009, https://doi.org/10.1109/CVPR.2009.5206848. The fingerprint covers every path and all
    bytes, which are read once (about 1 GB/s from a fast disk; see `hashes`). Pictures may be in subfolders of a class's
    folder, and links are followed.

    Args:
        data: the folder that contains train, val and test, or some of them. Without test, val is the test split.
        modality: the modality of the pictures, which are read as grey for a box of one channel.
        classes: a CSV file with the columns label,name, where a label is the name of a folder; or names by label; or
            labels, whose names have spaces for underscores. Default: classes.csv in `data`. The order is that of the
            logits.
        templates: prompt templates. Default: the lines of prompts.txt in `data`.
        holdout: fraction of train used as the validation split, if val and test do not both exist.

    Raises:
        DataError: a folder is missing, empty or not a class, a list can't be read, or there is nothing to test.
        FieldError: holdout is outside [0, 1).
    """
    if not 0 <= holdout < 1:
        raise FieldError(f"image-folder: holdout is {holdout}; it must be at least 0 and below 1")
    root = Path(data)
    if not root.is_dir():
        raise DataError(f"data is {data!r}; there is no such folder")
    known, left_out = read_classes(root, classes), Counter[str]()
    return ImageFolder(
        root=root,
        modality=modality,
        classes=known,
        templates=read_templates(root, templates),
        rows=_make_splits(root, known, holdout, left_out),
        rate=1,
        seconds=1.0,
        left_out=tuple(sorted(left_out.items())),
    )
