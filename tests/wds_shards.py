"""Webdatasets of small pictures in CLIP_benchmark's layout, written by tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlbench.tasks import tar_index
from rlbench.tasks.wds_sets import find_set

LOSSLESS = {"webp": ("WEBP", {"lossless": True}), "png": ("PNG", {}), "bmp": ("BMP", {}), "tiff": ("TIFF", {})}
FORMATS = {
    **LOSSLESS,
    "jpg": ("JPEG", {"quality": 95}),
    "jpeg": ("JPEG", {"quality": 95}),
    "gif": ("GIF", {}),
    "ppm": ("PPM", {}),
    "0.webp": ("WEBP", {"lossless": True}),
    "JPG": ("JPEG", {"quality": 95}),
}
Files = Sequence[tuple[str, bytes]]


def draw(k: int, size: int | tuple[int, int] = 32) -> np.ndarray:
    """Random pixels, (H, W, 3) uint8, that depend on k."""
    rows, columns = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(k).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, suffix: str = "png", **options: object) -> bytes:
    """A picture as the bytes of a file with this suffix."""
    kind, usual = FORMATS[suffix]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **{**usual, **options})
    return file.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> None:
    """Writes members in order; a TarInfo alone is a member without contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for one in files:
            info, data = (one, b"") if isinstance(one, tarfile.TarInfo) else (tarfile.TarInfo(one[0]), one[1])
            info.size = len(data) if data else info.size
            tar.addfile(info, io.BytesIO(data) if data else None)


def key(k: int) -> str:
    return f"s{k:07d}"


def samples(labels: Sequence[int], suffix: str = "png", size: int = 32) -> list[Files]:
    """A picture and its label for each of these."""
    return [
        [(f"{key(k)}.{suffix}", encode(draw(k, size), suffix)), (f"{key(k)}.cls", str(label).encode())]
        for k, label in enumerate(labels)
    ]


def write_set(
    folder: Path,
    found: Sequence[Files],
    *,
    classes: Sequence[str] = ("cat", "dog"),
    templates: Sequence[str] = ("a photo of a {c}.",),
    shards: int = 2,
    split: str = "test",
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Writes a data set, its samples spread over shards in order; returns the folder."""
    each = -(-len(found) // shards)
    for k in range(shards):
        write_tar(folder / split / f"{k}.tar", [one for files in found[k * each : (k + 1) * each] for one in files])
    (folder / split / "nshards.txt").write_text(f"{shards}\n")
    (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in classes))
    (folder / "zeroshot_classification_templates.txt").write_text("".join(f"{line}\n" for line in templates))
    for name, text in (texts or {}).items():
        (folder / name).write_text(text)
    return folder


def write_published(root: Path, name: str, n: int, *, size: int = 32, names: int = 10) -> Path:
    """A made copy of a set of the catalogue below RLBENCH_DATA, with as many classes as it has, or `names`."""
    one = find_set(name)
    count = int(one.classes) if one.classes.isdigit() else names
    labels = [k % count for k in range(n)]
    return write_set(root / one.folder, samples(labels, size=size), classes=[f"thing {k}" for k in range(count)])


def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a test empty caches of its own, and no published data."""
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub" / "hub"))
    monkeypatch.setattr(tar_index, "_MEMORY", {})
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
