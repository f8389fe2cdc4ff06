"""The 19 common corruptions of pictures, by the imagecorruptions package."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Modality, Streams
from rlbench.errors import DataError, FieldError
from rlbench.registry import register

_GLOBALS = Lock()  # the library draws from numpy's global state, which threads share
_OWN_SEED = ("glass_blur", "impulse_noise")  # these draw from generators of their own
_DRAWS = 20
_SMALLEST = 32


@contextmanager
def _library_state(seed: int) -> Iterator[None]:
    """Numpy's global randomness at a seed, put back afterwards; the library's prints are dropped."""
    with _GLOBALS:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            with redirect_stdout(io.StringIO()), np.errstate(divide="ignore", invalid="ignore"):
                yield
        finally:
            np.random.set_state(before)


def _functions() -> dict[str, Callable[..., object]]:
    # Here, since the package takes a second to import (numba, scikit-image, OpenCV).
    try:
        from imagecorruptions import corruption_dict
    except ImportError as error:
        message = (
            f"imagecorruptions can't be imported ({error}); OpenCV may need the system packages libgl1, libglib2.0-0"
        )
        raise DataError(message) from error

    return dict(corruption_dict)


@register(
    "corruption",
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "gaussian_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "spatter",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "saturate",
)
@dataclass(frozen=True, kw_only=True)
class CommonCorruption:
    """A common corruption of ImageNet-C, by the imagecorruptions package.

    Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261; code and severities: Michaelis et al.,
    2019, https://arxiv.org/abs/1907.07484. Values are 8-bit, cut off rather than rounded, as there.

    Two deviations. A draw whose result is not a number is drawn again: spatter without a drop, one in fifty at 32
    pixels and severity 1, which the package turns black. A single channel is corrupted as a grey picture, of
    which the green channel is kept.
    """

    name: str

    modalities: ClassVar[frozenset[Modality]] = frozenset({"image"})

    def __call__(self, x: Tensor, severity: int, streams: Streams) -> Tensor:
        """x (B, 3 or 1, H, W) in [0, 1], H and W at least 32 -> the same shape and dtype, in steps of 1/255.

        Raises:
            FieldError: severity is not 1..5.
            DataError: x is not a batch of such pictures.
        """
        if severity not in range(1, 6):
            raise FieldError(f"{self.name}: severity is {severity!r}; it must be 1 to 5")
        if x.dim() != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < _SMALLEST:
            raise DataError(f"{self.name} needs (B, 3, H, W) pictures of 32 x 32 or more; x is {tuple(x.shape)}")
        pictures = (x.detach().cpu().float() * 255).round().clamp(0, 255).byte().expand(-1, 3, -1, -1)
        rows = [
            self._picture(picture.permute(1, 2, 0).numpy(), severity, g)
            for picture, g in zip(pictures, streams.generators(), strict=True)
        ]
        if not rows:
            return x.clone()
        out = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).to(x.device, x.dtype) / 255
        return (out if x.shape[1] == 3 else out[:, 1:2]).contiguous()

    def _picture(self, picture: np.ndarray, severity: int, g: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 -> the same."""
        from PIL import Image

        function = _functions()[self.name]
        for _ in range(_DRAWS):
            seed = int(g.integers(2**32))
            with _library_state(seed):
                own = {"seed": seed} if self.name in _OWN_SEED else {}
                corrupted = np.asarray(function(Image.fromarray(picture), severity, **own))
            if np.isfinite(corrupted).all():
                return corrupted.astype(np.uint8)
        raise DataError(f"{self.name} at severity {severity} gave no finite picture in {_DRAWS} draws")
