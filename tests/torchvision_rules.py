"""Preparation of images as in torchvision and open_clip, on the whole image: resize, pad, crop."""

from __future__ import annotations

from PIL import Image, ImageOps

from rlbench.core.box import Fit


def reference(picture: Image.Image, rows: int, columns: int, fit: Fit) -> Image.Image:
    """The image fitted to a size in pixels."""
    width, height = picture.size
    if fit.resize == "squash":
        picture = picture.resize(fit.size[::-1], Image.Resampling.BICUBIC)
    elif fit.resize == "short":
        scale = fit.size[0] / min(width, height)
        picture = picture.resize((int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.Resampling.BICUBIC)
    elif fit.resize != "none":
        scales = (fit.size[1] / width, fit.size[0] / height)
        scale = max(scales) if fit.resize == "cover" else min(scales)
        picture = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    across, down = max(columns - picture.width, 0), max(rows - picture.height, 0)
    if fit.centre == "down":
        edges = (across + 1) // 2, (down + 1) // 2, across // 2, down // 2
    else:
        edges = across // 2, down // 2, (across + 1) // 2, (down + 1) // 2
    picture = ImageOps.expand(picture, edges, (fit.fill,) * 3)
    cut = (lambda n: n // 2) if fit.centre == "down" else (lambda n: round(n / 2))
    left, top = cut(picture.width - columns), cut(picture.height - rows)
    return picture.crop((left, top, left + columns, top + rows))
