"""The space where an attack lives, and how files fill it where a checkpoint says so."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Resize = Literal["short", "cover", "contain", "squash", "none"]
Padding = Literal["pad", "repeat", "repeatpad"]
Filter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
_WHOLE = 2**24  # pixels that are resized as a whole


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A picture is resized, then its centre is cut out, or padded where it is smaller.

    Attributes:
        resize: "short": the short side gets `size[0]` pixels, the long one is rounded down; "cover", "contain": both
            sides get at least, at most, `size`, rounded; "squash": exactly `size`; "none": none.
        size: rows and columns that it is resized to, before the cut.
        filter: of Pillow, which smooths before it makes a picture smaller.
        centre: whether a cut of half a pixel is rounded down (transformers) or to the even one (torchvision).
        fill: 0..255, what a smaller picture is padded with.
    """

    resize: Resize
    size: tuple[int, int]
    filter: Filter = "bicubic"
    centre: Literal["down", "even"] = "down"
    fill: int = 0

    def __call__(self, picture: Image, rows: int, columns: int) -> Image:
        """A picture of 8 bits -> (rows, columns)."""
        from PIL import Image

        height, width = self._resized(picture.height, picture.width)
        top, left = self._offset(height, rows), self._offset(width, columns)
        upper, lower = max(top, 0), min(top + rows, height)
        first, last = max(left, 0), min(left + columns, width)
        way = Image.Resampling[self.filter.upper()]
        if height * width <= _WHOLE:
            part = picture.resize((width, height), way).crop((first, upper, last, lower))
        else:  # of a strip only what is cut out is computed; its levels may be rounded otherwise
            down, across = picture.height / height, picture.width / width
            area = (first * across, upper * down, min(last * across, picture.width), min(lower * down, picture.height))
            part = picture.resize((last - first, lower - upper), way, area)
        if part.size == (columns, rows):
            return part
        padded = Image.new(picture.mode, (columns, rows), (self.fill,) * len(picture.getbands()))
        padded.paste(part, (first - left, upper - top))
        return padded

    def _resized(self, height: int, width: int) -> tuple[int, int]:
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
        """Where the cut begins; negative where the picture is padded."""
        spare = length - wanted
        if self.centre == "down":
            return spare // 2
        return round(spare / 2) if spare >= 0 else -(-spare // 2)


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A sound that is shorter than the box begins with it, as CLAP's library has it.

    Attributes:
        padding: what follows it: "pad": silence; "repeat": itself, again and again; "repeatpad": itself as often as it
            goes in whole, then silence.
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
    """The space where an attack lives; normalisation, channel replication and resizing are inside the encoder.

    Attributes:
        shape: of one example; low, high: range of every coordinate; rate: samples a second of a waveform (0: any).
        unit: what a coordinate is: "intensity", "log-mel" (of its peak), "fbank" (log-mel in nats) or "waveform".
        fit: how a file's picture or sound fills it; None: a picture's centre, bicubic; a sound's loudest window.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    unit: str = "intensity"
    rate: int = 0
    fit: Fit | Fill | None = None

    def facts(self) -> list[object]:
        """What examples at the box depend on, as JSON."""
        fit = [] if self.fit is None else [asdict(self.fit)]
        return [list(self.shape), self.low, self.high, self.unit, *fit]
