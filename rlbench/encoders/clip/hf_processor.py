"""Fronts that prepare images and sounds exactly as a checkpoint's transformers processor, or refuse to.

Supported fields for images: do_resize, size, resample, do_center_crop, crop_size, do_rescale, rescale_factor,
do_normalize, image_mean, image_std. The fields in `_IDLE` have no effect on RGB images of one size. Any other field
that is neither null nor false is an error. Resizing is Pillow's, as in the processors that transformers calls slow or
Pil; the results of the fast ones differ by one or two levels of 255.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, get_args

from transformers import ClapFeatureExtractor

from rlbench.core.box import Box, Filter, Fit
from rlbench.core.errors import CheckpointError, first_line
from rlbench.encoders.clip.clap_front import ClapWaveform
from rlbench.encoders.clip.fronts import MEAN, STD, Patches, Pixels
from rlbench.encoders.clip.hf_quiet import quiet
from rlbench.encoders.clip.weights import check_no_code, read_json

_FILTERS: tuple[Filter, ...] = get_args(Filter)  # in Pillow's order
_LARGEST = 2**15  # pixels per side
_HALF = (0.5, 0.5, 0.5)
_ALIKE = {"do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
_CLIP = {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224, "image_mean": MEAN, "image_std": STD}
_SIGLIP = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "image_mean": _HALF, "image_std": _HALF}
_SIGLIP2 = {"resample": 2, "patch_size": 16, "max_num_patches": 256, "image_mean": _HALF, "image_std": _HALF}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "CLIP": {**_ALIKE, **_CLIP},
    "Siglip": {**_ALIKE, **_SIGLIP},
    "Siglip2": {**_ALIKE, **_SIGLIP2},
}
_IDLE = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "_valid_processor_keys"),
    *("do_convert_rgb", "input_data_format", "return_tensors", "device", "disable_grouping", "default_to_square"),
    *("transformers_version", "image_seq_length"),
}
_CLAP_IDLE = {
    *("feature_extractor_type", "processor_class", "return_attention_mask", "padding_side", "padding_value", "top_db"),
    *("n_fft", "nb_frequency_bins", "nb_max_frames", "nb_max_samples", "chunk_length_s", "transformers_version"),
}
_CLAP = {"feature_size", "sampling_rate", "hop_length", "max_length_s", "fft_window_size", "truncation", "padding"}
_CLAP |= {"frequency_min", "frequency_max"}


def _section(folder: Path, *parts: str) -> tuple[dict[str, Any], Path]:
    """The section of a checkpoint's processor and its file; new releases nest it in another file than old ones.

    Raises: CheckpointError: there is none, or it is not an object.
    """
    nested = folder / "processor_config.json"
    whole = read_json(nested) if nested.is_file() else {}
    for part in parts:
        if part in whole:
            if not isinstance(whole[part], dict):
                raise CheckpointError(f"{nested}: {part} must be a JSON object")
            return whole[part], nested
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no preprocessor_config.json, so the preparation of its inputs is not known; "
            "copy that file from the model that it was fine-tuned from"
        )
    return read_json(path), path


@dataclass(frozen=True)
class _Processor:
    """The fields of an image processor, with the defaults of its class; a null flag is false."""

    fields: Mapping[str, Any]
    source: Path

    def error(self, name: str, needed: str) -> CheckpointError:
        shown = json.dumps(self.fields.get(name))[:80]
        return CheckpointError(f"{self.source}: {name} is {shown}, which is not supported; it must be {needed}")

    def flag(self, name: str) -> bool:
        if not isinstance(self.fields[name], bool | None):
            raise self.error(name, "true or false")
        return bool(self.fields[name])

    def number(self, name: str) -> float:
        value = self.fields[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) < 1e6:
            raise self.error(name, "a number that is not 0")
        return float(value)

    def channels(self, name: str, *, zero: bool) -> tuple[float, ...]:
        """Three numbers, or one for all three channels; `zero` allows zeros."""
        value = self.fields[name]
        values = value if isinstance(value, list | tuple) else [value] * 3
        plain = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6]
        if len(plain) != 3 or len(values) != 3 or not (zero or all(plain)):
            raise self.error(name, "three numbers" if zero else "three numbers that are not 0")
        return tuple(map(float, plain))

    def sides(self, name: str, *, square: bool) -> dict[str, int]:
        """`{"height", "width"}` or `{"shortest_edge"}`, in whole pixels; `square`: what a single number means."""
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = {"height": value, "width": value} if square else {"shortest_edge": value}
        elif isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        known = ({"height", "width"}, {"shortest_edge"}) if name == "size" else ({"height", "width"},)
        if not isinstance(value, dict) or set(value) not in known:
            raise self.error(name, "height and width" + (", or shortest_edge" if name == "size" else ""))
        for side in value.values():
            if isinstance(side, bool) or not isinstance(side, int) or not 0 < side <= _LARGEST:
                raise self.error(name, f"1 to {_LARGEST} whole pixels")
        return value


def _read_processor(folder: Path, kind: str) -> _Processor:
    found, source = _section(folder, "image_processor")
    family = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[kind]
    named = found.get("image_processor_type") or found.get("feature_extractor_type") or f"{family}ImageProcessor"
    names = {
        f"{of}{end}": of
        for of in _DEFAULTS
        for end in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil")
        if (of == "Siglip2") == (kind == "siglip2")
    }
    names["CLIPFeatureExtractor"] = "CLIP"
    if not isinstance(named, str) or named not in names:
        shown = json.dumps(named)[:80]
        raise CheckpointError(
            f"{source}: {shown} is a processor that is not supported; supported are {', '.join(names)}"
        )
    check_no_code(source)
    processor = _Processor({**_DEFAULTS[names[named]], **found}, source)
    for name, value in found.items():
        idle = name in _IDLE or (name, value) in (("data_format", "channels_first"), ("do_pad", True))
        if (
            name not in _DEFAULTS[family]
            and name not in _CLIP
            and not idle
            and value is not None
            and value is not False
        ):
            raise processor.error(name, "absent")
    return processor


def image_front(folder: Path, kind: str, vision: Any) -> Pixels:
    """The front of a CLIP or SigLIP; its box says how images are resized and cropped.

    Args:
        folder: the folder of the checkpoint.
        kind: "clip" or "siglip".
        vision: config of the visual tower.

    Raises: CheckpointError: there is no processor, or a field is not supported.
    """
    processor, side = _read_processor(folder, kind), vision.image_size
    size = processor.sides("size", square=processor.fields.get("default_to_square") is True)
    cut = processor.flag("do_center_crop")
    ends = processor.sides("crop_size", square=True) if cut else size
    resized = processor.flag("do_resize")
    if ends != {"height": side, "width": side} or not (resized or cut):
        does = (
            f"crops images to {ends}"
            if cut
            else f"resizes images to {size}"
            if resized
            else "leaves images as they are"
        )
        raise CheckpointError(f"{folder}: its processor {does}; its tower takes {side} x {side}")
    short = size.get("shortest_edge", 0)
    fit = Fit(
        resize="none" if not resized else "short" if short else "squash",
        size=(short, short) if short else (size["height"], size["width"]),
        filter=_read_filter(processor),
    )
    return Pixels(Box(shape=(3, side, side), fit=fit), *_normalisation(processor))


def _read_filter(processor: _Processor) -> Filter:
    filters = processor.fields["resample"]
    if isinstance(filters, bool) or not isinstance(filters, int) or not 0 <= filters < len(_FILTERS):
        raise processor.error("resample", f"0 to {len(_FILTERS) - 1}")
    return _FILTERS[filters]


def _normalisation(processor: _Processor) -> tuple[list[float], list[float]]:
    """The mean and the deviation to normalise values in [0, 1] with."""
    scale = 255 * (processor.number("rescale_factor") if processor.flag("do_rescale") else 1.0)
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if processor.flag("do_normalize"):
        mean, std = processor.channels("image_mean", zero=True), processor.channels("image_std", zero=False)
    return [m / scale for m in mean], [s / scale for s in std]


def patches_front(folder: Path, vision: Any) -> Patches:
    """The front of a SigLIP 2 for any shape of images: the largest square that it takes, cropped from the centre.

    Its own processor keeps the shape of an image; for square ones, both are the same.

    Raises: CheckpointError: there is no processor, or a field is not supported.
    """
    processor = _read_processor(folder, "siglip2")
    patch, most = processor.number("patch_size"), processor.number("max_num_patches")
    if patch != vision.patch_size or not 1 <= most <= 2**14:
        raise CheckpointError(
            f"{processor.source}: {most:g} patches of {patch:g} pixels do not fit a tower for patches of "
            f"{vision.patch_size}"
        )
    side = int(patch) * isqrt(int(most))
    fit = Fit(resize="short", size=(side, side), filter=_read_filter(processor))
    return Patches(Box(shape=(3, side, side), fit=fit), *_normalisation(processor), int(patch))


def audio_front(folder: Path, audio: Any, seconds: float | None) -> ClapWaveform:
    """The front of a CLAP.

    Args:
        folder: the folder of the checkpoint.
        audio: config of the audio tower.
        seconds: length of the waveforms (default: the longest that it takes).

    Raises: CheckpointError, as `image_front`; FieldError: seconds is out of range.
    """
    found, source = _section(folder, "feature_extractor", "audio_processor")
    if found.get("feature_extractor_type", "ClapFeatureExtractor") != "ClapFeatureExtractor":
        shown = json.dumps(found["feature_extractor_type"])[:80]
        raise CheckpointError(f"{source}: {shown} is an extractor that is not supported; ClapFeatureExtractor is")
    for name, value in found.items():
        if name not in _CLAP and name not in _CLAP_IDLE and value is not None and value is not False:
            raise CheckpointError(f"{source}: {name} is {json.dumps(value)[:80]}, which is not supported")
    given = {name: value for name, value in found.items() if name in _CLAP and value is not None}
    _check_extractor(given, audio, source)
    try:
        with quiet():
            extractor = ClapFeatureExtractor(**given)
    except Exception as error:  # numpy may raise anything for numbers that make no filter bank
        raise CheckpointError(f"the feature extractor of {folder} can't be made: {first_line(error)}") from error
    return ClapWaveform(extractor, seconds, fused=audio.enable_fusion)


def _check_extractor(given: Mapping[str, Any], audio: Any, source: Path) -> None:
    """Raises: CheckpointError: a value is out of range, or does not match the tower."""
    ranges = {"feature_size": 1024, "sampling_rate": 2**18, "hop_length": 2**14, "fft_window_size": 2**14}
    for name, most in {**ranges, "max_length_s": 60, "frequency_min": 2**18, "frequency_max": 2**18}.items():
        value = given.get(name, 1)
        least = 0 if name == "frequency_min" else 1
        right = isinstance(value, int if name in ranges else int | float) and not isinstance(value, bool)
        if not right or not least <= value <= most:
            raise CheckpointError(f"{source}: {name} is {json.dumps(value)[:80]}; it must be from {least} to {most}")
    for name, words in {"truncation": ("fusion", "rand_trunc"), "padding": ("repeatpad", "repeat", "pad")}.items():
        if name in given and given[name] not in words:
            raise CheckpointError(
                f"{source}: {name} is {json.dumps(given[name])[:80]}; it must be {' or '.join(words)}"
            )
    fused = given.get("truncation", "fusion") == "fusion"
    if fused != bool(audio.enable_fusion):
        raise CheckpointError(
            f"{source}: truncation is for a tower {'with' if fused else 'without'} fusion; this one is not"
        )
    if given.get("feature_size", 64) != audio.num_mel_bins:
        raise CheckpointError(f"{source}: feature_size is not the {audio.num_mel_bins} mel bins of the tower")
