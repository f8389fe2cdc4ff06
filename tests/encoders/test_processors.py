"""A checkpoint's preparation of images and sounds against transformers' own processors, field by field."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hub_models import PROCESSORS, SIDES, checkpoint, write_extractor, write_processor
from PIL import Image
from torchvision_rules import reference
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from rlbench.core.box import Box, Fill, Fit
from rlbench.core.errors import CheckpointError
from rlbench.core.media.sounds import audio
from rlbench.core.media.stills import pixels
from rlbench.encoders.clip.hf_processor import audio_front, image_front
from rlbench.encoders.models import load_encoder

THEIRS = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}
TOWER = SimpleNamespace(image_size=28)
EARS = SimpleNamespace(num_mel_bins=16, enable_fusion=False)
SQUARE = {"size": SIDES, "do_center_crop": False}


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture, so that a shift by a pixel matters and a rounded level does not."""
    noise = np.random.default_rng(width).integers(0, 256, (6, 6, 4), dtype=np.uint8)
    return Image.fromarray(noise[..., :3]).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("clip", {}),
        ("clip", {"size": 28, "crop_size": 28}),
        ("clip", {"size": {"shortest_edge": 33}}),
        ("clip", {"size": {"height": 40, "width": 31}}),
        ("clip", {"size": [32, 30]}),
        ("clip", {"size": {"shortest_edge": 20}}),
        ("clip", {"do_resize": False}),
        ("clip", {"resample": 0}),
        ("clip", {"resample": 1}),
        ("clip", {"resample": 2}),
        ("clip", {"resample": 4}),
        ("clip", {"resample": 5}),
        ("clip", SQUARE),
        ("clip", {"do_rescale": False, "do_normalize": False}),
        ("clip", {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]}),
        ("clip", {"do_normalize": False}),
        ("clip", {"do_rescale": False, "image_mean": [90.0, 100.0, 110.0], "image_std": [60.0, 61.0, 62.0]}),
        ("clip", {**SQUARE, "do_center_crop": None, "do_pad": False, "crop_size": None}),
        ("clip", {"image_processor_type": "SiglipImageProcessor", **SQUARE}),
        ("siglip", {}),
        ("siglip", {"resample": 2}),
        ("siglip", {"size": {"height": 32, "width": 48}, "do_center_crop": True, "crop_size": SIDES}),
        ("siglip", {"image_mean": [0.1, 0.2, 0.3], "rescale_factor": 0.01}),
        ("siglip", {"image_processor_type": "CLIPImageProcessorFast", "crop_size": SIDES, "size": 30}),
        ("siglip", {"data_format": "channels_first", "device": None, "do_convert_rgb": True, "disable_grouping": None}),
    ],
)  # fmt: skip
def test_pictures_are_prepared_as_by_the_checkpoint_s_own_processor(tmp_path, kind, fields) -> None:
    fields = {**PROCESSORS[kind], **fields}
    write_processor(tmp_path, **fields)
    front = image_front(tmp_path, kind, TOWER)
    family = "siglip" if "Siglip" in fields.get("image_processor_type", kind.title()) else "clip"
    theirs = THEIRS[family](**{k: v for k, v in fields.items() if k != "image_processor_type"})
    for size in ((84, 84), (61, 37), (37, 61), (20, 90), (91, 13), (28, 28), (29, 28)):
        for mode in ("RGB", "L", "P", "RGBA"):
            one = picture(*size, mode)
            expected = theirs(one.convert("RGB"), return_tensors="pt")["pixel_values"]
            found = front(torch.from_numpy(pixels(one, front.box))[None])
            torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"longest_edge": 28}}, "size is .* which is not supported; it must be height and width, or"),
        ({"size": {"shortest_edge": 28, "longest_edge": 40}}, "size is"),
        ({"size": {"height": 28}}, "size is"),
        ({"size": {"height": 0, "width": 28}}, "whole pixels"),
        ({"size": {"height": 10**9, "width": 28}}, "whole pixels"),
        ({"size": "28"}, "size is"),
        ({"crop_size": {"shortest_edge": 28}}, "crop_size is .* it must be height and width"),
        ({"do_center_crop": False}, "its processor resizes images .*'shortest_edge': 28.*; its tower takes 28 x 28"),
        ({"do_center_crop": False, "do_resize": False, "size": SIDES}, "leaves images as they are"),
        ({"crop_size": 32}, "crops images to .*32"),
        ({"resample": 6}, "resample is 6"),
        ({"resample": "bicubic"}, "resample is"),
        ({"do_normalize": "yes"}, "do_normalize is"),
        ({"do_rescale": 1}, "do_rescale is 1"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"rescale_factor": float("nan")}, "rescale_factor is NaN"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is"),
        ({"image_mean": None}, "image_mean is null"),
        ({"image_mean": [10**400, 0, 0]}, "image_mean is"),
        ({"resample": None}, "resample is null"),
        ({"image_mean": ["a", 0.5, 0.5]}, "image_mean is"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order is true, which is not supported; it must be absent"),
        ({"rescale_offset": True}, "rescale_offset is true"),
        ({"do_pad": True, "pad_size": SIDES}, "pad_size is"),
        ({"crop_pct": 0.9}, "crop_pct is 0.9"),
        ({"do_thumbnail": True}, "do_thumbnail is"),
        ({"data_format": "channels_last"}, "data_format is"),
        ({"image_processor_type": "ViTImageProcessor"}, "not supported; supported are CLIPImageProcessor"),
        ({"image_processor_type": ["CLIPImageProcessor"]}, "a processor that is not supported"),
        ({"auto_map": {"AutoImageProcessor": "code.Mine"}}, "names code of the checkpoint"),
    ],
)  # fmt: skip
def test_an_unsupported_field_is_refused_by_name(tmp_path, fields, message) -> None:
    write_processor(tmp_path, **{**PROCESSORS["clip"], **fields})
    with pytest.raises(CheckpointError, match=message):
        image_front(tmp_path, "clip", TOWER)


