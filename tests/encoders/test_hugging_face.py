"""Encoders of other libraries against those libraries' own pipelines, on tiny random models in folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from hub_models import PROCESSORS, checkpoint, clap, clip, siglip, write_extractor, write_processor, write_tokenizer
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ClapFeatureExtractor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from rlbench.core import Encoder, registry
from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.encoders.clip.clap_front import ClapWaveform
from rlbench.encoders.identity import identify
from rlbench.encoders.loading import check_frozen
from rlbench.encoders.models import load_encoder, resolve

PROMPTS = ["a photo of a dog.", "a photo of a cat.", "a sound of rain."]


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)


def to_box(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def logits(encoder: Encoder, x: Tensor) -> Tensor:
    (modality,) = encoder.boxes
    return encoder.logit_scale * encoder.embed(x, modality) @ encoder.embed_text(PROMPTS).T


def check_gradients(encoder: Encoder, x: Tensor) -> None:
    (modality,) = encoder.boxes
    check_frozen(encoder, "it")
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoder.embed(x, modality)[:, 0].sum(), x)
    assert gradient.isfinite().all() and (gradient != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_clip_and_siglip_give_the_logits_of_transformers(tmp_path, kind) -> None:
    model = {"clip": clip, "siglip": siglip}[kind](tmp_path)
    size = {"size": {"height": 28, "width": 28}} | (
        {"crop_size": {"height": 28, "width": 28}} if kind == "clip" else {}
    )
    prepare = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}[kind](**size)
    prepare.save_pretrained(tmp_path)
    tokenizer = write_tokenizer(tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}", "image")
    padding = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
    inputs = prepare([Image.fromarray(image) for image in pictures()], return_tensors="pt")
    text = tokenizer(PROMPTS, return_tensors="pt", **padding)
    with torch.no_grad():
        expected = model(input_ids=text["input_ids"], attention_mask=text["attention_mask"], **inputs)
    found = logits(encoder, to_box(pictures())) + encoder.logit_bias
    torch.testing.assert_close(found, expected.logits_per_image, atol=1e-5, rtol=1e-5)
    assert (encoder.logit_bias == -3) == (kind == "siglip") and expected.logits_per_image.std() > 1e-3
    assert encoder.embed_text([]).shape == (0, encoder.embed_text(["a"]).shape[1])
    check_gradients(encoder, to_box(pictures()))


@pytest.mark.parametrize("fused", [False, True])
def test_clap_gives_the_logits_of_transformers_from_waves(tmp_path, fused) -> None:
    """For whole clips, and for shorter ones, which both repeat; the library computes its spectrogram with numpy."""
    model, tokenizer = clap(tmp_path, fused=fused), write_tokenizer(tmp_path)
    truncation = "fusion" if fused else "rand_trunc"
    extract = write_extractor(tmp_path, truncation=truncation)
    g = torch.Generator().manual_seed(0)
    for samples, seconds in ((8000, None), (2800, 0.35)):
        encoder = registry.make("encoder", "hf:ID", {"source": str(tmp_path), "seconds": seconds})
        box = encoder.boxes["audio"]
        assert (box.shape, box.low, box.high, box.unit, box.rate) == ((1, samples), -1, 1, "waveform", 8000)
        waves = 0.3 * torch.randn(3, 1, samples, generator=g) * torch.linspace(0, 1, samples)
        inputs = extract([wave[0].numpy() for wave in waves], sampling_rate=8000, return_tensors="pt")
        heard = encoder.front(waves)
        torch.testing.assert_close(heard, inputs["input_features"].float(), atol=1e-3, rtol=0)  # dB
        text = tokenizer(PROMPTS, return_tensors="pt", padding=True)
        with torch.no_grad():  # the library marks a random short clip of a batch as longer
            expected = model(
                **text, input_features=inputs["input_features"].float(), is_longer=torch.zeros(3, 1).bool()
            )
        torch.testing.assert_close(logits(encoder, waves), expected.logits_per_audio, atol=1e-5, rtol=1e-5)
        check_gradients(encoder, waves)
    with pytest.raises(FieldError, match=r"seconds is 1.5; this CLAP takes up to 1"):
        registry.make("encoder", "hf:ID", {"source": str(tmp_path), "seconds": 1.5})
    with pytest.raises(ModalityError, match="has no image; it has audio"):
        load_encoder(f"hf:{tmp_path}", "image")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config.json"):
        load_encoder(f"hf:{tmp_path}", "audio")


def test_the_waveform_s_gradient_in_float64(tmp_path) -> None:
    small = ClapFeatureExtractor(
        feature_size=4, sampling_rate=1000, hop_length=20, fft_window_size=64, max_length_s=1, frequency_max=500
    )
    front = ClapWaveform(small, 0.3, fused=False).double()
    x = (0.3 * torch.randn(1, 1, 300, generator=torch.Generator().manual_seed(0))).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: front(v)[:, :, ::7], (x,), fast_mode=True)


def test_the_preparation_is_part_of_a_checkpoint_s_identity(tmp_path) -> None:
    """With the same weights; the path of the folder is not part of it."""
    found = {}
    (tmp_path / "origin").mkdir()
    checkpoint(tmp_path / "origin", "clip")
    for name, fields in {"a": {}, "same": {}, "resample": {"resample": 2}, "mean": {"image_mean": [0.1] * 3}}.items():
        copytree(tmp_path / "origin", tmp_path / name)
        write_processor(tmp_path / name, **{**PROCESSORS["clip"], **fields})
        source = f"hf:{tmp_path / name}"
        found[name] = identify(load_encoder(source), resolve(source), "image")
    assert found["a"] == found["same"] and found["a"] not in (found["resample"], found["mean"])


def test_normalisation_is_the_checkpoint_s_own(tmp_path) -> None:
    model = clip(tmp_path)
    write_tokenizer(tmp_path)
    x = to_box(pictures())
    fields = {"crop_size": 28, "image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 0.5, 0.25]}
    write_processor(tmp_path, **fields)
    mean, std = (torch.tensor(fields[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    expected = model.get_image_features(pixel_values=(x - mean) / std).pooler_output
    found = load_encoder(f"hf:{tmp_path}").embed(x, "image")
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected), atol=1e-6, rtol=0)
    write_processor(tmp_path, **{**fields, "crop_size": {"height": 32, "width": 32}})
    with pytest.raises(CheckpointError, match=r"its processor crops images to .*; its tower takes 28 x 28"):
        load_encoder(f"hf:{tmp_path}")


def _weights(edit: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def _config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


def _pickle_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Code()}, folder / "pytorch_model.bin")


class Code:
    def __reduce__(self) -> tuple:
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_weights(lambda w: w.pop("visual_projection.weight")), r"lacks visual_projection\.weight"),
        (_weights(lambda w: w.update(extra=torch.ones(1))), "has no place for extra"),
        (_weights(lambda w: w.update({"logit_scale": torch.ones(2)})), "has with another shape logit_scale"),
        (_weights(lambda w: w["text_projection.weight"].fill_(float("nan"))), "not finite: text_projection"),
        (_config(model_type="bert"), "is a model of type 'bert'; hf: takes clip, siglip, clap, siglip2 and"),
        (_pickle_code, r"pytorch_model\.bin is refused: it holds code \(print\)"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer: it needs one of vocab.json"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json can't be read"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
            r"model\.safetensors can't be read, or is truncated",
        ),
    ],
)
def test_a_wrong_folder_is_refused(tmp_path, capsys, change, message) -> None:
    checkpoint(tmp_path)
    capsys.readouterr()
    load_encoder(f"hf:{tmp_path}", "image")
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(f"hf:{tmp_path}", "image")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_the_hub_is_contacted_only_when_needed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    revision = 40 * "a"
    model = resolve(f"hf:mine/clip@{revision}")
    assert (model.family, model.backbone, model.modalities) == ("hf:ID", f"mine/clip@{revision}", ())
    with pytest.raises(CheckpointError, match=f"run: hf download mine/clip --revision {revision};"):
        load_encoder(model.name)
    cached = tmp_path / "models--mine--clip" / "snapshots" / revision
    cached.mkdir(parents=True)
    checkpoint(cached)
    encoder = load_encoder(model.name, "image")
    assert encoder.sha256 == {"image": sha256((cached / "model.safetensors").read_bytes()).hexdigest()}
    with pytest.raises(CheckpointError, match=r"^facebook/imagebind-huge: transformers has no ImageBind; .*imagebind:"):
        load_encoder("hf:facebook/imagebind-huge")
    with pytest.raises(CheckpointError, match="there is no folder nowhere"):
        load_encoder("hf:./nowhere")
