"""The 19 common corruptions of pictures and clips, by the imagecorruptions package."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Modality, Streams
from rlbench.core.errors import DataError, FieldError
from rlbench.core.registry import register
from rlbench.core.seeds import GLOBALS
from rlbench.corruptions.batched import BATCHED, apply

_OWN_SEED = ("glass_blur", "impulse_noise")  # these take a seed
_EVERY_FRAME = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
_UNORDERED = ("glass_blur", "frost", "fog", "spatter", "saturate")
_DRAWS = 20


@contextmanager
def _library_state(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator in the block and restores it; discards what the package prints."""
    with GLOBALS:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            with redirect_stdout(io.StringIO()), np.errstate(divide="ignore", invalid="ignore"):
                yield
        finally:
            np.random.set_state(before)


def _functions() -> dict[str, Callable[..., object]]:
    # Imported here, since it takes a second (numba, scikit-image, OpenCV).
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
    """A common corruption of ImageNet-C, by the imagecorruptions package; of clips too.

    Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261; code and severities: Michaelis et al.,
    2019, https://arxiv.org/abs/1907.07484. Values are 8-bit, truncated rather than rounded, as there. All frames of a
    clip share one draw, except that noise is drawn per frame.

    The published severities of glass_blur, frost, fog, spatter and saturate are not ordered by distortion (see
    `ordered`): a step changes two parameters at once, or the kind: water, then mud, which dark scenes hide; less
    colour, then more. They are kept for comparability.

    Deviations: a draw whose result is NaN is repeated (spatter without a drop, one in fifty at 32 pixels and severity
    1, which the package turns black). A single channel is corrupted as a grey picture, and its green channel is kept.
    zoom_blur, brightness and saturate are rlbench's own (`batched`), within 1/255 of the package's.
    """

    name: str

    modalities: ClassVar[frozenset[Modality]] = frozenset({"image", "video"})
    version: ClassVar[int] = 2
    smallest: ClassVar[int] = 32

    @property
    def ordered(self) -> bool:
        """Whether the published parameters distort more at every severity."""
        return self.name not in _UNORDERED

    @property
    def redraws(self) -> bool:
        """Whether it differs from frame to frame."""
        return self.name in _EVERY_FRAME

    def __call__(self, x: Tensor, severity: int, streams: Streams) -> Tensor:
        """Corrupts a batch.

        Args:
            x: (B, 3 or 1, H, W) or (B, 3 or 1, T, H, W) in [0, 1]; H and W at least 32.
            severity: 1..5.
            streams: one per example.

        Returns:
            The same shape and dtype, in steps of 1/255.

        Raises:
            FieldError: severity is not 1..5.
            DataError: x is not a batch of such pictures or clips.
        """
        if severity not in range(1, 6):
            raise FieldError(f"{self.name}: severity is {severity!r}; it must be 1 to 5")
        if x.dim() not in (4, 5) or x.shape[1] not in (1, 3) or min(x.shape[-2:]) < self.smallest:
            least = f"{self.smallest} x {self.smallest}"
            raise DataError(f"{self.name} needs (B, 3, H, W) pictures of {least} or more; x is {tuple(x.shape)}")
        if not len(x):
            return x.clone()
        levels = (x.detach().cpu().float() * 255).round().clamp(0, 255).byte()
        clips = levels if x.dim() == 5 else levels[:, :, None]
        frames = clips.transpose(1, 2).expand(-1, -1, 3, -1, -1)  # (B, T, 3, H, W)
        if self.name in BATCHED:
            out = apply(self.name, frames.flatten(0, 1), severity).view(frames.shape)
        else:
            found = [self._clip(clip, severity, g) for clip, g in zip(frames, streams.generators(), strict=True)]
            out = torch.stack(found)
        channels = out.transpose(1, 2) if x.shape[1] == 3 else out.transpose(1, 2)[:, 1:2]
        return (channels.to(x.device, x.dtype) / 255).reshape(x.shape)

    def _clip(self, clip: Tensor, severity: int, g: np.random.Generator) -> Tensor:
        """Corrupts one clip (T, 3, H, W) uint8."""
        each = self.name in _EVERY_FRAME
        for _ in range(_DRAWS):
            seed = int(g.integers(2**32))
            rows = [self._picture(x, severity, (seed + each * t) % 2**32) for t, x in enumerate(clip)]
            if all(np.isfinite(row).all() for row in rows):
                return torch.from_numpy(np.stack(rows).astype(np.uint8)).permute(0, 3, 1, 2)
        raise DataError(f"{self.name} at severity {severity} gave no finite picture in {_DRAWS} draws")

    def _picture(self, picture: Tensor, severity: int, seed: int) -> np.ndarray:
        """(3, H, W) uint8 -> (H, W, 3) in [0, 255], as the package returns it."""
        from PIL import Image

        with _library_state(seed):
            own = {"seed": seed} if self.name in _OWN_SEED else {}
            image = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0)))
            return np.asarray(_functions()[self.name](image, severity, **own))