def test_where_a_processor_is_described(tmp_path) -> None:
    """New releases nest it in processor_config.json, which takes precedence; without any, it is an error."""
    write_processor(tmp_path, **PROCESSORS["siglip"], resample=2)
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": {**PROCESSORS["siglip"], "resample": 1}})
    )
    assert image_front(tmp_path, "siglip", TOWER).box.fit == Fit(resize="squash", size=(28, 28), filter="lanczos")
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    assert image_front(tmp_path, "siglip", TOWER).box.fit.filter == "bilinear"
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="so the preparation of its inputs is not known"):
        image_front(tmp_path, "siglip", TOWER)
    for wrong in ('{"image_processor": []}', "[]", "{", "nul", "\udc80", "[" * 10**5):
        (tmp_path / "processor_config.json").write_text(wrong, errors="surrogatepass")
        with pytest.raises(CheckpointError, match=r"processor_config\.json"):
            image_front(tmp_path, "siglip", TOWER)


@pytest.mark.parametrize("resize", ["short", "cover", "contain", "squash", "none"])
def test_fitting_equals_resizing_the_whole_picture_then_cropping(resize, monkeypatch) -> None:
    """Equal to torchvision's steps on the whole image, also where only the crop is computed."""
    for size in ((84, 84), (61, 37), (37, 61), (20, 90), (91, 13)):
        for centre in ("down", "even"):
            fit = Fit(resize=resize, size=(25, 30), centre=centre, fill=7)
            found, expected = (np.asarray(one(picture(*size))).astype(int) for one in (
                lambda p, fit=fit: fit(p, 24, 31), lambda p, fit=fit: reference(p, 24, 31, fit)
            ))  # fmt: skip
            assert found.shape == expected.shape == (24, 31, 3)
            assert (found == expected).all(), (size, centre)
            with monkeypatch.context() as patched:
                patched.setattr("rlbench.core.box._WHOLE", 0)
                assert abs(np.asarray(fit(picture(*size), 24, 31)) - expected).max() <= 2, (size, centre)


