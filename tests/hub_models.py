"""Tiny random checkpoints of transformers, in folders laid out as on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "photo", "sound", "of", "dog", "cat", "rain", "."]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**TOWER, "vocab_size": len(WORDS), "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
PICTURE = {"image_size": 28, "patch_size": 7}


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Writes a tokenizer of whole words."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    made.save_pretrained(folder)
    return made


def clip(folder: Path) -> CLIPModel:
    """Writes a CLIP and returns it."""
    text = {**TEXT, "max_position_embeddings": 12}
    return _save(CLIPModel(CLIPConfig(text_config=text, vision_config={**TOWER, **PICTURE}, projection_dim=24)), folder)


def siglip(folder: Path) -> SiglipModel:
    """Writes a SigLIP and returns it."""
    text = {**TEXT, "max_position_embeddings": 64, "projection_size": 32}
    return _save(SiglipModel(SiglipConfig(text_config=text, vision_config={**TOWER, **PICTURE})), folder)


def siglip2(folder: Path) -> Siglip2Model:
    """Writes a SigLIP 2 for any shape of images and returns it."""
    text = {**TEXT, "vocab_size": 16, "max_position_embeddings": 64, "projection_size": 32}
    vision = {**TOWER, "patch_size": 7, "num_patches": 9}
    return _save(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)), folder)


def clap(folder: Path, *, fused: bool) -> ClapModel:
    """Writes a CLAP and returns it."""
    ears = {"patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 32}
    ears |= {"window_size": 4, "spec_size": 64, "num_mel_bins": 16, "patch_size": 2, "patch_stride": [2, 2]}
    audio = {**ears, "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None, "projection_dim": 24}
    audio |= {"aff_block_r": 1, "enable_patch_layer_norm": True}
    text = {**TEXT, "max_position_embeddings": 34, "projection_dim": 24, "type_vocab_size": 1}
    return _save(ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)), folder)


def _save(model, folder: Path):
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1 or "class_embedding" in name:
                value.copy_(0.2 * torch.randn(value.shape, generator=g))
            elif "logit_bias" in name:
                value.fill_(-3.0)
    model.eval().save_pretrained(folder)
    return model


SIDES = {"height": 28, "width": 28}
PROCESSORS = {"clip": {"size": {"shortest_edge": 28}, "crop_size": SIDES}, "siglip": {"size": SIDES}}


def write_processor(folder: Path, **fields: Any) -> None:
    """Writes preprocessor_config.json."""
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))


def write_extractor(folder: Path, **fields: Any) -> ClapFeatureExtractor:
    """Writes a feature extractor that matches `clap`."""
    defaults = {"feature_size": 16, "sampling_rate": 8000, "hop_length": 80, "fft_window_size": 256, "max_length_s": 1}
    made = ClapFeatureExtractor(**{**defaults, "frequency_max": 4000, **fields})
    made.save_pretrained(folder)
    return made


def checkpoint(folder: Path, kind: str = "clip", **fields: Any) -> Any:
    """Writes a complete checkpoint and returns its model; `fields` are fields of its processor."""
    made = {"clip": clip, "siglip": siglip, "clap": lambda f: clap(f, fused=False)}[kind](folder)
    write_tokenizer(folder)
    if kind == "clap":
        write_extractor(folder, **{"truncation": "rand_trunc", **fields})
    else:
        write_processor(folder, **{**PROCESSORS[kind], **fields})
    return made
