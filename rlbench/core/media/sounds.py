"""Reads recordings and the sound of films: files -> waves in [-1, 1] -> arrays in [0, 1] at an encoder's box."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlbench.core.box import Box, Fill, Fit
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media import filterbank, preprocess
from rlbench.core.media.clips import FILMS, open_film
from rlbench.core.media.contents import explain_content
from rlbench.core.media.log_mel import logmel

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".opus")
LARGEST = 60_000_000  # the most samples of a channel, before and after resampling: 21 minutes at 48 kHz
RATES = (500, 1_000_000)  # allowed samples per second
_WHOLE = 24_000_000  # the most samples for an "fbank" box, which takes the whole sound: 25 minutes, below 2 GB
_BLOCK = 1 << 20  # samples of a channel to read at a time
_LOUDEST = 16.0  # samples beyond this are not in units of full scale
_LONG = 1_050_000  # the most taps of `resample_poly`, whose filter has 20 times the larger of up and down
_MP3 = 4 * 1152  # samples by which an MP3 file may be shorter than it says: encoders count their padding differently
_UNKNOWN = 0x7FFF0000  # a size in bytes from here on means that the writer did not know it
Sound = tuple[np.ndarray, np.ndarray, int]  # mean of the channels, first channel, samples per second


def window(wave: np.ndarray, length: int, fill: Fit | Fill | None = None) -> np.ndarray:
    """The `length` samples of most energy; pads a shorter wave by `fill`, or centres it in silence."""
    if isinstance(fill, Fill) and len(wave) < length:
        return fill(wave, length)
    if len(wave) <= length:
        before = (length - len(wave)) // 2
        return np.pad(wave, (before, length - len(wave) - before))
    energy = np.zeros(len(wave) + 1)
    np.square(wave, out=energy[1:], dtype=np.float64)
    np.cumsum(energy, out=energy)
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return wave[start : start + length]


def _load_sound(path: Path) -> Sound:
    """Reads a sound file as float32. Raises: DataError."""
    with guard(f"can't read the recording {path}"), _open(path) as file:
        _check_size(path, file.samplerate, 0)
        blocks, count = list[np.ndarray](), 0
        while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            count += len(block)
            _check_size(path, file.samplerate, count)
            blocks.append(np.stack([block.mean(1), block[:, 0]]))
        rate, promised = int(file.samplerate), int(file.frames) if file.format == "FLAC" else 0
        if file.format == "MP3" and _states_length(path):
            promised = int(file.frames) - _MP3
    if count < promised or is_cut(path):
        raise DataError(f"the recording {path} is cut: it ends before the length that its header says")
    mean, first = np.concatenate(blocks, axis=1) if blocks else np.zeros((2, 0), np.float32)
    return mean, first, rate


def _open(path: Path) -> Any:
    """A recording as a SoundFile. Raises: what soundfile raises; DataError for a file that is evidently no sound."""
    import soundfile

    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        if reason := explain_content(path):
            raise DataError(f"can't read the recording {path}: {reason}") from None
        raise


def _states_length(path: Path) -> bool:
    """Whether an MP3 file has a header with its length, behind its ID3 tag; without one the length is a guess."""
    with path.open("rb") as file:
        head = file.read(10)
        size = sum((byte & 127) << 7 * k for k, byte in enumerate(reversed(head[6:]))) + 10 if head[:3] == b"ID3" else 0
        file.seek(size)
        first = file.read(256)
    return b"Xing" in first or b"Info" in first


def _check_size(path: Path, rate: int, count: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"the recording {path} has {rate:,} samples a second; it must be {RATES[0]} to {RATES[1]:,}")
    if count > LARGEST:
        raise DataError(f"the recording {path} is longer than {LARGEST / rate / 60:.0f} minutes, the most at its rate")


def is_cut(path: Path) -> bool:
    """Checks whether a WAV or AIFF file is shorter than its header says, or an Ogg file lacks its last page."""
    with guard(f"can't read the recording {path}"), path.open("rb") as file:
        head, size = file.read(12), path.stat().st_size
        if head[:4] == b"OggS":
            file.seek(max(0, size - (1 << 17)))
            tail = file.read()
            last = tail.rfind(b"OggS")
            return last < 0 or len(tail) < last + 6 or not tail[last + 5] & 4
        order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(head[:4])
        at, long = 12, 0
        while order and at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack(f"{order}4sI", file.read(8))
            if name == b"ds64":  # of RF64: the lengths of the whole and of the data
                _, long = struct.unpack("<QQ", file.read(16))
            if name in (b"data", b"SSND"):
                return bool(0 < size - at - 8 < (long or length) and (long or length < _UNKNOWN))
            at += 8 + length + length % 2
    return False


def _load_track(path: Path) -> Sound:
    """Reads a film's first sound track as float32. Raises: DataError."""
    with guard(f"can't read the sound of {path}"):
        blocks, rate = list[np.ndarray](), 0
        for block, rate in _decode(path):
            blocks.append(block)
            _check_size(path, rate, sum(one.shape[1] for one in blocks) if len(blocks) % 256 == 0 else 0)
    if not blocks:
        raise DataError(f"the film {path} has no sound")
    mean, first = np.concatenate(blocks, axis=1)
    _check_size(path, rate, len(mean))
    return mean, first, rate


