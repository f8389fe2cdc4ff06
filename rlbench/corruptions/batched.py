"""Zoom blur, brightness and saturation of whole batches: within 1/255 of imagecorruptions, and faster.

The severities are the package's (Michaelis et al., 2019, https://arxiv.org/abs/1907.07484). Values are truncated to 8
bits, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

_ZOOMS = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
_BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)
_SATURATIONS = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))


def _zoom_blur(x: Tensor, severity: int) -> Tensor:
    """The mean of the picture and enlargements of its centre, aligned at the top left corner."""
    end, step = _ZOOMS[severity - 1]
    h, w = x.shape[-2:]
    x = x.float()  # as in the package
    sum_, factors = x.clone(), np.arange(1, end, step)
    for factor in factors.tolist():
        rows, columns = ceil(h / factor), ceil(w / factor)
        top, left = (h - rows) // 2, (w - columns) // 2
        size = [round(rows * factor), round(columns * factor)]
        middle = x[..., top : top + rows, left : left + columns]
        sum_ += interpolate(middle, size, mode="bilinear", align_corners=True)[..., :h, :w]
    return sum_ / (len(factors) + 1)


def _brightness(x: Tensor, severity: int) -> Tensor:
    """Raises the value in HSV: scales all channels by the same factor; black becomes grey."""
    value = x.amax(1, keepdim=True)
    raised = (value + _BRIGHTER[severity - 1]).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp_min(1e-9), raised)


def _saturate(x: Tensor, severity: int) -> Tensor:
    """Maps the saturation s in HSV to s a + b; grey has the hue of red, as in skimage."""
    a, b = _SATURATIONS[severity - 1]
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    saturation = (value - low) / value.clamp_min(1e-9)
    red = torch.tensor([0.0, 1.0, 1.0], dtype=x.dtype).view(1, 3, 1, 1)
    missing = torch.where(value > low, (value - x) / (value - low).clamp_min(1e-9), red)
    return value * (1 - (saturation * a + b).clamp(0, 1) * missing)


BATCHED: dict[str, Callable[[Tensor, int], Tensor]] = {
    "zoom_blur": _zoom_blur,
    "brightness": _brightness,
    "saturate": _saturate,
}


def apply(name: str, pictures: Tensor, severity: int) -> Tensor:
    """Applies one of BATCHED to (B, 3, H, W) uint8; the result has the same shape and dtype."""
    out = BATCHED[name](pictures.double() / 255, severity)
    return (out.clamp(0, 1) * 255 + 1e-6).byte()
