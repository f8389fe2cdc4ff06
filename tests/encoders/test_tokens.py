"""Text against the checkpoint's own pipeline: the tokenizer's casing, padding, mask and length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import WORDS, checkpoint
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer

from rlbench.core.errors import CheckpointError
from rlbench.encoders.models import load_encoder

LONG = "a photo of a dog and a photo of a cat in the rain . a sound of rain . " * 6
PROMPTS = ["a photo of a dog.", "rain", LONG, "A Photo of a DOG.", "un-known words, a cat!"]


def edit(path: Path, **values: object) -> None:
    """Changes a JSON file; None removes a key."""
    whole = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))


def pipeline(folder: Path, kind: str, model: Any, length: int) -> Tensor:
    """Unit rows, computed as the model's page describes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if kind == "siglip" else True
    inputs = tokenizer(PROMPTS, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        return normalize(model.get_text_features(**inputs).pooler_output, dim=-1)


@pytest.mark.parametrize(
    ("kind", "config", "normalizer", "length"),
    [
        ("clip", {}, None, 12),
        ("clip", {"model_max_length": 7}, {"type": "Lowercase"}, 7),
        ("clip", {"model_input_names": ["input_ids"]}, None, 12),
        ("clip", {"truncation_side": "left"}, None, 12),
        ("siglip", {}, None, 64),
        ("siglip", {"model_input_names": ["input_ids"], "model_max_length": 64}, {"type": "Lowercase"}, 64),
        ("siglip", {"model_max_length": 16, "padding_side": "left"}, None, 16),
        ("clap", {}, {"type": "Lowercase"}, 32),
        ("clap", {"model_max_length": 20}, None, 20),
    ],
)
def test_text_embeds_as_in_the_checkpoint_s_own_pipeline(tmp_path, kind, config, normalizer, length) -> None:
    model = checkpoint(tmp_path, kind)
    edit(tmp_path / "tokenizer_config.json", **config)
    edit(tmp_path / "tokenizer.json", normalizer=normalizer)
    encoder = load_encoder(f"hf:{tmp_path}")
    found = encoder.embed_text(PROMPTS)
    torch.testing.assert_close(found, pipeline(tmp_path, kind, model, length), atol=1e-5, rtol=0)
    lower = (found[0] - found[3]).abs().max()
    assert (lower < 1e-5) == (normalizer is not None)
    torch.testing.assert_close(encoder.embed_text(PROMPTS[1:2]), found[1:2], atol=1e-5, rtol=0)


def _newer(folder: Path) -> None:
    edit(folder / "tokenizer.json", pre_tokenizer={"type": "SplitOfTomorrow"})


def _many(folder: Path) -> None:
    edit(folder / "tokenizer.json", added_tokens=[{**_ADDED, "content": "extra", "id": len(WORDS)}])


def _no_unknown(folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(folder / "tokenizer.json", model={**model, "unk_token": "<none>"})


def _code(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('this must never run')")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Mine", None]}, tokenizer_class="Mine")


_ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_newer, r"the tokenizer of .* can't be read: data did not match any variant of .*PreTokenizer"),
        (_many, r"tokens up to number 12, but its text tower has only 12"),
        (_no_unknown, r"the tokenizer of .* can't be read: .*"),
        (_code, r"tokenizer_config\.json names code of the checkpoint \(auto_map\), which is never run"),
        (lambda f: edit(f / "tokenizer_config.json", pad_token=None), "has no padding token; set pad_token in"),
        (lambda f: edit(f / "tokenizer_config.json", padding_side="left"), "a prompt gets another embedding next to"),
        (
            lambda f: edit(f / "tokenizer_config.json", pad_token="."),
            "a prompt gets another embedding next to a longer one",
        ),
        (
            lambda f: edit(f / "tokenizer_config.json", model_max_length=0),
            "model_max_length that is not a positive number",
        ),
        (lambda f: edit(f / "tokenizer_config.json", model_max_length="all"), "model_max_length"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "can't be read"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"\xff\xfe{}"), "can't be read"),
    ],
)
def test_an_unusable_tokenizer_is_refused_with_one_line(tmp_path, capfd, change, message) -> None:
    checkpoint(tmp_path)
    change(tmp_path)
    capfd.readouterr()
    with pytest.raises(CheckpointError, match=message):
        load_encoder(f"hf:{tmp_path}", "image")
    assert capfd.readouterr() == ("", "")


def test_a_panic_of_the_tokenizer_gives_one_line(tmp_path, capfd) -> None:
    """A panic of Rust is not an Exception, and writes to the process's stderr."""
    checkpoint(tmp_path)
    template = json.loads((tmp_path / "tokenizer.json").read_text())["post_processor"]
    template["special_tokens"].pop("</s>")
    edit(tmp_path / "tokenizer.json", post_processor=template)
    capfd.readouterr()
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* can't be read"):
        load_encoder(f"hf:{tmp_path}", "image")
    assert capfd.readouterr() == ("", "")
