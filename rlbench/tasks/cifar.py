"""CIFAR-10 and CIFAR-100, from the binary or the Python files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from rlbench.core import Box, Label, Modality, Split
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media.stills import pixels
from rlbench.core.registry import register
from rlbench.tasks.pickles import ARRAYS, unpickle
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import load_names, load_templates

_PIXELS = 3 * 32 * 32
_URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
_LICENCE = "none stated; cite Krizhevsky, 2009"


@lru_cache(maxsize=8)
def _read_batch(path: Path, key: str, head: int, changed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the pictures, (N, 3, 32, 32) uint8, and labels, (N,), of a file.

    Args:
        path: a binary file (.bin) or a pickle.
        key: the key of the labels in a pickle.
        head: label bytes per record of a binary file; the last one is used.
        changed: time of the last change in ns, so that a changed file is read again.

    Raises:
        DataError: the file can't be read or has another format.
    """
    if path.suffix == ".bin":
        with guard(f"can't read {path}"):
            data = np.fromfile(path, np.uint8)
        if not data.size or data.size % (head + _PIXELS):
            raise DataError(f"{path} has {data.size} bytes; they must be records of {head + _PIXELS}")
        records = data.reshape(-1, head + _PIXELS)
        return records[:, head:].reshape(-1, 3, 32, 32), records[:, head - 1].astype(np.int64)
    batch = unpickle(path, ARRAYS)
    if not isinstance(batch, dict) or not {"data", key} <= set(batch):
        raise DataError(f"{path} is not a CIFAR batch: it needs 'data' and {key!r}")
    with guard(f"can't read {path}"):
        pictures, labels = np.asarray(batch["data"], np.uint8), np.asarray(batch[key], np.int64)
    if pictures.shape != (labels.size, _PIXELS) or labels.ndim != 1:
        raise DataError(f"{path} has {labels.size} labels for pictures of shape {pictures.shape}")
    return pictures.reshape(-1, 3, 32, 32), labels


@dataclass(frozen=True, kw_only=True)
class Cifar(Published):
    """What CIFAR-10 and CIFAR-100 share. Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf"""

    kind: ClassVar[Modality] = "image"
    data_set: ClassVar[str]
    layouts: ClassVar[tuple[tuple[str, str], ...]]  # folders, and the suffixes of their files
    files: ClassVar[dict[Split, tuple[str, ...]]]
    key: ClassVar[str]  # of the labels in a pickle
    head: ClassVar[int]  # label bytes of a binary record

    @property
    def classes(self) -> tuple[Label, ...]:
        return load_names(self.data_set)

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("cifar18")

    def _load_batch(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            changed = (self.folder / path).stat().st_mtime_ns
        except OSError as error:
            raise DataError(f"can't read {self.folder / path}: {error.strerror}") from error
        return _read_batch(self.folder / path, self.key, self.head, changed)

    def list_items(self, split: Split) -> list[Item]:
        root = self.folder
        for folder, suffix in self.layouts:
            for place in (folder, "."):
                if (root / place / f"{self.files['test'][0]}{suffix}").is_file():
                    return [
                        item for name in self.files.get(split, ()) for item in self._list_batch(place, name, suffix)
                    ]
        raise self.layout_error(f"file {self.files['test'][0]}.bin or {self.files['test'][0]}")

    def _list_batch(self, place: str, name: str, suffix: str) -> list[Item]:
        path = (Path(place) / f"{name}{suffix}").as_posix()
        labels = self._load_batch(path)[1]
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise DataError(f"{self.folder / path} has labels above {len(self.classes) - 1}")
        ids = [f"{name}/{k}" for k in range(len(labels))]
        return [Item(ids[k], path, self.classes[y].label, ids[k], (k,)) for k, y in enumerate(labels.tolist())]

    def read(self, item: Item, box: Box) -> np.ndarray:
        picture = Image.fromarray(self._load_batch(item.path)[0][int(item.part[0])].transpose(1, 2, 0))
        return pixels(picture, box)


@register("task", "cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(Cifar):
    """CIFAR-10 test pictures: ten kinds of vehicle and animal at 32 x 32. Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html"""

    data_set: ClassVar[str] = "cifar10"
    layouts: ClassVar[tuple[tuple[str, str], ...]] = (("cifar-10-batches-bin", ".bin"), ("cifar-10-batches-py", ""))
    files: ClassVar[dict[Split, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test": ("test_batch",),
    }
    key: ClassVar[str] = "labels"
    head: ClassVar[int] = 1
    source: ClassVar[Source] = Source(
        title="CIFAR-10",
        url=_URL,
        licence=_LICENCE,
        folder="cifar10",
        layout="cifar-10-batches-bin/*.bin or cifar-10-batches-py/*",
        test=10_000,
        md5={"cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e"},
    )


@register("task", "cifar100")
@dataclass(frozen=True, kw_only=True)
class Cifar100(Cifar):
    """CIFAR-100 test pictures: 100 classes at 32 x 32. Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html"""

    data_set: ClassVar[str] = "cifar100"
    layouts: ClassVar[tuple[tuple[str, str], ...]] = (("cifar-100-binary", ".bin"), ("cifar-100-python", ""))
    files: ClassVar[dict[Split, tuple[str, ...]]] = {"train": ("train",), "test": ("test",)}
    key: ClassVar[str] = "fine_labels"
    head: ClassVar[int] = 2
    source: ClassVar[Source] = Source(
        title="CIFAR-100",
        url=_URL,
        licence=_LICENCE,
        folder="cifar100",
        layout="cifar-100-binary/*.bin or cifar-100-python/*",
        test=10_000,
        md5={"cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    )
