"""Checkpoints of every kind that LanguageBind publishes, in unusual sizes, and their definition in plain torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
WRAPPED = "vision_model.encoder.base_model.model"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A checkpoint: its sizes, and how it was tuned and stored."""

    modality: str = "image"
    hidden: int = 60
    heads: int = 5
    mlp: int = 70
    layers: int = 3
    patch: int = 5
    size: tuple[int, int] = (25, 25)
    projection: int = 17
    frames: int = 0  # of temporal attention
    tokens: int = 0  # class tokens, one a frame
    rank: int = 0
    alpha: float | None = 8.0
    lora: tuple[str, ...] = ("self_attn",)
    newer: bool = False  # PEFT's names
    act: str | None = "gelu"
    eps: float | None = 1e-5
    ids: bool = True  # position_ids
    stored: Literal["safetensors", "half", "bfloat16", "legacy", "parameters"] = "safetensors"


KINDS = {
    "image": Kind(),
    "image, quick_gelu, another eps": Kind(act="quick_gelu", eps=1e-3, ids=False, stored="bfloat16"),
    "image, one head and nothing said": Kind(hidden=64, heads=1, act=None, eps=None, layers=1),
    "thermal": Kind(modality="thermal", rank=3, alpha=5.0, stored="half"),
    "thermal, newer": Kind(modality="thermal", rank=1, alpha=None, newer=True, stored="parameters"),
    "depth": Kind(modality="depth", rank=7, newer=True, patch=3, size=(12, 12), heads=6, stored="legacy"),
    "audio": Kind(modality="audio", rank=4, patch=4, size=(18, 53), stored="parameters"),
    "audio, full": Kind(modality="audio", patch=3, size=(10, 41), ids=False),
    "video": Kind(modality="video", frames=5, rank=6, lora=("temporal_attn",), newer=True, layers=2),
    "video, full": Kind(modality="video", frames=3, stored="half", layers=2),
    "video, one frame": Kind(modality="video", frames=1, layers=2),
    "video, new": Kind(modality="video", frames=4, tokens=4, layers=2, stored="bfloat16"),
    "video, huge new": Kind(modality="video", tokens=4, frames=4, hidden=80, mlp=96, projection=33, layers=2),
}
TEXT = {"hidden": 24, "heads": 3, "mlp": 31, "layers": 2, "vocabulary": 50, "positions": 11}


