"""Encoders of open_clip against its own pipeline; they need the extra `open-clip`, which CI installs only for them."""

from __future__ import annotations

import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision_operators  # noqa: F401
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from rlbench.core.errors import CheckpointError, RLBenchError, UnknownName
from rlbench.core.media.stills import pixels
from rlbench.encoders.loading import check_frozen
from rlbench.encoders.models import load_encoder

PROMPTS = ["a photo of a dog.", "a photo of a cat.", "an owl"]
SIZES = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "head_width": 32, "patch_size": 7},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CUT = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("open_clip")


def write_checkpoint(folder: Path, library: Any, **config: object) -> Path:
    """Writes a tiny checkpoint with random weights, laid out as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"model_cfg": {**SIZES, **config}, "preprocess_cfg": CUT}
    (folder / "open_clip_config.json").write_text(json.dumps(fields))
    bias = {"init_logit_bias": -10.0} if config.get("init_logit_bias") else {}
    torch.manual_seed(0)
    model = library.CLIP(**{**SIZES, **bias})
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize("biased", [False, True])
def test_open_clip_gives_the_logits_of_its_own_pipeline(tmp_path, library, biased) -> None:
    config = {"init_logit_bias": -10.0} if biased else {}
    folder = write_checkpoint(tmp_path, library, **config)
    encoder = load_encoder(f"open_clip:local-dir:{folder}", "image")
    model, _, processor = library.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
    pixels = torch.stack([processor(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        expected = model.get_logits(pixels, library.get_tokenizer(f"local-dir:{folder}")(PROMPTS))[0]
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).requires_grad_()
    embedded = encoder.embed(x, "image")
    found = encoder.logit_scale * embedded @ encoder.embed_text(PROMPTS).T + encoder.logit_bias
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert encoder.logit_bias == (-10 if biased else 0) and expected.std() > 1e-3
    (gradient,) = torch.autograd.grad(embedded[:, 0].sum(), x)
    assert gradient.isfinite().all() and (gradient != 0).flatten(1).any(1).all()
    check_frozen(encoder, "it")


def test_a_wrong_open_clip_folder_is_refused(tmp_path, library) -> None:
    folder = write_checkpoint(tmp_path, library)
    path = folder / "open_clip_model.safetensors"
    weights, data = load_file(path), path.read_bytes()
    for wrong in (
        {k: v for k, v in weights.items() if k != "visual.proj"},
        {**weights, "extra": torch.ones(1)},
        {**weights, "visual.proj": torch.ones(3, 3)},
        {**weights, "visual.proj": weights["visual.proj"] * float("nan")},
    ):
        save_file(wrong, path)
        with pytest.raises(CheckpointError) as caught:
            load_encoder(f"open_clip:local-dir:{folder}", "image")
        assert "\n" not in str(caught.value)
    path.write_bytes(data[:-9])
    with pytest.raises(CheckpointError, match="can't be read, or is truncated"):
        load_encoder(f"open_clip:local-dir:{folder}", "image")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"has no weights; it must have open_clip_model\.safetensors or"):
        load_encoder(f"open_clip:local-dir:{folder}", "image")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"interpolation": "bilinear"},
        {"interpolation": "random"},
        {"resize_mode": "squash", "interpolation": "bilinear"},
        {"resize_mode": "longest", "fill_color": 120},
        {"resize_mode": "longest", "interpolation": "bilinear"},
        {"mean": 0.5, "std": 0.25, "unknown": 3},
        {"resize_mode": None, "fill_color": 9},
    ],
)
def test_pictures_are_prepared_as_by_open_clip(tmp_path, library, fields) -> None:
    _preprocess(write_checkpoint(tmp_path, library), **fields)
    encoder = load_encoder(f"open_clip:local-dir:{tmp_path}", "image")
    theirs = library.create_model_and_transforms(f"local-dir:{tmp_path}")[2]
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    for size in ((84, 84), (61, 37), (37, 61), (20, 90), (91, 13), (29, 28)):
        one = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        found = encoder.front(torch.from_numpy(pixels(one, encoder.boxes["image"]))[None])[0]
        torch.testing.assert_close(found, theirs(one), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_a_size_that_is_no_square_is_prepared_as_by_open_clip(library, mode) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from rlbench.encoders.openclip import make_front

    fields = {"size": (20, 32), "mean": (0.4,) * 3, "std": (0.2,) * 3, "resize_mode": mode, "interpolation": "bilinear"}
    front, theirs = make_front(fields), image_transform_v2(PreprocessCfg(**fields), is_train=False)
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    for size in ((84, 84), (61, 37), (37, 61), (20, 90), (91, 13)):
        one = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        found = front(torch.from_numpy(pixels(one, front.box))[None])[0]
        torch.testing.assert_close(found, theirs(one), atol=1e-5, rtol=1e-5)


def _preprocess(folder: Path, **fields: object) -> None:
    path = folder / "open_clip_config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "preprocess_cfg": {**whole["preprocess_cfg"], **fields}}))


def _model(folder: Path, **fields: object) -> None:
    path = folder / "open_clip_config.json"
    whole = json.loads(path.read_text())
    towers = {key: {**SIZES[key], **value} if isinstance(value, dict) else value for key, value in fields.items()}
    path.write_text(json.dumps({**whole, "model_cfg": {**whole["model_cfg"], **towers}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: _preprocess(f, interpolation="lanczos"), "interpolation is 'lanczos', which is not supported"),
        (lambda f: _preprocess(f, resize_mode="pad"), "resize_mode is 'pad', which is not supported"),
        (lambda f: _preprocess(f, mean=[0.5]), "mean is .*three numbers"),
        (lambda f: _preprocess(f, std=[0.5, 0, 0.5]), "must not hold 0"),
        (lambda f: _preprocess(f, resize_mode="longest", fill_color=300), "fill_color is 300"),
        (lambda f: _preprocess(f, mode="L"), "mode is 'L', which is not supported"),
        (
            lambda f: _model(f, text_cfg={"tokenizer_kwargs": {"trust_remote_code": True}}),
            "trust_remote_code of its tok",
        ),
        (lambda f: _model(f, text_cfg={"tokenizer_kwargs": {"reduction_mask": "random"}}), "reduction_mask of its tok"),
        (lambda f: _model(f, text_cfg={"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}), "bpe_path of its tokenizer"),
        (lambda f: _model(f, text_cfg={"layers": 10**9}), "describes a larger model than"),
        (lambda f: _model(f, vision_cfg={"width": 10**9}), "describes a larger model than"),
        (lambda f: _model(f, text_cfg={"vocab_size": 10**6}), "describes a larger model than"),
        (lambda f: _model(f, vision_cfg={"width": -64}), "can't load"),
        (lambda f: _model(f, text_cfg=[]), "must have a model_cfg with a text_cfg"),
        (lambda f: (f / "open_clip_config.json").write_text("[]"), "must hold a JSON object"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"auto_map": {"a": "b.C"}}'), "names code of the checkp"),
    ],
)
def test_an_unsupported_config_is_refused_with_one_line(tmp_path, library, change, message) -> None:
    change(write_checkpoint(tmp_path, library))
    with pytest.raises(CheckpointError, match=message):
        load_encoder(f"open_clip:local-dir:{tmp_path}", "image")


def test_a_pickle_with_code_is_refused_without_advice(tmp_path, library) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return print, ("this must never be printed",)

    (write_checkpoint(tmp_path, library) / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": {"a": Code()}}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"is refused: it holds code \(print\)"):
        load_encoder(f"open_clip:local-dir:{tmp_path}", "image")


def test_the_hub_and_the_library_s_list(tmp_path, library, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    revision = 40 * "a"
    name = f"open_clip:hf-hub:chs20/fare2-clip@{revision}"
    with pytest.raises(CheckpointError, match="run: hf download chs20/fare2-clip --revision"):
        load_encoder(name, "image")
    write_checkpoint(tmp_path / "models--chs20--fare2-clip" / "snapshots" / revision, library)
    assert load_encoder(name, "image").boxes["image"].shape == (3, 28, 28)
    with pytest.raises(UnknownName, match="no open_clip architecture named 'ViT-B-33'"):
        load_encoder("open_clip:ViT-B-33/openai", "image")
    with pytest.raises(UnknownName, match="no tag of open_clip's ViT-B-32 named 'opena'; did you mean 'openai'"):
        load_encoder("open_clip:ViT-B-32/opena", "image")


def test_the_activation_of_a_tag_is_used(tmp_path, library, monkeypatch) -> None:
    """OpenAI's weights under an architecture of another activation: open_clip itself only warns."""
    from open_clip import factory

    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", {**SIZES})
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in library.CLIP(**SIZES).state_dict().items()}, tmp_path / "w.safetensors")
    tags = {"tiny": {"mine": {"file": str(tmp_path / "w.safetensors"), "quick_gelu": True}}}
    monkeypatch.setattr("open_clip.pretrained._PRETRAINED", tags)
    encoder = load_encoder("open_clip:tiny/mine", "image")
    quick = library.create_model("tiny", force_quick_gelu=True, pretrained=str(tmp_path / "w.safetensors")).eval()
    x = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = quick.encode_image(encoder.front(x), normalize=True)
        plain = library.create_model("tiny", pretrained=str(tmp_path / "w.safetensors")).eval()
        assert (plain.encode_image(encoder.front(x), normalize=True) - expected).abs().max() > 1e-3
    torch.testing.assert_close(encoder.embed(x, "image"), expected)


def test_an_incompatible_torchvision_gives_one_clear_line(monkeypatch) -> None:
    """Where transformers can't be imported because of it."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RLBenchError, match=r"^transformers can't be imported .* the same build as torch: uninstall it"):
        runpy.run_path(find_spec("rlbench.encoders.clip.towers").origin)


def test_without_the_library_the_error_is_one_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(RLBenchError, match=r"pip install 'rlbind-bench\[open-clip\]'"):
        load_encoder("open_clip:ViT-B-32/openai", "image")


def test_the_layout_of_fare(tmp_path, library) -> None:
    """A pickle of the whole model, and quick_gelu as a text, which open_clip takes for true."""
    folder = write_checkpoint(tmp_path / "a", library, quick_gelu="TRUE")
    torch.save(load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_model.safetensors").unlink()
    write_checkpoint(tmp_path / "b", library, quick_gelu=True)
    write_checkpoint(tmp_path / "c", library)
    x = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = [load_encoder(f"open_clip:local-dir:{tmp_path / name}", "image").embed(x, "image") for name in "abc"]
    assert torch.equal(found[0], found[1]) and (found[0] - found[2]).abs().max() > 1e-4
