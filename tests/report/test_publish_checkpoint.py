"""A trained tower as files of transformers and of open_clip: both give the run's embeddings."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fake_hub
import pytest
import torch
from commands import Call, fails
from languagebind_models import VISION, WORDS, write_checkpoint, write_run
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

from rlbench.core.errors import CheckpointError
from rlbench.encoders.clip import export
from rlbench.encoders.clip.fronts import Pixels
from rlbench.encoders.clip.towers import TextSizes, VisionSizes
from rlbench.encoders.languagebind import LanguageBind, languagebind
from rlbench.encoders.models import load_encoder
from rlbench.report.publish import checkpoint
from rlbench.report.publish.checkpoint import compare_libraries, export_run

ODD = replace(VISION, mlp=85, heads=2, activation="quick_gelu", eps=1e-3)
B32 = VisionSizes(hidden=768, mlp=3072, layers=12, heads=12, patch=32, projection=512)
B32_TEXT = {"hidden": 512, "mlp": 2048, "layers": 12, "heads": 8, "positions": 77}


def run_of(folder: Path, modality: str, vision: VisionSizes = VISION, **text: int) -> Path:
    source = write_checkpoint(folder / "source", modality, vision=vision, **text)
    config = json.loads((source / "config.json").read_text())
    for section in config.values():
        if isinstance(section, dict):
            section |= {"hidden_act": vision.activation, "layer_norm_eps": vision.eps}
    if modality == "audio":
        config["vision_config"] |= {"num_mel_bins": vision.height, "target_length": vision.width}
    (source / "config.json").write_text(json.dumps(config))
    return write_run(folder / "run", modality, source)


def embed_by_transformers(folder: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    model, tokenizer = CLIPModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(WORDS, return_tensors="pt", padding="max_length", truncation=True)
    found = model.get_image_features(pixel_values=x), model.get_text_features(**ids)
    assert float(model.logit_scale.exp()) == pytest.approx(100)
    return normalize(found[0].pooler_output, dim=-1), normalize(found[1].pooler_output, dim=-1)


def embed_by_open_clip(folder: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    library = pytest.importorskip("open_clip")
    model = library.create_model(f"local-dir:{folder}", require_pretrained=True)
    ids = library.get_tokenizer(f"local-dir:{folder}")(WORDS)
    assert float(model.logit_scale.exp()) == pytest.approx(100)
    return model.encode_image(x, normalize=True), model.encode_text(ids, normalize=True)


def check_round_trip(run: Path, out: Path, modality: str) -> None:
    """Loads the files without rlbench, by each library's own functions."""
    made = export_run(run, out, "me/tower", modality=None)
    encoder = load_encoder(str(run))
    assert isinstance(encoder, LanguageBind)
    tower = encoder.tower(modality)
    x = torch.rand(3, 3, *tower.front.box.shape[1:], generator=torch.Generator().manual_seed(1))
    expected = normalize(tower.vision(Pixels(tower.front.box)(x)), dim=-1), encoder.embed_text(WORDS)
    libraries = [embed_by_transformers] + [embed_by_open_clip] * (find_spec("open_clip") is not None)
    for embed in libraries:
        with torch.no_grad():
            found = embed(out, Pixels(tower.front.box)(x))
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() < 1e-5
    assert made.modality == modality and len(made.differences) == len(libraries)
    assert max(made.differences.values()) < 1e-5


@pytest.mark.parametrize(("modality", "vision"), [("image", VISION), ("thermal", ODD)])
def test_a_run_goes_through_both_libraries_and_back(tmp_path, modality, vision) -> None:
    run = run_of(tmp_path, modality, vision, mlp=31)
    check_round_trip(run, tmp_path / "out", modality)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: open_clip" in card and 'from_pretrained("me/tower")' in card and "seed: 3" in card


@pytest.mark.slow
def test_a_random_vit_b_32_goes_through_both_libraries_and_back(tmp_path) -> None:
    check_round_trip(run_of(tmp_path, "image", B32, **B32_TEXT), tmp_path / "out", "image")


def test_the_names_and_shapes_are_those_of_open_clip_s_own_vit_b_32() -> None:
    """Counted from its architecture: 12 blocks of 12 tensors in each tower, and 14 others."""
    with torch.device("meta"):
        from rlbench.encoders.clip.towers import TextTower, VisionTower

        text = TextSizes(projection=512, **B32_TEXT)
        state = {**VisionTower(B32).state_dict(), **TextTower(text).state_dict(), "logit_scale": torch.tensor(0.0)}
        found = export.open_clip_weights(state)
    assert len(found) == 2 * 12 * 12 + 14 and sum(value.numel() for value in found.values()) == 151_277_313
    assert found["visual.transformer.resblocks.11.attn.in_proj_weight"].shape == (2304, 768)
    assert found["visual.proj"].shape == (768, 512) and found["text_projection"].shape == (512, 512)


