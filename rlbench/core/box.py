"""The input space of an attack, and how pictures and sounds of other sizes are fitted into it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Resize = Literal["short", "cover", "contain", "squash", "none"]
Padding = Literal["pad", "repeat", "repeatpad"]
Filter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
_WHOLE = 2**24  # the most pixels that are resized at once


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Resizes a picture, then crops its centre, or pads it if it is too small.

    Attributes:
        resize: "short": the short side becomes `size[0]`, the long side in proportion, rounded down; "cover": both
            sides become at least `size`, rounded; "contain": at most `size`, rounded; "squash": `size`; "none": as is.
        size: (rows, columns) before the crop.
        filter: Pillow's resampling filter, with antialiasing.
        centre: how a crop at half a pixel is rounded: "down" as transformers, "even" as torchvision.
        fill: 0..255, the value of the padding.
    """

    resize: Resize
    size: tuple[int, int]
    filter: Filter = "bicubic"
    centre: Literal["down", "even"] = "down"
    fill: int = 0

    def __call__(self, picture: Image, rows: int, columns: int) -> Image:
        """An 8-bit picture -> one of (rows, columns)."""
        from PIL import Image

        height, width = self._scale(picture.height, picture.width)
        top, left = self._offset(height, rows), self._offset(width, columns)
        upper, lower = max(top, 0), min(top + rows, height)
        first, last = max(left, 0), min(left + columns, width)
        resampling = Image.Resampling[self.filter.upper()]
        if height * width <= _WHOLE:
            part = picture.resize((width, height), resampling).crop((first, upper, last, lower))
        else:  # resize only the crop; the rounding may differ by a level
            down, across = picture.height / height, picture.width / width
            area = (first * across, upper * down, min(last * across, picture.width), min(lower * down, picture.height))
            part = picture.resize((last - first, lower - upper), resampling, area)
        if part.size == (columns, rows):
            return part
        padded = Image.new(picture.mode, (columns, rows), (self.fill,) * len(picture.getbands()))
        padded.paste(part, (first - left, upper - top))
        return padded

    def _scale(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.size
        if self.resize == "none":
            return height, width
        if self.resize == "squash":
            return rows, columns
        if self.resize == "short":
            short = min(height, width)
            return int(rows * height / short), int(rows * width / short)
        ratio = (min if self.resize == "cover" else max)(height / rows, width / columns)
        return max(round(height / ratio), 1), max(round(width / ratio), 1)

    def _offset(self, length: int, wanted: int) -> int:
        """Where the crop begins; negative where the picture is padded."""
        spare = length - wanted
        if self.centre == "down":
            return spare // 2
        return round(spare / 2) if spare >= 0 else -(-spare // 2)


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Pads a sound that is shorter than the box, as CLAP's feature extractor does.

    Attributes:
        padding: "pad": silence follows; "repeat": the sound repeats; "repeatpad": it repeats in whole, then silence.
    """

    padding: Padding

    def __call__(self, wave: np.ndarray, length: int) -> np.ndarray:
        """(samples,), fewer than `length` -> (length,)."""
        import numpy as np

        if self.padding != "pad":
            wave = np.tile(wave, length // len(wave) + (self.padding == "repeat"))[:length]
        return np.pad(wave, (0, length - len(wave)))


@dataclass(frozen=True, kw_only=True)
class Box:
    """The input space of an attack; normalisation, channel replication and resizing happen inside the encoder.

    Attributes:
        shape: of one example.
        low: the smallest value of a coordinate.
        high: the largest value of a coordinate.
        unit: of a coordinate: "intensity", "log-mel" (relative to the peak), "fbank" (log-mel in nats) or "waveform".
        rate: samples per second of a waveform; 0 for any.
        fit: how a picture or sound of another size fills it; None: bicubic resize and centre crop of a picture, the
            loudest window of a sound.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    unit: str = "intensity"
    rate: int = 0
    fit: Fit | Fill | None = None

    def facts(self) -> list[object]:
        """The fields that rendered examples depend on, as JSON."""
        fit = [] if self.fit is None else [asdict(self.fit)]
        return [list(self.shape), self.low, self.high, self.unit, *fit]
