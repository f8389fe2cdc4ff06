"""Encoders of other libraries against those libraries' own pipelines, on tiny random models in folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from rlbench.checkpoints import load_encoder, resolve
from rlbench.core import Encoder
from rlbench.errors import CheckpointError, FieldError, ModalityError, RLBenchError, UnknownName
from rlbench.evaluate import check_frozen
from rlbench.heads import zero_shot

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "photo", "sound", "of", "dog", "cat", "rain", "."]
PROMPTS = ["a photo of a dog.", "a photo of a cat.", "a sound of rain."]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**TOWER, "vocab_size": len(WORDS), "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
PICTURE = {"image_size": 28, "patch_size": 7}


def words(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, in the folder."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    made.save_pretrained(folder)
    return made


def clip(folder: Path) -> CLIPModel:
    text = {**TEXT, "max_position_embeddings": 12}
    return _saved(CLIPModel(CLIPConfig(text_config=text, vision_config={**TOWER, **PICTURE}, projection_dim=24)), folder)


def siglip(folder: Path) -> SiglipModel:
    text = {**TEXT, "max_position_embeddings": 64, "projection_size": 32}
    return _saved(SiglipModel(SiglipConfig(text_config=text, vision_config={**TOWER, **PICTURE})), folder)


def clap(folder: Path, *, fused: bool) -> ClapModel:
    ears = {"patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 32}
    ears |= {"window_size": 4, "spec_size": 64, "num_mel_bins": 16, "patch_size": 2, "patch_stride": [2, 2]}
    audio = {**ears, "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None, "projection_dim": 24}
    audio |= {"aff_block_r": 1, "enable_patch_layer_norm": True}
    text = {**TEXT, "max_position_embeddings": 34, "projection_dim": 24, "type_vocab_size": 1}
    return _saved(ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)), folder)


def _saved(model, folder: Path):
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                value.copy_(0.2 * torch.randn(value.shape, generator=g))
            elif "logit_bias" in name:
                value.fill_(-3.0)
    model.eval().save_pretrained(folder)
    return model


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)


def boxed(images: np.ndarray) -> Tensor:
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
    size = {"size": {"height": 28, "width": 28}} | ({"crop_size": {"height": 28, "width": 28}} if kind == "clip" else {})
    processor = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}[kind](**size)
    processor.save_pretrained(tmp_path)
    tokenizer = words(tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}", "image")
    padding = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
    inputs = processor([Image.fromarray(image) for image in pictures()], return_tensors="pt")
    text = tokenizer(PROMPTS, return_tensors="pt", **padding)
    with torch.no_grad():
        expected = model(input_ids=text["input_ids"], attention_mask=text["attention_mask"], **inputs)
    found = logits(encoder, boxed(pictures())) + encoder.logit_bias
    torch.testing.assert_close(found, expected.logits_per_image, atol=1e-5, rtol=1e-5)
    assert (encoder.logit_bias == -3) == (kind == "siglip") and expected.logits_per_image.std() > 1e-3
    check_gradients(encoder, boxed(pictures()))
