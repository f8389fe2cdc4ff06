"""Recordings, and the sound of films: files -> waves in [-1, 1], and arrays in [0, 1] at an encoder's box."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import gcd
from pathlib import Path

import numpy as np
import torch
from scipy import signal

from rlbench.core.box import Box, Fill, Fit
from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media import filterbank, preprocess
from rlbench.core.media.clips import FILMS, open_film
from rlbench.core.media.log_mel import logmel

SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".opus")
LARGEST = 60_000_000  # samples of a channel, as recorded and as resampled: 21 minutes at 48 kHz
RATES = (500, 1_000_000)  # samples a second that a recording may have
_WHOLE = 24_000_000  # samples for a box of unit "fbank", which takes all: 25 minutes at 16 kHz, below 2 GB of memory
_BLOCK = 1 << 20  # samples of a channel that are read at a time
_LOUDEST = 16.0  # of samples, as a factor of full scale: beyond, they are in other units
_LONG = 1_050_000  # taps of a filter of `resample_poly`, which has 20 for every sample of the larger rate
_UNKNOWN = 0x7FFF0000  # bytes of sound: a writer that could not know them says this many or more
Sound = tuple[np.ndarray, np.ndarray, int]  # the mean of the channels, the first one, and samples a second


def window(wave: np.ndarray, length: int, fill: Fit | Fill | None = None) -> np.ndarray:
    """The `length` samples of most energy; a shorter wave is filled as a box's `fit` says, or centred in silence."""
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


def _sound(path: Path) -> Sound:
    """A sound file, float32. Raises: DataError."""
    import soundfile

    with guard(f"can't read the recording {path}"), soundfile.SoundFile(path) as file:
        _check_size(path, file.samplerate, 0)
        blocks, count = list[np.ndarray](), 0
        while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
            count += len(block)
            _check_size(path, file.samplerate, count)
            blocks.append(np.stack([block.mean(1), block[:, 0]]))
        rate, promised = int(file.samplerate), int(file.frames) if file.format == "FLAC" else 0
    if count < promised or _is_cut(path):
        raise DataError(f"the recording {path} is cut: it ends before the length that its header says")
    mean, first = np.concatenate(blocks, axis=1) if blocks else np.zeros((2, 0), np.float32)
    return mean, first, rate


def _check_size(path: Path, rate: int, count: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"the recording {path} has {rate:,} samples a second; it must be {RATES[0]} to {RATES[1]:,}")
    if count > LARGEST:
        raise DataError(f"the recording {path} is longer than {LARGEST / rate / 60:.0f} minutes, the most at its rate")


def _is_cut(path: Path) -> bool:
    """Whether a WAV or AIFF file has less sound than its header says, or an Ogg file lacks its last page."""
    with guard(f"can't read the recording {path}"), path.open("rb") as file:
        head, size = file.read(12), path.stat().st_size
        if head[:4] == b"OggS":
            file.seek(max(0, size - (1 << 17)))
            tail = file.read()
            last = tail.rfind(b"OggS")
            return last < 0 or len(tail) < last + 6 or not tail[last + 5] & 4
        order = {b"RIFF": "<", b"RIFX": ">", b"FORM": ">"}.get(head[:4])
        at = 12
        while order and at + 8 <= size:
            file.seek(at)
            name, length = struct.unpack(f"{order}4sI", file.read(8))
            if name in (b"data", b"SSND"):
                return bool(0 < size - at - 8 < length < _UNKNOWN)
            at += 8 + length + length % 2
    return False


def _track(path: Path) -> Sound:
    """A film's first sound track, float32. Raises: DataError."""
    with guard(f"can't read the sound of {path}"):
        blocks, rate = list[np.ndarray](), 0
        for block, rate in _decoded(path):
            blocks.append(block)
            _check_size(path, rate, sum(one.shape[1] for one in blocks) if len(blocks) % 256 == 0 else 0)
    if not blocks:
        raise DataError(f"the film {path} has no sound")
    mean, first = np.concatenate(blocks, axis=1)
    _check_size(path, rate, len(mean))
    return mean, first, rate


def _decoded(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """(2, samples): the mean of the channels and the first one; and samples a second. Raises: what PyAV raises."""
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
    """A recording, or a film's sound, at the box: `heard` of what is `audible`.

    Returns:
        (1, mels, frames) or (1, samples) float32 in [0, 1]; a waveform's zero is at 1/2.
    """
    return render_waveform(*audible(path, box, rate=rate, seconds=seconds), box)


def audible(path: Path, box: Box, *, rate: int, seconds: float) -> tuple[np.ndarray, int]:
    """What a box takes of a recording, (samples,) float32 in [-1, 1], and its rate.

    The mean of its channels, resampled to `rate`, cut or padded by `window`: for a log-mel box `seconds` of it, for a
    waveform box as many samples as it has, at its own rate if it has one. For a box of unit "fbank" the first channel
    as a whole, at its own rate.
    """
    wave, first, own_rate = _track(path) if path.suffix.lower() in FILMS else _sound(path)
    if not wave.size or not (np.isfinite(wave).all() and np.isfinite(first).all()):
        raise DataError(f"the recording {path} has no samples, or some that are not finite")
    loudest = max(float(np.abs(wave).max()), float(np.abs(first).max()))
    if loudest > _LOUDEST:
        raise DataError(f"the recording {path} has samples up to {loudest:.6g}; they must be in [-1, 1]")
    if box.unit == "fbank":
        if len(wave) < 0.025 * own_rate:
            raise DataError(f"the recording {path} is shorter than 25 ms")
        if len(wave) * max(1.0, filterbank.RATE / own_rate) > _WHOLE:
            raise DataError(f"the recording {path} has {len(wave):,} samples; for this encoder at most {_WHOLE:,}")
        return first, own_rate
    rate = box.rate or rate
    if len(wave) * rate / own_rate > LARGEST:
        raise DataError(f"the recording {path} is longer than {LARGEST / rate / 60:.0f} minutes, the most at {rate} Hz")
    wave = _resampled(wave, own_rate, rate)
    return window(wave, box.shape[-1] if box.unit == "waveform" else round(seconds * rate), box.fit), rate


def _resampled(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """(samples,) at `old` Hz -> at `new` Hz."""
    common = gcd(old, new)
    up, down = new // common, old // common
    if up == down:
        return wave
    if 20 * max(up, down) > _LONG:
        return preprocess.resample(torch.from_numpy(wave)[None], old, new)[0].numpy()
    return np.asarray(signal.resample_poly(wave, up, down))


def render_waveform(wave: np.ndarray, rate: int, box: Box) -> np.ndarray:
    """(samples,) float32 in [-1, 1] -> a box of unit log-mel, "fbank" (`preprocess.heard`) or waveform, in [0, 1]."""
    if box.unit == "fbank":
        mel = preprocess.render_audio(torch.from_numpy(wave[None]), rate, box)[0].numpy()
        return np.asarray((mel - box.low) / (box.high - box.low))
    if box.unit == "waveform":
        return np.clip((wave[None] + 1) / 2, 0, 1).astype(np.float32)
    return logmel(wave, rate, box)