def test_an_attention_of_open_clip_is_torch_s_own(tmp_path) -> None:
    """open_clip's blocks hold torch's MultiheadAttention, whose matrix has queries, keys and values in this order."""
    encoder = languagebind(files={"image": write_checkpoint(tmp_path, "image")})
    vision = encoder.tower("image").vision
    found = export.open_clip_weights(export.transformers_weights(vision, encoder.text.tower, 100.0))
    block = "visual.transformer.resblocks.1.attn."
    attention = torch.nn.MultiheadAttention(VISION.hidden, VISION.heads, batch_first=True)
    attention.load_state_dict({k.removeprefix(block): v for k, v in found.items() if k.startswith(block)})
    h = torch.randn(2, 5, VISION.hidden, generator=torch.Generator().manual_seed(0))
    own = vision.vision_model.encoder.layers[1].self_attn(h)[0]
    assert torch.allclose(attention(h, h, h, need_weights=False)[0], own, atol=1e-6) and own.abs().max() > 1e-3


@pytest.mark.parametrize("hidden", [24, 60, 768, 1280])
def test_the_ratio_gives_every_width_back(hidden) -> None:
    for mlp in range(1, 6 * hidden, 7):
        ratio = export._ratio(TextSizes(hidden=hidden, mlp=mlp))
        assert int(hidden * ratio) == mlp


def test_a_difference_is_an_error(tmp_path, monkeypatch) -> None:
    run, out = run_of(tmp_path, "image"), tmp_path / "out"
    monkeypatch.setattr(export, "processor_config", lambda side: {"image_mean": [0.5] * 3, "crop_size": side})
    with pytest.raises(CheckpointError, match=r"loaded by transformers, differs from the run by \d.*e-\d\d"):
        export_run(run, out, "me/tower")
    monkeypatch.setattr(checkpoint, "TOLERANCE", 1.0)
    encoder = load_encoder(str(run))
    assert isinstance(encoder, LanguageBind) and compare_libraries(encoder, "image", out)["transformers"] > 1e-3


def test_what_can_not_be_expressed_says_why(tmp_path, call: Call) -> None:
    video = run_of(tmp_path / "v", "video", replace(VISION, frames=4))
    target = ("--repo", "me/tower", "--dry-run", "--out", tmp_path / "out")
    fails(call("push", "model", video, *target), "attention over the frames of a video", "run folder itself")
    small = write_run(tmp_path / "m", "thermal", None)
    fails(call("push", "model", small, *target), "convolutional stem and hashed text", "hf upload OWNER/NAME FOLDER")
    wide = run_of(tmp_path / "a", "audio", replace(VISION, width=70, height=28))
    fails(call("push", "model", wide, *target), "inputs of 28 x 70, which are not square")
    fails(call("push", "model", tmp_path / "a", *target), "is not the folder of a training run", "card.yaml")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.yaml").write_text("method: fare\n")
    fails(call("push", "model", tmp_path / "half", *target), "not finished", "resume it with rlbench train")
    (wide / "vit-audio.safetensors").unlink()
    fails(call("push", "model", wide, *target), "vit-audio.safetensors, which is missing")
    fails(call("push", "model", wide, "--repo", "tower", "--dry-run"), "it must be OWNER/NAME")


def test_the_command_says_what_it_checked(tmp_path, call: Call) -> None:
    run = run_of(tmp_path, "thermal")
    result = call(
        "push", "model", run, "--repo", "me/tower", "--license", "mit", "--dry-run", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"transformers: loads it, embeddings equal within \d\.\de[-+]0\d", result.stdout)
    assert "open_clip: " in result.stdout and "license: mit" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "open_clip_config.json").is_file()


def test_a_pull_request_has_both_file_sets_and_keeps_a_card(tmp_path, call: Call, monkeypatch) -> None:
    run = run_of(tmp_path, "image")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    (tmp_path / "remote").mkdir()
    with fake_hub.serve(tmp_path / "cache", monkeypatch) as hub:
        hub.repos["me/tower"] = (tmp_path / "remote", ["c" * 40])
        assert call("push", "model", run, "--repo", "me/tower").exit_code == 0
        (tmp_path / "remote" / "README.md").write_text("# Mine\n")
        assert call("push", "model", run, "--repo", "me/tower").exit_code == 0
    first, second = hub.commits
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= set(first)
    assert {"open_clip_config.json", "open_clip_model.safetensors"} <= set(first)
    assert set(first) - set(second) == {"README.md"}
    config = json.loads(first["open_clip_config.json"])
    assert config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "me/tower"
