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
from rlbench.tasks.trees import collect_unique, list_class_folders, list_files, load_names, load_templates

_DEVKIT = ("ILSVRC2012_devkit_t12/data", "devkit/data", "data", ".")


@register("task", "imagenet")
@dataclass(frozen=True, kw_only=True)
class ImageNet(Published):
    """The 50,000 validation pictures of ImageNet-1k, in 1000 classes.

    Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575; names and 80 templates of Radford et al., 2021,
    https://arxiv.org/abs/2103.00020. The order is the same in every layout: classes alternate, sorted by synset, and
    pictures of a class are sorted by the hash (blake2b) of their name, ILSVRC2012_val_<number>. So the first 5000
    examples have five of each class.
    """

    kind: ClassVar[Modality] = "image"
    source: ClassVar[Source] = Source(
        title="ImageNet-1k (ILSVRC 2012)",
        url="https://www.image-net.org/download.php",
        licence="non-commercial research and education, under the terms to accept on that page",
        folder="imagenet",
        layout="val/<synset>/ILSVRC2012_val_*.JPEG; or val/ILSVRC2012_val_*.JPEG with LOC_val_solution.csv, or with "
        "imagenet_2012_validation_synset_labels.txt, or with ILSVRC2012_devkit_t12/",
        test=50_000,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return load_names("imagenet")

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80")

    def list_items(self, split: Split) -> list[Item]:
        if split != "test":
            return []
        val = self.find_folder("val")
        if list_class_folders(val):
            pairs = [(item.path, item.label) for item in self.list_tree(val, PICTURES)]
        else:
            pairs = list(self._list_flat(val))
        # Some copies append the synset to the name.
        stems = [(Path(path).stem.split("_n")[0], path, label) for path, label in pairs]
        return [Item(stem, path, label, stem) for stem, path, label in stems]

    def _list_flat(self, val: Path) -> Iterator[tuple[str, str]]:
        """Lists (path, synset) of pictures that are all in one folder."""
        labels = self._read_synsets()
        for path in list_files(self.folder, val, PICTURES, self.left_out):
            if Path(path).stem not in labels:
                raise DataError(f"{self.folder / path} has no label in the list of labels")
            yield path, labels[Path(path).stem]

    def _read_synsets(self) -> dict[str, str]:
        """Reads the synset of every picture, from the first list of labels that exists."""
        root = self.folder
        if (root / "LOC_val_solution.csv").is_file():
            path = root / "LOC_val_solution.csv"
            rows = read_table(path, ("ImageId", "PredictionString"))
            return collect_unique(((row["ImageId"], row["PredictionString"].split(" ", 1)[0]) for row in rows), path)
        path = root / "imagenet_2012_validation_synset_labels.txt"
        if path.is_file():
            return _number_synsets(read_lines(path))
        for folder in _DEVKIT:
            if (root / folder / "ILSVRC2012_validation_ground_truth.txt").is_file():
                return _number_synsets(_read_devkit(root / folder))
        raise self.layout_error("list of labels for the pictures in val")


def _number_synsets(synsets: list[str]) -> dict[str, str]:
    """Maps names to synsets; the n-th synset belongs to ILSVRC2012_val_<n>."""
    return {f"ILSVRC2012_val_{n:08d}": synset for n, synset in enumerate(synsets, 1)}


def _read_devkit(folder: Path) -> list[str]:
    """Reads the validation pictures' synsets from the development kit: a list of numbers, and meta.mat."""
    from scipy.io import loadmat

    with guard(f"can't read {folder / 'meta.mat'}"):
        synsets = loadmat(str(folder / "meta.mat"), squeeze_me=True)["synsets"]
        synset = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
    numbers = read_lines(folder / "ILSVRC2012_validation_ground_truth.txt")
    if not all(number.isdecimal() and int(number) in synset for number in numbers):
        raise DataError(f"{folder / 'ILSVRC2012_validation_ground_truth.txt'} has numbers that meta.mat lacks")
    return [synset[int(number)] for number in numbers]
