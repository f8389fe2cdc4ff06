"""Corrupted copies of single files: pictures in their own format and depth, sounds in theirs."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media.samples import WRITTEN, decode_samples, encode_samples
from rlbench.core.media.sounds import LARGEST, is_cut
from rlbench.corruptions.copies.corruptor import Corruptor, Unfit

SOUNDS = (".wav", ".flac", ".aiff")  # written with the same bytes every time


def copy_picture(source: Path, target: Path, corruptor: Corruptor, stream: str) -> None:
    """Copies a picture, corrupted, in its format: JPEG at quality 95, others without loss.

    Raises:
        Unfit: the corruption refuses it, its format is not written, or it is an animation or has several pages.
        DataError: it can't be read or written.
    """
    samples = decode_samples(source)
    with guard(f"can't read the image {source}"), Image.open(source) as file:
        several = getattr(file, "n_frames", 1) > 1
    if several:
        raise Unfit("several pictures in one file")
    if samples.format not in WRITTEN:
        raise Unfit(f"{samples.format}, which is not written")
    changed = corruptor.change_picture(samples.pixels, stream, stream)
    target.write_bytes(encode_samples(samples._replace(pixels=changed)))


def copy_sound(source: Path, target: Path, corruptor: Corruptor, stream: str) -> None:
    """Copies a sound, corrupted, with its rate, channels and sample type.

    Raises:
        Unfit: the corruption refuses it.
        DataError: it can't be read or written.
    """
    import soundfile

    with guard(f"can't read the recording {source}"), soundfile.SoundFile(source) as file:
        if file.frames * file.channels > LARGEST:
            raise DataError(f"the recording {source} has more than {LARGEST:,} samples; split it")
        wave = file.read(dtype="float64", always_2d=True)
        rate, form, kind, endian = file.samplerate, file.format, file.subtype, file.endian
        promised = file.frames
    if len(wave) < promised or is_cut(source):
        raise DataError(f"the recording {source} is cut: it ends before the length that its header says")
    changed = corruptor.change_sound(wave, rate, stream)
    with guard(f"can't write the recording {target}"):
        soundfile.write(target, changed, rate, subtype=kind, format=form, endian=endian)
