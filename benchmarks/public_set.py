"""Reads a whole public set by the wds task: `python benchmarks/public_set.py FOLDER --out FILE.md`.

Fashion-MNIST (Xiao et al., 2017, https://arxiv.org/abs/1708.07747; MIT licence) is a public set of pictures that a
package ships whole: Debian's dataset-fashion-mnist, whose files lie in /usr/share/datasets/fashion-mnist. It is not one
of CLIP_benchmark's own sets, whose repositories are on the hub only. The script checks the SHA-256 of the test files,
writes them as shards in CLIP_benchmark's layout, and compares what the task reads with the files and with what the
authors publish. It needs no network.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from rlbench.core import Box
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.tasks.wds import WdsPictures

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
SHA256 = {  # of the content, since Debian compresses the files anew
    IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# The authors' names.
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
PUBLISHED = {"test examples": 10_000, "classes": 10, "rows and columns": 28, "examples a class": 1000}
SHARDS = 3  # the last one is shorter
SIDE = PUBLISHED["rows and columns"]


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The numbers of an IDX file of bytes, in its shape. Raises: ClickException: it is not the published file."""
    content = gzip.decompress((folder / name).read_bytes())
    if (found := hashlib.sha256(content).hexdigest()) != SHA256[name]:
        raise click.ClickException(f"the content of {folder / name} has the SHA-256 {found}, not {SHA256[name]}")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_shards(folder: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
    """Writes pictures (N, H, W) and labels (N,) in CLIP_benchmark's layout."""
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text(f"{SHARDS}\n")
    (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    size = -(-len(pictures) // SHARDS)
    for shard in range(SHARDS):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for k in range(shard * size, min(len(pictures), (shard + 1) * size)):
                file = io.BytesIO()
                Image.fromarray(pictures[k]).save(file, "PNG")
                for suffix, data in (("png", file.getvalue()), ("cls", str(labels[k]).encode())):
                    member = tarfile.TarInfo(f"s{k:07d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def compare(task: WdsPictures, pictures: np.ndarray, labels: np.ndarray) -> list[list[object]]:
    """Rows of the table: what is published, and what the task reads."""
    size = task.size("test") or 0
    found = task.load(Box(shape=(3, SIDE, SIDE)), 0, size)
    order = torch.tensor([int(name.removeprefix("s")) for name in found.ids])
    levels = (found.x * 255).round().to(torch.uint8)
    wanted = torch.from_numpy(pictures.copy())[order, None].expand_as(levels)
    counts = torch.bincount(found.y, minlength=len(task.classes))
    read = {
        "test examples": size,
        "classes": len(task.classes),
        "rows and columns": found.x.shape[-1],
        "examples a class": int(counts[0]) if len(set(counts.tolist())) == 1 else counts.tolist(),
    }
    rows: list[list[object]] = [[what, PUBLISHED[what], read[what]] for what in PUBLISHED]
    rows.append(["class names", ", ".join(CLASSES), ", ".join(one.name for one in task.classes)])
    rows.append(
        ["labels as in the file", size, int((found.y == torch.from_numpy(labels.astype(np.int64))[order]).sum())]
    )
    rows.append(["pictures as in the file", size, int((levels == wanted).flatten(1).all(1).sum())])
    return rows


def measure(task: WdsPictures, model: str, n: int) -> float:
    """The zero-shot accuracy on the first n examples."""
    encoder = load_encoder(model, "image")
    head, right = zero_shot(encoder, "image", task.classes, task.templates), 0
    for first in range(0, n, 100):
        found = task.load(encoder.boxes["image"], first, min(n, first + 100))
        with torch.no_grad():
            right += int((head(found.x).argmax(1) == found.y).sum())
    return right / n


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default="languagebind", show_default=True)
@click.option("--examples", type=click.IntRange(1, 10_000), default=1000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(folder: Path, model: str, examples: int, out: Path | None) -> None:
    """Read Fashion-MNIST, whose files are in FOLDER, by the wds task."""
    torch.set_num_threads(1)
    pictures, labels = read_idx(folder, IMAGES), read_idx(folder, LABELS)
    with tempfile.TemporaryDirectory() as place:
        write_shards(Path(place) / "fashion-mnist", pictures, labels)
        task = WdsPictures(root=f"{place}/fashion-mnist")
        rows = compare(task, pictures, labels)
        accuracy = measure(task, model, examples)
    table = tabulate(rows, headers=["", "published", "read"], tablefmt="github", disable_numparse=True)
    note = f"{model}, zero-shot, {examples} examples: {accuracy:.1%} (chance: {1 / len(CLASSES):.0%})."
    click.echo(f"{table}\n\n{note}")
    if out is not None:
        out.write_text(f"{table}\n\n{note}\n")
    if any(str(wanted) != str(read) for _, wanted, read in rows):
        raise click.ClickException("what is read differs from what is published")


if __name__ == "__main__":
    main()
