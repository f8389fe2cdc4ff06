"""The loader on every published kind of checkpoint in unusual sizes, against the definition; and what it refuses."""

from __future__ import annotations

import pytest
import torch
from clip_definition import KINDS, Kind, Weights, config_of, image_features, made, text_features, written
from torch import Tensor

from rlbench.core.errors import CheckpointError
from rlbench.encoders.languagebind import load_checkpoint


def pixels(kind: Kind, n: int = 2) -> Tensor:
    clip = (kind.frames or kind.tokens,) if kind.frames or kind.tokens else ()
    return torch.randn(n, 3, *clip, *kind.size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients_equal_the_definition(tmp_path, name) -> None:
    kind = KINDS[name]
    weights, x = made(kind), pixels(kind)
    folder = written(tmp_path, kind, weights, config_of(kind))
    ids = torch.tensor([[48, 3, 9, 49, 49, 49], [48, 7, 1, 2, 30, 49], [48, 49, 49, 49, 49, 49]])
    expected, words = image_features(weights, kind, x), text_features(weights, ids)
    for attention in ("sdpa", "eager"):
        found = load_checkpoint(folder, modality=kind.modality, attention=attention)
        torch.testing.assert_close(found.image_features(x), expected, atol=2e-5, rtol=1e-5)
        mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 0, 0, 0, 0]])
        for seen in (None, mask):
            torch.testing.assert_close(found.text_features(ids, seen), words, atol=2e-5, rtol=1e-5)
        assert found.logit_scale == pytest.approx(float(weights["logit_scale"].exp()))
        assert not any(p.requires_grad for p in found.parameters()) and not found.training
    double = {n: v.double() for n, v in weights.items()}
    a, b = (x[:1].double().requires_grad_() for _ in range(2))
    d = torch.randn(kind.projection, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(load_checkpoint(folder).double().image_features(a) @ d, a)
    (definition,) = torch.autograd.grad(image_features(double, kind, b) @ d, b)
    exact = {"atol": 1e-6, "rtol": 1e-4} if kind.rank else {"atol": 1e-12, "rtol": 1e-9}  # LoRA is folded in float32
    torch.testing.assert_close(gradient, definition, **exact)
    assert expected.std() > 0.05 and definition.abs().max() > 1e-3


def _change(weights: Weights, name: str, how: str) -> Weights:
    found, value = dict(weights), weights[name]
    if how == "lost":
        del found[name]
    else:
        found[name] = torch.ones(2) if value.dim() == 0 else torch.cat([value, value[:1]])
    return found


def test_every_tensor_is_needed_in_its_own_shape(tmp_path) -> None:
    """Except for the sizes of the vocabulary and of texts, which no other tensor implies."""
    kind = KINDS["video"]
    weights, config = made(kind), config_of(kind)
    free = {"text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight"}
    for tensor in [one for one in weights if ".layers.0." not in one]:
        for how in ("lost", "longer") if tensor not in free else ("lost",):
            folder = written(tmp_path, kind, _change(weights, tensor, how), config)
            with pytest.raises(CheckpointError) as caught:
                load_checkpoint(folder)
            message = str(caught.value)
            assert "\n" not in message and (
                how == "longer" or tensor.split(".lora_")[0].removesuffix(".weight") in message
            )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_attention_heads", -1, "num_attention_heads is -1; it must be a positive number"),
        ("num_attention_heads", 2.5, "num_attention_heads is 2.5; it must be a whole number"),
        ("num_attention_heads", "four", "num_attention_heads is 'four'; it must be"),
        ("lora_r", [3], r"lora_r is \[3\]; it must be"),
        ("lora_alpha", float("nan"), "lora_alpha is nan; it must be"),
        ("layer_norm_eps", "1e-5", "layer_norm_eps is '1e-5'; it must be"),
        ("num_mel_bins", True, "num_mel_bins is True; it must be"),
        ("hidden_act", "swish2", "hidden_act is 'swish2', which is not an activation of transformers"),
        ("hidden_act", 3, "hidden_act is 3, which is not an activation of transformers"),
    ],
)
def test_a_config_with_nonsense_values_is_refused(tmp_path, key, value, message) -> None:
    kind = KINDS["thermal"]
    weights, config = made(kind), config_of(kind)
    config["vision_config"][key] = value
    with pytest.raises(CheckpointError, match=rf"config\.json: {message}"):
        load_checkpoint(written(tmp_path, kind, weights, config))


def test_missing_layers_and_an_empty_index_are_refused(tmp_path) -> None:
    kind = KINDS["audio, full"]
    far = {**made(kind), "vision_model.encoder.layers.999999999.extra": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"lacks vision_model\.encoder\.layers\.3, but has .*layers\.999999999"):
        load_checkpoint(written(tmp_path, kind, far, config_of(kind)))
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json is not an index of shards"):
        load_checkpoint(tmp_path)
