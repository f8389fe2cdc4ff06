"""ImageNet-1k (ILSVRC 2012): the validation pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media.stills import PICTURES
from rlbench.core.registry import register
from rlbench.tasks.lists import read_lines, read_table
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import below, class_folders, class_tree, names, once, templates

_DEVKIT = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data", ".")


@register("task", "imagenet")
@dataclass(frozen=True, kw_only=True)
class ImageNet(Published):
    """ImageNet-1k's validation pictures, 1000 classes.

    Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575; names and 80 templates of Radford et al., 2021,
    https://arxiv.org/abs/2103.00020. The order is fixed: classes by synset in turns, in each by the hash (blake2b) of
    the picture's name, ILSVRC2012_val_........, whatever the layout. So the first 5000 have five of each class.
    """

    kind: ClassVar[Modality] = "image"
    source: ClassVar[Source] = Source(
        title="ImageNet-1k (ILSVRC 2012)",
        url="https://www.image-net.org/download.php",
        licence="non-commercial research and education, by the terms that one agrees to there",
        folder="imagenet",
        layout="val/<synset>/ILSVRC2012_val_*.JPEG; or val/ILSVRC2012_val_*.JPEG with LOC_val_solution.csv, or with "
        "imagenet_2012_validation_synset_labels.txt, or with ILSVRC2012_devkit_t12/",
        test=50_000,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return names("imagenet")

    @property
    def templates(self) -> tuple[str, ...]:
        return templates("openai80")

    def list_items(self, split: Split) -> list[Item]:
        if split != "test":
            return []
        val = self.folder / "val"
        if not val.is_dir():
            raise self.misplaced("folder val")
        if class_folders(val):
            found = [
                (item.path, item.label) for item in class_tree(self.folder, val, self.classes, PICTURES, self.left)
            ]
        else:
            found = list(self._flat(val))
        # Some copies have the synset at the end of the name, too.
        stems = [(Path(path).stem.split("_n")[0], path, label) for path, label in found]
        return [Item(stem, path, label, stem) for stem, path, label in stems]

    def _flat(self, val: Path) -> Iterator[tuple[str, str]]:
        """(path, synset) of pictures that lie in one folder."""
        labels = self._truth()
        for path in below(self.folder, val, PICTURES, self.left):
            if Path(path).stem not in labels:
                raise DataError(f"{self.folder / path} has no label in the list beside it")
            yield path, labels[Path(path).stem]

    def _truth(self) -> dict[str, str]:
        """The synset of every picture, from whichever list is there."""
        root = self.folder
        if (root / "LOC_val_solution.csv").is_file():
            path = root / "LOC_val_solution.csv"
            rows = read_table(path, ("ImageId", "PredictionString"))
            return once(((row["ImageId"], row["PredictionString"].split(" ", 1)[0]) for row in rows), path)
        listed = root / "imagenet_2012_validation_synset_labels.txt"
        if listed.is_file():
            return _number_synsets(read_lines(listed))
        for folder in _DEVKIT:
            if (root / folder / "ILSVRC2012_validation_ground_truth.txt").is_file():
                return _number_synsets(_devkit(root / folder))
        raise self.misplaced("list of labels for pictures in one folder")


def _number_synsets(synsets: list[str]) -> dict[str, str]:
    """The n-th line is of ILSVRC2012_val_<n>."""
    return {f"ILSVRC2012_val_{n:08d}": synset for n, synset in enumerate(synsets, 1)}


def _devkit(folder: Path) -> list[str]:
    """The validation pictures' synsets from the development kit's meta.mat and list of its numbers."""
    from scipy.io import loadmat

    with guard(f"can't read {folder / 'meta.mat'}"):
        synsets = loadmat(str(folder / "meta.mat"), squeeze_me=True)["synsets"]
        synset = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
    numbers = read_lines(folder / "ILSVRC2012_validation_ground_truth.txt")
    if not all(number.isdecimal() and int(number) in synset for number in numbers):
        raise DataError(f"{folder / 'ILSVRC2012_validation_ground_truth.txt'} has numbers that meta.mat lacks")
    return [synset[int(number)] for number in numbers]
