"""Checkpoints of the hub in other files than one: shards, adapters, revisions; and what can be wrong with them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import fake_hub
import pytest
import torch
from hub_models import checkpoint, siglip2, write_processor, write_tokenizer
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from rlbench.core.errors import CheckpointError
from rlbench.encoders import hub as hub_files
from rlbench.encoders import hugging_face
from rlbench.encoders.clip.hf_tokens import Tokens
from rlbench.encoders.models import load_encoder

PROMPTS = ["a photo of a dog.", "a cat"]
X = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def shard(folder: Path, suffix: str = "safetensors") -> Path:
    """Splits the weights of a folder into two shards; returns their index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places, stem = {}, "model" if suffix == "safetensors" else "pytorch_model"
    for k in range(2):
        part = {name: value for i, (name, value) in enumerate(weights.items()) if i % 2 == k}
        file = f"{stem}-{k + 1:05}-of-00002.{suffix}"
        save_file(part, folder / file) if suffix == "safetensors" else torch.save(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_one_checkpoint(tmp_path, suffix) -> None:
    checkpoint(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    index = shard(tmp_path / "two", suffix)
    one, two = (load_encoder(f"hf:{tmp_path}/{name}", "image") for name in ("one", "two"))
    assert torch.equal(one.embed(X, "image"), two.embed(X, "image"))
    assert torch.equal(one.embed_text(PROMPTS), two.embed_text(PROMPTS))
    first = two.sha256
    part = index.with_name(index.name.replace(f".{suffix}.index.json", f"-00002-of-00002.{suffix}"))
    changed = load_file(part) if suffix == "safetensors" else torch.load(part)
    name = next(name for name, value in changed.items() if value.dim() > 1)
    changed[name] = changed[name] + 1
    save_file(changed, part) if suffix == "safetensors" else torch.save(changed, part)
    assert load_encoder(f"hf:{tmp_path}/two", "image").sha256 != first


def test_wrong_shards_are_refused(tmp_path) -> None:
    checkpoint(tmp_path / "a")
    index = shard(tmp_path / "a")
    whole = json.loads(index.read_text())

    def refuses(match: str, **weight_map: str) -> None:
        index.write_text(json.dumps({"weight_map": whole["weight_map"] | weight_map}))
        with pytest.raises(CheckpointError, match=match):
            load_encoder(f"hf:{tmp_path}/a", "image")

    last = "model-00002-of-00002.safetensors"
    refuses("names the shard '../a.safetensors'; it must be a file beside it", extra="../a.safetensors")
    refuses("names model-9.safetensors, which is missing: download the folder again", extra="model-9.safetensors")
    refuses(f"{last} lacks extra, unlike model.safetensors.index.json", extra=last)
    name = next(iter(whole["weight_map"]))
    refuses(f"{last} lacks {name}|00001-of-00002.safetensors has {name}", **{name: last})
    (tmp_path / "a" / last).unlink()
    refuses(f"names {last}, which is missing")
    index.write_text("[1]")
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        load_encoder(f"hf:{tmp_path}/a", "image")


def write_adapter(folder: Path, base: Path, name: str, **fields: object) -> CLIPModel:
    """Writes an adapter by peft, and returns the model that it makes."""
    config = LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "fc1"], **fields})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers renames
        model = get_peft_model(CLIPModel.from_pretrained(base), config)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "lora_" in key:
                value.copy_(0.3 * torch.randn(value.shape, generator=g))
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name}))
    return model.eval()


@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}])
def test_an_adapter_changes_its_base_model_as_peft_does(tmp_path, fields) -> None:
    checkpoint(tmp_path / "base")
    model = write_adapter(tmp_path / "adapter", tmp_path / "base", f"{tmp_path}/base", **fields)
    plain, tuned = (load_encoder(f"hf:{tmp_path}/{name}", "image") for name in ("base", "adapter"))
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=plain.front(X)).pooler_output
    found = tuned.embed(X, "image")
    assert torch.allclose(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)
    assert (found - plain.embed(X, "image")).abs().max() > 0.01 and tuned.sha256 != plain.sha256