def _tower(model: str, hidden: int, mlp: int, layers: int, attention: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for n in range(layers):
        at = f"{model}.encoder.layers.{n}"
        for part in attention:
            for name in ATTENTION:
                shapes |= {f"{at}.{part}.{name}.weight": (hidden, hidden), f"{at}.{part}.{name}.bias": (hidden,)}
        norms = ["layer_norm1", "layer_norm2"] + ["temporal_layer_norm1"] * ("temporal_attn" in attention)
        shapes |= {f"{at}.{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}
        shapes |= {f"{at}.mlp.fc1.weight": (mlp, hidden), f"{at}.mlp.fc1.bias": (mlp,)}
        shapes |= {f"{at}.mlp.fc2.weight": (hidden, mlp), f"{at}.mlp.fc2.bias": (hidden,)}
    return shapes


def made(kind: Kind) -> Weights:
    """Random weights under the hub's names, representable in the type that they are stored in."""
    d, attention = kind.hidden, ("temporal_attn", "self_attn") if kind.frames else ("self_attn",)
    shapes = _tower("vision_model", d, kind.mlp, kind.layers, attention)
    places = (kind.size[0] // kind.patch) * (kind.size[1] // kind.patch) + 1
    em, time = "vision_model.embeddings", (1,) * (kind.tokens > 0)
    shapes[f"{em}.class_embedding"] = (kind.tokens, d) if kind.tokens else (d,)
    shapes[f"{em}.patch_embedding.weight"] = (d, 3, *time, kind.patch, kind.patch)
    shapes[f"{em}.position_embedding.weight"] = (places, d)
    shapes |= {f"vision_model.{n}.{k}": (d,) for n in ("pre_layrnorm", "post_layernorm") for k in ("weight", "bias")}
    shapes |= {"visual_projection.weight": (kind.projection, d), "logit_scale": ()}
    if kind.frames:
        shapes |= {
            f"vision_model.encoder.layers.{n}.temporal_embedding": (1, kind.frames, d) for n in range(kind.layers)
        }
    w, tm = TEXT["hidden"], "text_model.embeddings"
    shapes |= _tower("text_model", w, TEXT["mlp"], TEXT["layers"], ("self_attn",))
    shapes |= {
        f"{tm}.token_embedding.weight": (TEXT["vocabulary"], w),
        f"{tm}.position_embedding.weight": (TEXT["positions"], w),
    }
    shapes |= {f"text_model.final_layer_norm.{k}": (w,) for k in ("weight", "bias")}
    shapes["text_projection.weight"] = (kind.projection, w)
    for n in range(kind.layers if kind.rank else 0):
        for name in (f"{part}.{proj}" for part in kind.lora for proj in ATTENTION):
            at = f"vision_model.encoder.layers.{n}.{name}"
            shapes |= {f"{at}.lora_A.default.weight": (kind.rank, d), f"{at}.lora_B.default.weight": (d, kind.rank)}
    g = torch.Generator().manual_seed(len(shapes))
    near_one = ("norm.weight", "norm1.weight", "norm2.weight")
    drawn = {n: 0.15 * torch.randn(shape, generator=g) + n.endswith(near_one) for n, shape in shapes.items()}
    return {name: value.bfloat16().half().float() for name, value in drawn.items()}


def renamed(kind: Kind, weights: Weights) -> Weights:
    """As the hub has them."""
    if not kind.rank:
        return dict(weights)
    adapted = {name.split(".lora_")[0] for name in weights if ".lora_" in name}
    found = {}
    for name, value in weights.items():
        module, _, leaf = name.rpartition(".")
        own = f"{module}.base_layer.{leaf}" if kind.newer and module in adapted else name
        found[own.replace("vision_model.encoder", WRAPPED, 1)] = value
    return found


def config_of(kind: Kind) -> dict[str, Any]:
    vision = {"hidden_size": kind.hidden, "patch_size": kind.patch, "lora_r": kind.rank, "num_frames": kind.frames or 1}
    vision |= {} if kind.heads == kind.hidden // 64 else {"num_attention_heads": kind.heads}
    vision |= {"hidden_act": kind.act} if kind.act else {}
    vision |= {"layer_norm_eps": kind.eps} if kind.eps else {}
    vision |= {"lora_alpha": kind.alpha} if kind.alpha else {}
    heard = {"num_mel_bins": kind.size[0], "target_length": kind.size[1]}
    vision |= heard if kind.modality == "audio" else {"num_mel_bins": 0.0, "target_length": 0.0}
    return {
        "architectures": [f"LanguageBind{kind.modality.title()}"],
        "text_config": {"hidden_size": TEXT["hidden"], "num_attention_heads": TEXT["heads"], "hidden_act": "gelu"},
        "vision_config": vision,
    }


def written(folder: Path, kind: Kind, weights: Weights, config: Mapping[str, Any]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    named = {name: value.contiguous() for name, value in renamed(kind, weights).items()}
    if kind.ids:
        named["text_model.embeddings.position_ids"] = torch.arange(TEXT["positions"])[None]
        named["vision_model.embeddings.position_ids"] = torch.arange(9)[None]
    if kind.stored in ("safetensors", "half"):
        kept = {n: v.half() if kind.stored == "half" and v.is_floating_point() else v for n, v in named.items()}
        save_file(kept, folder / "model.safetensors")
    elif kind.stored == "bfloat16":
        kept = {n: v.bfloat16() if v.is_floating_point() else v for n, v in named.items()}
        torch.save(kept, folder / "pytorch_model.bin")
    else:
        tuned = {n: torch.nn.Parameter(v) if v.is_floating_point() else v for n, v in named.items()}
        zipped = kind.stored == "parameters"
        torch.save(tuned, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return folder


def _attended(w: Weights, at: str, x: Tensor, heads: int, hidden_from: Tensor | None = None) -> Tensor:
    """Multi-head attention, (B, N, D) -> the same; hidden_from (N, N): what a token can't see."""
    q, k, v = (F.linear(x, w[f"{at}.{n}.weight"], w[f"{at}.{n}.bias"]) for n in ATTENTION[:3])
    out = []
    for part in torch.arange(x.shape[-1]).chunk(heads):
        scores = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
        scores = scores if hidden_from is None else scores.masked_fill(hidden_from, float("-inf"))
        out.append(scores.softmax(-1) @ v[..., part])
    return F.linear(torch.cat(out, -1), w[f"{at}.out_proj.weight"], w[f"{at}.out_proj.bias"])


def _norm(w: Weights, at: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{at}.weight"], w[f"{at}.bias"], eps)


def _activated(x: Tensor, act: str | None) -> Tensor:
    return x * torch.sigmoid(1.702 * x) if act == "quick_gelu" else F.gelu(x)


def image_features(w: Weights, kind: Kind, x: Tensor) -> Tensor:
    """The definition; LoRA by its factors beside the weights."""
    eps, h, model = kind.eps or 1e-5, [], "vision_model"
    w = dict(w)
    for name in [n for n in w if ".lora_A" in n]:
        module = name.split(".lora_")[0]
        added = w[f"{module}.lora_B.default.weight"] @ w[name] * (kind.alpha or 16) / kind.rank
        w[f"{module}.weight"] = w[f"{module}.weight"] + added
    clip = x if x.dim() == 5 else x[:, :, None]
    p, (rows, columns) = kind.patch, (kind.size[0] // kind.patch, kind.size[1] // kind.patch)
    patches = w[f"{model}.embeddings.patch_embedding.weight"].reshape(kind.hidden, -1)
    for t in range(clip.shape[2]):
        frame = clip[:, :, t, : rows * p, : columns * p]
        cut = (
            frame.reshape(len(x), 3, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(len(x), rows * columns, -1)
        )
        token = w[f"{model}.embeddings.class_embedding"]
        token = (token[t] if kind.tokens else token).expand(len(x), 1, -1)
        h.append(torch.cat([token, cut @ patches.T], 1) + w[f"{model}.embeddings.position_embedding.weight"])
    h = [_norm(w, f"{model}.pre_layrnorm", one, eps) for one in h]
    for n in range(kind.layers):
        at = f"{model}.encoder.layers.{n}"
        if kind.frames:
            over = torch.stack(h, 2)  # (B, N, T, D)
            over = over + w[f"{at}.temporal_embedding"] * (kind.frames > 1)
            flat = over.flatten(0, 1)
            normed = _norm(w, f"{at}.temporal_layer_norm1", flat, eps)
            h = list((flat + _attended(w, f"{at}.temporal_attn", normed, kind.heads)).view(over.shape).unbind(2))
        for t, one in enumerate(h):
            one = one + _attended(w, f"{at}.self_attn", _norm(w, f"{at}.layer_norm1", one, eps), kind.heads)
            inner = F.linear(
                _norm(w, f"{at}.layer_norm2", one, eps), w[f"{at}.mlp.fc1.weight"], w[f"{at}.mlp.fc1.bias"]
            )
            h[t] = one + F.linear(_activated(inner, kind.act), w[f"{at}.mlp.fc2.weight"], w[f"{at}.mlp.fc2.bias"])
    pooled = torch.stack([_norm(w, f"{model}.post_layernorm", one[:, 0], eps) for one in h]).mean(0)
    return pooled @ w["visual_projection.weight"].T


def text_features(w: Weights, ids: Tensor) -> Tensor:
    """The definition: causal, and the first place of the end of the text."""
    model, end = "text_model", TEXT["vocabulary"] - 1
    h = (
        w[f"{model}.embeddings.token_embedding.weight"][ids]
        + w[f"{model}.embeddings.position_embedding.weight"][: ids.shape[1]]
    )
    future = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
    for n in range(TEXT["layers"]):
        at = f"{model}.encoder.layers.{n}"
        h = h + _attended(w, f"{at}.self_attn", _norm(w, f"{at}.layer_norm1", h, 1e-5), TEXT["heads"], future)
        inner = F.linear(_norm(w, f"{at}.layer_norm2", h, 1e-5), w[f"{at}.mlp.fc1.weight"], w[f"{at}.mlp.fc1.bias"])
        h = h + F.linear(F.gelu(inner), w[f"{at}.mlp.fc2.weight"], w[f"{at}.mlp.fc2.bias"])
    pooled = torch.stack([row[int((one == end).int().argmax())] for row, one in zip(h, ids, strict=True)])
    return _norm(w, f"{model}.final_layer_norm", pooled, 1e-5) @ w["text_projection.weight"].T