def test_a_long_picture_is_not_resized_as_a_whole() -> None:
    """An image of 1 x 60,000 pixels, resized to a short side of 28, would have 141 million values."""
    fit = Fit(resize="short", size=(28, 28))
    assert fit(Image.new("RGB", (60_000, 1), (9, 9, 9)), 28, 28).getextrema() == ((9, 9),) * 3


def test_a_box_names_everything_that_its_examples_depend_on() -> None:
    short, none = Fit(resize="short", size=(1, 1)), Fit(resize="none", size=(1, 1))
    fits = (None, short, none, Fill(padding="pad"), Fill(padding="repeat"))
    assert len({json.dumps(Box(shape=(3, 28, 28), fit=fit).facts()) for fit in fits}) == 5
    assert Box(shape=(3, 28, 28)).facts() == [[3, 28, 28], 0.0, 1.0, "intensity"]


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.0])
def test_a_short_recording_is_filled_as_clap_fills_it(tmp_path, padding, seconds) -> None:
    import soundfile

    theirs = write_extractor(tmp_path, truncation="rand_trunc", padding=padding, frequency_min=40, hop_length=100)
    front = audio_front(tmp_path, EARS, None)
    wave = (0.3 * np.random.default_rng(0).standard_normal(int(seconds * 8000))).clip(-1, 1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    x = 2 * torch.from_numpy(audio(tmp_path / "a.wav", front.box, rate=8000, seconds=1.0))[None] - 1
    expected = theirs(wave, sampling_rate=8000, return_tensors="pt")["input_features"].float()
    torch.testing.assert_close(front(x), expected, atol=2e-2, rtol=0)  # dB; silence has the most noise


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feature_size": 32}, "feature_size is not the 16 mel bins"),
        ({"truncation": "fusion"}, "truncation is for a tower with fusion"),
        ({"truncation": "cut"}, "truncation is .*fusion or rand_trunc"),
        ({"padding": "zero"}, "padding is"),
        ({"sampling_rate": 10**12}, "sampling_rate is"),
        ({"sampling_rate": "8000"}, "sampling_rate is"),
        ({"hop_length": 0}, "hop_length is 0"),
        ({"max_length_s": -1}, "max_length_s is"),
        ({"max_length_s": True}, "max_length_s is true"),
        ({"fft_window_size": 1.5}, "fft_window_size is 1.5"),
        ({"frequency_max": [1]}, "frequency_max is"),
        ({"frequency_min": 5000}, "can't be made"),
        ({"preemphasis": 0.97}, "preemphasis is 0.97, which is not supported"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "an extractor that is not supported"),
    ],
)
def test_an_unsupported_audio_field_is_refused_by_name(tmp_path, fields, message) -> None:
    write_extractor(tmp_path, truncation="rand_trunc")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(CheckpointError, match=message):
        audio_front(tmp_path, EARS, None)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_whole_pictures_embed_as_in_the_checkpoint_s_own_pipeline(tmp_path, kind) -> None:
    model = checkpoint(tmp_path, kind, resample=2)
    encoder, theirs = load_encoder(f"hf:{tmp_path}", "image"), THEIRS[kind](**PROCESSORS[kind], resample=2)
    shown = [picture(84, 84), picture(112, 56), picture(56, 112), picture(31, 200)]
    x = torch.stack([torch.from_numpy(pixels(one, encoder.boxes["image"])) for one in shown])
    with torch.no_grad():
        expected = model.get_image_features(**theirs(shown, return_tensors="pt")).pooler_output
    found = encoder.embed(x, "image")
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.9999
    assert (found @ found.T).min() < 0.999