def test_wrong_adapters_are_refused(tmp_path) -> None:
    checkpoint(tmp_path / "base")
    write_adapter(tmp_path / "good", tmp_path / "base", f"{tmp_path}/base")
    config = json.loads((tmp_path / "good" / "adapter_config.json").read_text())
    weights = load_file(tmp_path / "good" / "adapter_model.safetensors")
    name = next(iter(weights))

    def refuses(match: str, tensors: dict[str, torch.Tensor] = weights, **fields: object) -> None:
        (tmp_path / "good" / "adapter_config.json").write_text(json.dumps({**config, **fields}))
        save_file(tensors, tmp_path / "good" / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=match):
            load_encoder(f"hf:{tmp_path}/good", "image")

    refuses("use_dora is 'True', which is not supported", use_dora=True)
    refuses("rank_pattern is .* not supported", rank_pattern={"q_proj": 2})
    refuses("an adapter of type 'IA3'; LORA is supported", peft_type="IA3")
    refuses("not of the rank 4 of adapter_config.json", r=4)
    refuses("does not name its base model", base_model_name_or_path=None)
    refuses("incomplete", {k: v for k, v in weights.items() if k != name})
    refuses("which is no factor of a LoRA", {**weights, "base_model.model.head.weight": torch.zeros(2)})
    other = {key.replace("vision_model", "audio_model"): value for key, value in weights.items()}
    refuses("in .*base it is missing: it is an adapter of another model", other)
    refuses("none.config.json can.t be read", base_model_name_or_path=f"{tmp_path}/none")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with fake_hub.serve(tmp_path / "cache", monkeypatch) as hub:
        yield hub


def test_the_hub_gives_shards_adapters_and_revisions(tmp_path, hub, monkeypatch) -> None:
    checkpoint(tmp_path / "base")
    plain = load_encoder(f"hf:{tmp_path}/base", "image")
    shard(tmp_path / "base")
    hub.repos["me/base"] = (tmp_path / "base", ["a" * 40, "b" * 40])
    write_adapter(tmp_path / "adapter", plain_folder(tmp_path), "me/base", revision="b" * 40)
    hub.repos["me/adapter"] = (tmp_path / "adapter", ["c" * 40])
    found = load_encoder("hf:me/base@" + "b" * 40, "image")
    assert torch.equal(found.embed(X, "image"), plain.embed(X, "image"))
    tuned = load_encoder("hf:me/adapter", "image")
    assert (tuned.embed(X, "image") - plain.embed(X, "image")).abs().max() > 0.01
    assert sorted(path.name for path in (tmp_path / "cache" / "models--me--base" / "snapshots").iterdir()) == ["b" * 40]
    with pytest.raises(CheckpointError, match="me/base has no revision 'v9'; give a commit, branch or tag"):
        load_encoder("hf:me/base@v9", "image")
    with pytest.raises(CheckpointError, match="the hub has no me/none, or it is private"):
        load_encoder("hf:me/none", "image")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = load_encoder("hf:me/adapter", "image")
    assert again.sha256 == tuned.sha256
    with pytest.raises(CheckpointError, match=r"downloaded \(HF_HUB_OFFLINE is set\); .*hf download me/none;"):
        load_encoder("hf:me/none", "image")


def plain_folder(tmp_path: Path) -> Path:
    """The base model in one file, for peft."""
    checkpoint(tmp_path / "plain")
    return tmp_path / "plain"


def test_a_shard_that_the_hub_lacks_is_named(tmp_path, hub) -> None:
    checkpoint(tmp_path / "base")
    shard(tmp_path / "base")
    (tmp_path / "base" / "model-00002-of-00002.safetensors").unlink()
    hub.repos["me/base"] = (tmp_path / "base", ["a" * 40])
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002\.safetensors, which is missing"):
        load_encoder("hf:me/base", "image")


