"""The loader of published checkpoints: it equals the original code, and refuses what is wrong."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core.errors import CheckpointError, DataError
from rlbench.encoders.clip.towers import TextSizes, VisionSizes, random_weights
from rlbench.encoders.languagebind import Checkpoint, load_checkpoint

CASES = ["image", "thermal_lora", "audio_ft", "video_ft", "video_lora"]
TEXT = TextSizes(hidden=32, mlp=64, layers=2, heads=4, vocabulary=64, positions=16, projection=24)
VISION = VisionSizes(hidden=64, mlp=96, layers=2, heads=4, patch=7, height=28, width=28, projection=24)
LAYERS = "vision_model.encoder.layers"
WRAPPED = "vision_model.encoder.base_model.model.layers"


def outputs(found: Checkpoint, io: Mapping[str, Tensor]) -> dict[str, Tensor]:
    image = found.image_features(io["pixel_values"])
    text = found.text_features(io["input_ids"], io["attention_mask"])
    logits = found.logit_scale * normalize(image) @ normalize(text).T
    return {"image_features": image, "text_features": text, "logits_per_image": logits}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_the_towers_equal_the_original_code(originals, case, attention) -> None:
    found, io = load_checkpoint(originals / case, attention=attention), load_file(originals / case / "io.safetensors")
    assert found.modality == case.split("_")[0]
    for name, value in outputs(found, io).items():
        torch.testing.assert_close(value, io[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["thermal_lora", "video_lora"])
def test_the_other_naming_of_peft_and_a_bin_give_the_same(originals, case, tmp_path) -> None:
    weights = load_file(originals / case / "model.safetensors")
    lora = {name.rsplit(".lora_A", 1)[0] for name in weights if ".lora_A" in name}
    renamed = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        renamed[f"{module}.base_layer.{kind}" if module in lora else name] = value
    assert renamed.keys() != weights.keys()
    torch.save(renamed, tmp_path / "pytorch_model.bin")
    shutil.copy(originals / case / "config.json", tmp_path)
    io = load_file(originals / case / "io.safetensors")
    for name, value in outputs(load_checkpoint(tmp_path), io).items():
        torch.testing.assert_close(value, io[name], atol=1e-5, rtol=1e-5)


def config_of(modality: str, sizes: VisionSizes, **vision: object) -> dict:
    section = {"hidden_size": sizes.hidden, "num_attention_heads": sizes.heads, "patch_size": sizes.patch, "lora_r": 0}
    return {
        "architectures": [f"LanguageBind{modality.title()}"],
        "text_config": {"num_attention_heads": TEXT.heads},
        "vision_config": {**section, **vision},
    }


def weights_of(sizes: VisionSizes) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    weights = {**random_weights(sizes, g), **random_weights(TEXT, g), "logit_scale": torch.tensor(2.0)}
    return {**weights, "text_model.embeddings.position_ids": torch.arange(16)[None]}


def with_lora(weights: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    wrapped = {name.replace(LAYERS, WRAPPED): value for name, value in weights.items()}
    for layer in range(VISION.layers):
        for module in ("q_proj", "v_proj"):
            for factor, shape in (("A", (rank, VISION.hidden)), ("B", (VISION.hidden, rank))):
                name = f"{WRAPPED}.{layer}.self_attn.{module}.lora_{factor}.default.weight"
                wrapped[name] = 0.1 * torch.randn(shape, generator=g)
    return wrapped


def write_checkpoint(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_lora_is_added_with_alpha_over_rank(tmp_path) -> None:
    weights = with_lora(weights_of(VISION), 4)
    folder = write_checkpoint(tmp_path, weights, config_of("thermal", VISION, lora_r=4, lora_alpha=6))
    found = load_checkpoint(folder).vision.state_dict()
    name = "layers.1.self_attn.v_proj"
    a, b = (weights[f"vision_model.encoder.base_model.model.{name}.lora_{f}.default.weight"] for f in "AB")
    expected = weights[f"vision_model.encoder.base_model.model.{name}.weight"] + 1.5 * b @ a
    torch.testing.assert_close(found[f"vision_model.encoder.{name}.weight"], expected)


def test_a_class_token_per_frame_and_patches_in_three_dimensions(tmp_path) -> None:
    """vl_new, against its definition: equal tokens give the same result as one token for all; different ones do not."""
    sizes = VisionSizes(**{**vars(VISION), "frames": 3})
    weights = weights_of(sizes)
    config = config_of("video", sizes, clip_type="vl_new", add_time_attn=True, num_frames=3)
    plain = load_checkpoint(write_checkpoint(tmp_path / "plain", weights, config))
    name, patches = "vision_model.embeddings.class_embedding", "vision_model.embeddings.patch_embedding.weight"
    new = {**weights, name: weights[name].repeat(3, 1), patches: weights[patches][:, :, None]}
    same = load_checkpoint(write_checkpoint(tmp_path / "same", new, config))
    x = torch.randn(2, 3, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(same.image_features(x), plain.image_features(x))
    new[name][1] = new[name][1].flip(0)
    other = load_checkpoint(write_checkpoint(tmp_path / "other", new, config))
    assert (other.image_features(x) - same.image_features(x)).std() > 0.01
    tubes = {**weights, patches: weights[patches][:, :, None].repeat(1, 1, 2, 1, 1)}
    with pytest.raises(CheckpointError, match="square and span one frame"):
        load_checkpoint(write_checkpoint(tmp_path / "tubes", tubes, config))


def test_a_config_overwritten_by_defaults_is_recognised(tmp_path) -> None:
    """With `vision_config_dict`, one of the sections may describe another tower: the tensors decide."""
    weights, x = weights_of(VISION), torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    right = config_of("image", VISION)
    true = load_checkpoint(write_checkpoint(tmp_path / "true", weights, right)).image_features(x)
    wrong = {"hidden_size": 768, "patch_size": 32, "num_attention_heads": 8, "hidden_act": "quick_gelu", "lora_r": 2}
    half = {"hidden_size": 64, "patch_size": 32, "num_attention_heads": 4, "hidden_act": "quick_gelu", "lora_r": 2}
    sections = right["vision_config"]
    for first, second in ((wrong, sections), (sections, wrong), (half, {}), (half, {"lora_alpha": 16}), (wrong, half)):
        found = load_checkpoint(
            write_checkpoint(
                tmp_path / "trap", weights, {**right, "vision_config": first, "vision_config_dict": second}
            )
        )
        torch.testing.assert_close(found.image_features(x), true)
    lora = with_lora(weights, 4)
    true = load_checkpoint(
        write_checkpoint(tmp_path / "lora", lora, config_of("image", VISION, lora_r=4))
    ).image_features(x)
    trap = {**right, "vision_config": half, "vision_config_dict": {}}
    torch.testing.assert_close(load_checkpoint(write_checkpoint(tmp_path / "lora", lora, trap)).image_features(x), true)
    with pytest.raises(CheckpointError, match="another vision tower: its hidden_size is 768, the weights' 64"):
        load_checkpoint(write_checkpoint(tmp_path / "trap", weights, {**right, "vision_config": wrong}))


def _without(part: str) -> Callable[[dict, dict], None]:
    def edit(weights: dict, config: dict) -> None:
        del weights[next(name for name in weights if part in name)]

    return edit


def _set(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict, dict], None]:
    def edit(weights: dict, config: dict) -> None:
        name = next(name for name in weights if part in name)
        weights[name] = change(weights[name])

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_without("1.self_attn.q_proj.lora_A"), r"lacks .*layers\.1\.self_attn\.q_proj\.lora_A"),
        (_without("0.self_attn.v_proj.lora_B"), r"lacks .*layers\.0\.self_attn\.v_proj\.lora_B"),
        (_without("0.self_attn.v_proj.weight"), r"lacks .*v_proj\.weight, which its LoRA factors add to"),
        (_without("1.mlp.fc2.bias"), r"lacks vision_model\.encoder\.layers\.1\.mlp\.fc2\.bias"),
        (_without("text_model.final_layer_norm.weight"), r"lacks text_model\.final_layer_norm\.weight"),
        (_without("logit_scale"), "lacks logit_scale"),
        (_without("class_embedding"), "lacks .*class_embedding"),
        (lambda w, c: w.update(extra=torch.ones(1)), "has extra, which is not part of it"),
        (_set("0.self_attn.q_proj.lora_A", lambda a: a[:1]), r"the shapes of .*q_proj do not match"),
        (_set("pre_layrnorm.bias", lambda b: b[:-1]), r"pre_layrnorm\.bias of shape \(63,\), not \(64,\)"),
        (_set("1.mlp.fc1.bias", lambda b: b * float("nan")), r"not finite: .*fc1\.bias"),
        (lambda w, c: c["vision_config"].update(lora_r=8), "says lora_r 8; the weights have LoRA factors of rank 4"),
        (lambda w, c: c["vision_config"].update(lora_r=0), "says lora_r 0; the weights have LoRA factors of rank 4"),
        (lambda w, c: c["vision_config"].update(hidden_size=32), "another vision tower: its hidden_size is 32"),
        (lambda w, c: c["text_config"].update(hidden_size=48), "another text tower: its hidden_size is 48"),
        (lambda w, c: c["vision_config"].update(add_time_attn=True), "no attention over time"),
        (lambda w, c: c.update(architectures=["LanguageBindAudio"]), "no mel bins x frames.* 17 positions"),
    ],
)
def test_a_wrong_checkpoint_is_refused(tmp_path, edit, message) -> None:
    weights, config = with_lora(weights_of(VISION), 4), config_of("thermal", VISION, lora_r=4)
    load_checkpoint(write_checkpoint(tmp_path, weights, config))
    edit(weights, config)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(write_checkpoint(tmp_path, weights, config))
    assert "\n" not in str(caught.value)


def test_ranks_layers_and_lost_factors(tmp_path) -> None:
    config, plain = config_of("thermal", VISION, lora_r=4), weights_of(VISION)
    mixed = {n: v for n, v in with_lora(plain, 4).items() if ".1.self_attn.q_proj" not in n}
    mixed |= {n: v for n, v in with_lora(plain, 2).items() if ".1.self_attn.q_proj" in n}
    with pytest.raises(CheckpointError, match=r"factors of several ranks: 4 of .*, 2 of .*1\.self_attn\.q_proj"):
        load_checkpoint(write_checkpoint(tmp_path, mixed, config))
    fewer = {n: v for n, v in with_lora(plain, 4).items() if "1.self_attn.q_proj.lora" not in n}
    with pytest.raises(CheckpointError, match=r"lacks .*1\.self_attn\.q_proj\.lora_A and lora_B, which .* has"):
        load_checkpoint(write_checkpoint(tmp_path, fewer, config))
    lost = {n: v for n, v in with_lora(plain, 4).items() if "lora" not in n}
    with pytest.raises(CheckpointError, match="fine-tuned with LoRA, but has no factors"):
        load_checkpoint(write_checkpoint(tmp_path, lost, config))
    with pytest.raises(CheckpointError, match="says lora_r 4; the weights have no LoRA factors"):
        load_checkpoint(write_checkpoint(tmp_path, plain, config))
    both = with_lora(plain, 4)
    both[f"{WRAPPED}.0.self_attn.q_proj.base_layer.weight"] = torch.ones(64, 64)
    with pytest.raises(CheckpointError, match="twice, under two names"):
        load_checkpoint(write_checkpoint(tmp_path, both, config))


def test_mel_bins_determine_the_positions(tmp_path) -> None:
    sizes = VisionSizes(**{**vars(VISION), "height": 16, "width": 71})  # the last row and column fill no patch
    weights = weights_of(sizes)
    config = config_of("audio", sizes, num_mel_bins=16, target_length=71)
    found = load_checkpoint(write_checkpoint(tmp_path, weights, config))
    assert (found.vision.sizes.height, found.vision.sizes.width) == (16, 71)
    assert found.image_features(torch.randn(1, 3, 16, 71)).shape == (1, 24)
    with pytest.raises(DataError, match=r"\(1, 3, 14, 71\) do not fit a tower for 16 x 71"):
        found.image_features(torch.randn(1, 3, 14, 71))
    config["vision_config"]["num_mel_bins"] = 21
    with pytest.raises(CheckpointError, match="says 21 x 71 mel bins x frames, which do not give the weights' 21 pos"):
        load_checkpoint(write_checkpoint(tmp_path, weights, config))
    with pytest.raises(CheckpointError, match="is not for audio, but the weights' 20 patches do not form a square"):
        load_checkpoint(write_checkpoint(tmp_path, weights, config_of("depth", sizes)))
    for bins, other in ((112, 126), (126, 112)):  # the published ones, in 593 and 667 positions
        narrow = VisionSizes(hidden=8, mlp=8, layers=1, heads=2, patch=14, height=bins, width=1036, projection=24)
        config = config_of("audio", narrow, num_mel_bins=bins, target_length=1036)
        assert load_checkpoint(write_checkpoint(tmp_path, weights_of(narrow), config)).vision.sizes.height == bins
        config["vision_config"]["num_mel_bins"] = other
        with pytest.raises(CheckpointError, match=f"says {other} x 1036 mel bins .* weights' {narrow.positions} pos"):
            load_checkpoint(write_checkpoint(tmp_path, weights_of(narrow), config))


def test_another_modality_is_refused(tmp_path) -> None:
    folder = write_checkpoint(tmp_path, weights_of(VISION), config_of("thermal", VISION))
    assert load_checkpoint(folder, modality="thermal").modality == "thermal"
    with pytest.raises(CheckpointError, match="is a checkpoint for thermal; depth was requested"):
        load_checkpoint(folder, modality="depth")
    video = VisionSizes(**{**vars(VISION), "frames": 3})
    with pytest.raises(CheckpointError, match="is for thermal, but the weights are a video tower's"):
        load_checkpoint(write_checkpoint(tmp_path, weights_of(video), config_of("thermal", video)))
    with pytest.raises(CheckpointError, match="says num_frames 8; the weights are for 3 frames"):
        load_checkpoint(write_checkpoint(tmp_path, weights_of(video), config_of("video", video, num_frames=8)))
    swap = {"vision_model": "text_model", "text_model": "vision_model"}
    swapped = {name.replace(part, swap.get(part, part)): v for name, v in weights_of(VISION).items()
               for part in [name.split(".")[0]]}  # fmt: skip
    with pytest.raises(CheckpointError, match="lacks vision_model"):
        load_checkpoint(write_checkpoint(tmp_path, swapped, config_of("thermal", VISION)))


class Code:
    def __reduce__(self) -> tuple:
        return print, ("this must never be printed",)


def test_files_that_are_no_weights_are_refused(tmp_path, capsys) -> None:
    folder = write_checkpoint(tmp_path, weights_of(VISION), config_of("image", VISION))
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for faulty in (data[: len(data) // 2], data[:4], b""):
        path.write_bytes(faulty)
        with pytest.raises(CheckpointError, match=r"model\.safetensors can't be read, or is truncated"):
            load_checkpoint(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"no weights; it must have model\.safetensors or pytorch_model\.bin"):
        load_checkpoint(folder)
    path = folder / "pytorch_model.bin"
    torch.save(weights_of(VISION), path)
    assert load_checkpoint(folder).modality == "image"
    data = path.read_bytes()
    for faulty in (data[: len(data) // 2], data[:100], b"", pickle.dumps(Code()), pickle.dumps({"a": Code()})):
        path.write_bytes(faulty)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
            load_checkpoint(folder)
    torch.save(weights_of(VISION), path, _use_new_zipfile_serialization=False)
    data, g = path.read_bytes(), random.Random(0)
    for _ in range(40):  # the unpickler raises anything at damaged bytes
        damaged = bytearray(data)
        for _ in range(20):
            damaged[g.randrange(600)] = g.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load_checkpoint(folder)
    torch.save({"a": Code()}, path)
    with pytest.raises(CheckpointError, match=r"refused: it holds code \(print\)"):
        load_checkpoint(folder)
    torch.save({"model": weights_of(VISION)}, path)
    with pytest.raises(CheckpointError, match="tensors by name and nothing else"):
        load_checkpoint(folder)
    assert capsys.readouterr().out == ""
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json can't be read"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"there is no folder .*, which should hold a checkpoint"):
        load_checkpoint(folder / "elsewhere")