def has_sound(path: Path) -> bool:
    """Whether a film has a sound track. Raises: DataError: it can't be read."""
    with guard(f"can't read the film {path}"), open_film(path) as container:
        return bool(container.streams.audio)


def _decode(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (2, samples), the mean of the channels and the first one, and the rate. Raises: what PyAV raises."""
    import av

    with open_film(path) as container:
        if not container.streams.audio:
            raise DataError(f"the film {path} has no sound")
        stream, plain = container.streams.audio[0], av.AudioResampler(format="fltp")
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise DataError(f"the sound of {path} is cut or damaged: a packet is not whole")
            for frame in packet.decode():
                for part in plain.resample(frame):
                    wave = part.to_ndarray()
                    yield np.stack([wave.T.mean(1), wave[0]]), int(stream.rate)


def audio(path: Path, box: Box, *, rate: int, seconds: float) -> np.ndarray:
    """Reads a recording or a film's sound at a box: `load_wave`, then `render_waveform`.

    Returns:
        (1, mels, frames) or (1, samples) float32 in [0, 1]; a waveform's zero is at 1/2.
    """
    return render_waveform(*load_wave(path, box, rate=rate, seconds=seconds), box)


def load_wave(path: Path, box: Box, *, rate: int, seconds: float) -> tuple[np.ndarray, int]:
    """Reads the part of a recording that a box takes.

    For a log-mel or waveform box: the mean of the channels at `rate` (or the box's own), cut or padded by `window` to
    `seconds` or to the box's samples. For an "fbank" box: the whole first channel at the recording's rate.

    Returns:
        (samples,) float32 in [-1, 1], and samples per second.
    """
    sound = _load_track(path) if path.suffix.lower() in FILMS else _load_sound(path)
    return fit_sound(sound, f"the recording {path}", box, rate=rate, seconds=seconds)


def fit_sound(sound: Sound, name: str, box: Box, *, rate: int, seconds: float) -> tuple[np.ndarray, int]:
    """Cuts the part of a sound in memory that a box takes, as `load_wave` does. Raises: DataError, naming `name`."""
    wave, first, own_rate = sound
    if not wave.size or not (np.isfinite(wave).all() and np.isfinite(first).all()):
        raise DataError(f"{name} has no samples, or some that are not finite")
    loudest = max(float(np.abs(wave).max()), float(np.abs(first).max()))
    if loudest > _LOUDEST:
        raise DataError(f"{name} has samples up to {loudest:.6g}; they must be in [-1, 1]")
    if box.unit == "fbank":
        if len(wave) < 0.025 * own_rate:
            raise DataError(f"{name} is shorter than 25 ms")
        if len(wave) * max(1.0, filterbank.RATE / own_rate) > _WHOLE:
            raise DataError(f"{name} has {len(wave):,} samples; for this encoder at most {_WHOLE:,}")
        return first, own_rate
    rate = box.rate or rate
    if len(wave) * rate / own_rate > LARGEST:
        raise DataError(f"{name} is longer than {LARGEST / rate / 60:.0f} minutes, the most at {rate} Hz")
    wave = _resample(wave, own_rate, rate)
    return window(wave, box.shape[-1] if box.unit == "waveform" else round(seconds * rate), box.fit), rate


def _resample(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """(samples,) at `old` Hz -> at `new` Hz."""
    common = gcd(old, new)
    up, down = new // common, old // common
    if up == down:
        return wave
    if 20 * max(up, down) > _LONG:
        return preprocess.resample(torch.from_numpy(wave)[None], old, new)[0].numpy()
    from scipy.signal import resample_poly  # takes a second to load

    return np.asarray(resample_poly(wave, up, down))


def render_waveform(wave: np.ndarray, rate: int, box: Box) -> np.ndarray:
    """(samples,) float32 in [-1, 1] -> a log-mel, "fbank" (`preprocess.render_audio`) or waveform box, in [0, 1]."""
    if box.unit == "fbank":
        mel = preprocess.render_audio(torch.from_numpy(wave[None]), rate, box)[0].numpy()
        return np.asarray((mel - box.low) / (box.high - box.low))
    if box.unit == "waveform":
        return np.clip((wave[None] + 1) / 2, 0, 1).astype(np.float32)
    return logmel(wave, rate, box)