def test_a_folder_here_that_is_named_like_a_repository_is_found(tmp_path, hub, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip", "me/clip", "my/own/clip"):
        (tmp_path / name).mkdir(parents=True)
        with pytest.raises(CheckpointError, match=rf"the folder .*here is \./{name}"):
            load_encoder(f"hf:{name}", "image")
    with pytest.raises(CheckpointError, match="there is no folder gone, which should hold a checkpoint"):
        load_encoder("hf:./gone", "image")


def test_an_adapter_of_the_hub_can_not_name_a_folder(tmp_path, hub) -> None:
    write_adapter(tmp_path / "adapter", plain_folder(tmp_path), f"{tmp_path}/plain")
    hub.repos["me/adapter"] = (tmp_path / "adapter", ["c" * 40])
    with pytest.raises(CheckpointError, match="a folder on its author's machine"):
        load_encoder("hf:me/adapter", "image")


def test_a_layout_prefers_one_file(tmp_path) -> None:
    checkpoint(tmp_path / "a")
    one = tmp_path / "a" / "model.safetensors"
    shutil.copy(one, tmp_path / "kept")
    shard(tmp_path / "a")
    shutil.copy(tmp_path / "kept", one)
    assert hub_files.weights_file(tmp_path / "a") == one


def test_siglip2_takes_patches_as_its_own_processor_makes_them(tmp_path) -> None:
    model = siglip2(tmp_path)
    write_tokenizer(tmp_path)
    write_processor(tmp_path, image_processor_type="Siglip2ImageProcessor", patch_size=7, max_num_patches=20)
    encoder = load_encoder(f"hf:{tmp_path}", "image")
    assert encoder.boxes["image"].shape == (3, 28, 28)  # 4 x 4 patches
    images = (255 * X).round().byte().permute(0, 2, 3, 1).numpy()
    given = Siglip2ImageProcessorPil(patch_size=7, max_num_patches=16)(images=list(images), return_tensors="pt")
    x = (X * 255).round() / 255
    x.requires_grad_()
    found = encoder.embed(x, "image")
    with torch.no_grad():
        expected = model.get_image_features(**given).pooler_output
    assert torch.allclose(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), x)
    assert (gradient != 0).flatten(1).any(1).all()
    write_processor(tmp_path, image_processor_type="Siglip2ImageProcessor", patch_size=8)
    with pytest.raises(CheckpointError, match="256 patches of 8 pixels do not fit a tower for patches of 7"):
        load_encoder(f"hf:{tmp_path}", "image")


def test_a_gemma_tokenizer_gets_lower_case(tmp_path) -> None:
    class GemmaLike:
        model_max_length, pad_token_id, name_or_path = 64, 0, "x"
        seen: ClassVar[list[str]] = []

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

        def __call__(self, texts: list[str], **options: object) -> dict[str, torch.Tensor]:
            self.seen.extend(texts)
            return {"input_ids": torch.zeros(len(texts), 4, dtype=torch.long)}

    checkpoint(tmp_path, "siglip")
    tokens = Tokens(tmp_path, "siglip", SimpleNamespace(vocab_size=50, max_position_embeddings=64))
    for lower in (True, False):
        tokens._tokenizer, tokens._lower = GemmaLike(), lower
        tokens(["A Dog"])
    assert GemmaLike.seen == ["a dog", "A Dog"]


def test_leaf_has_the_tokenizer_and_processor_of_openai(tmp_path, hub, monkeypatch) -> None:
    checkpoint(tmp_path / "own")
    plain = load_encoder(f"hf:{tmp_path}/own", "image")
    for name, kept in {"leaf": ("config.json", "model.safetensors"), "openai": ("tok", "pre", "special")}.items():
        (tmp_path / name).mkdir()
        for path in (tmp_path / "own").iterdir():
            if path.name.startswith(kept):
                shutil.copy(path, tmp_path / name)
    hub.repos["LEAF-CLIP/mine"] = (tmp_path / "leaf", ["a" * 40])
    repo, revision = hugging_face._PREPARED_AS["LEAF-CLIP"]
    hub.repos[repo] = (tmp_path / "openai", [revision])
    found = load_encoder("hf:LEAF-CLIP/mine", "image")
    assert torch.equal(found.embed(X, "image"), plain.embed(X, "image"))
    assert torch.equal(found.embed_text(PROMPTS), plain.embed_text(PROMPTS))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_encoder("hf:LEAF-CLIP/mine", "image").sha256 == found.sha256
    hub.repos["other/mine"] = hub.repos["LEAF-CLIP/mine"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load_encoder("hf:other/mine", "image")
