"""Writes a small folder of pairs for tests: pictures and thermal pictures of the same things."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("bird", "drone")


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes pixels, (H, W) or (H, W, 3), uint8 or, for depth, uint16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_pairs(root: Path, n: int = 6, *, labels: Sequence[str] = LABELS, splits: Sequence[str] = ("test",)) -> Path:
    """Writes labels.csv, classes.csv, prompts and, for example k, a grey of 10 k + 5 as picture and 10 k as thermal.

    Args:
        root: the folder; it may not exist.
        n: the number of examples of each split.
        labels: example k has label k mod len(labels).
        splits: the splits.
    """
    lines = ["id,label,split,source,image,thermal"]
    for at, split in enumerate(splits):
        for k in range(n):
            name = f"{split}{k}"
            write_picture(root / "image" / f"{name}.png", np.full((16, 16, 3), 10 * k + 5 + at, np.uint8))
            write_picture(root / "thermal" / f"t-{name}.png", np.full((12, 12), 10 * k + at, np.uint8))
            lines.append(f"{name},{labels[k % len(labels)]},{split},s{k // 2},image/{name}.png,thermal/t-{name}.png")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "classes.csv").write_text("label,name\n" + "\n".join(f"{one},a {one}" for one in labels) + "\n")
    (root / "prompts.txt").write_text("a picture of {}.\n")
    (root / "prompts_thermal.txt").write_text("a thermal picture of {}.\n")
    return root
