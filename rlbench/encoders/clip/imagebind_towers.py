"""ImageBind's towers: a stem, a class token, positions, pre-norm transformer blocks and a projection.

Girdhar et al., 2023, https://arxiv.org/abs/2305.05665; parameters are read from the names of
https://github.com/facebookresearch/ImageBind. Its other towers than that for images attend to one more, learned token
in every block (bias_k, bias_v).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from rlbench.core.errors import CheckpointError

EPS = 1e-6  # of the norms; the stems have torch's default
# The weights do not show the number of heads.
HEADS = {"vision": 16, "text": 16, "audio": 12}
_PLACES = {
    r"modality_preprocessors\.\w+\.": "",
    r"modality_trunks\.\w+\.": "",
    r"modality_heads\.\w+\.(?:0|proj\.0)\.": "head_norm.",
    r"modality_heads\.\w+\.(?:2|proj\.1)\.": "head.",
    r"^rgbt_stem\.proj\.(?:1\.)?": "stem.",
    r"^rgbt_stem\.norm_layer\.": "stem_norm.",
    r"^pre_transformer_layer\.0\.": "pre_norm.",
    r"^pos_embedding_helper\.pos_embed": "positions",
    r"^pos_embed$": "positions",
    r"^token_embedding\.weight": "tokens",
    r"^cls_token": "class_token",
}


def rename(weights: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """The weights of a modality's tower, from all of a checkpoint, under the names of `ImageBindTower`."""
    found = {}
    for name, value in weights.items():
        part = re.match(rf"modality_(?:preprocessors|trunks|heads)\.{modality}\.", name)
        if part is None:
            continue
        for pattern, place in _PLACES.items():
            name = re.sub(pattern, place, name)
        found[name] = value
    return found


class Block(nn.Module):
    """A pre-norm block; its attention has a learned key and value where the weights do."""

    def __init__(self, width: int, mlp: int, heads: int, *, extra: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=extra)  # only its parameters are used
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, mlp), "fc2": nn.Linear(mlp, width)})

    def attend(self, h: Tensor, *, causal: bool) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        own = self.attn
        q, k, v = linear(h, own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        if own.bias_k is not None and own.bias_v is not None:
            k = torch.cat([k, own.bias_k.expand(len(h), -1, -1)], 1)
            v = torch.cat([v, own.bias_v.expand(len(h), -1, -1)], 1)
        b, _, d = h.shape
        q, k, v = (part.reshape(b, -1, self.heads, d // self.heads).transpose(1, 2) for part in (q, k, v))
        found = scaled_dot_product_attention(q, k, v, is_causal=causal)
        return cast(Tensor, own.out_proj(found.transpose(1, 2).flatten(2)))

    def forward(self, h: Tensor, *, causal: bool = False) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        h = h + self.attend(self.norm_1(h), causal=causal)
        return h + cast(Tensor, self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm_2(h)))))


def _stem(weight: Tensor, stride: int) -> nn.Conv2d | nn.Conv3d:
    """The convolution with a weight of that shape; with a stride of 0, its patches do not overlap."""
    width, channels, *kernel = weight.shape
    conv: Any = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
    return cast("nn.Conv2d | nn.Conv3d", conv(channels, width, tuple(kernel), stride or tuple(kernel), bias=False))


class ImageBindTower(nn.Module):
    """A tower with these weights, frozen, in evaluation mode; features are not normalised.

    Args:
        weights: as by `rename`.
        heads: number of attention heads.
        stride: of the stem, in pixels; 0: the side of its kernel.
        source: the file, for error messages.

    Raises: CheckpointError: a tensor is missing, left over or of another shape.
    """

    class_token: Tensor
    positions: Tensor
    tokens: Tensor
    stem: nn.Conv2d | nn.Conv3d

    def __init__(self, weights: Mapping[str, Tensor], heads: int, *, stride: int = 0, source: str) -> None:
        super().__init__()
        numbers = {int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name))}
        first = weights.get("blocks.0.mlp.fc1.weight")
        if first is None or first.dim() != 2 or first.shape[1] % heads or "head.weight" not in weights:
            raise CheckpointError(f"{source} does not hold a tower of ImageBind with {heads} attention heads")
        mlp, width = first.shape
        with torch.device("meta"):
            self.positions = nn.Parameter(torch.empty_like(weights.get("positions", first)))
            if "tokens" in weights:
                self.tokens = nn.Parameter(torch.empty_like(weights["tokens"]))
            else:
                self.class_token = nn.Parameter(torch.empty(1, 1, width))
                self.stem = _stem(weights.get("stem.weight", first), stride)
            self.stem_norm = nn.LayerNorm(width) if "stem_norm.weight" in weights else None
            self.pre_norm = nn.LayerNorm(width, EPS) if "pre_norm.weight" in weights else None
            extra = "blocks.0.attn.bias_k" in weights
            self.blocks = nn.ModuleList([Block(width, mlp, heads, extra=extra) for _ in range(len(numbers))])
            self.head_norm = nn.LayerNorm(width, EPS)
            self.head = nn.Linear(width, len(weights["head.weight"]), bias=False)
        try:
            self.load_state_dict(weights, strict=True, assign=True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise CheckpointError(f"{source} does not hold the towers of ImageBind: {reason}") from error
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, [T,] H, W), normalised -> (B, P)."""
        h = self.stem(x).flatten(2).transpose(1, 2)
        h = h if self.stem_norm is None else self.stem_norm(h)
        h = torch.cat([self.class_token.expand(len(h), -1, -1), h], 1) + self.positions
        h = h if self.pre_norm is None else self.pre_norm(h)
        for block in self.blocks:
            h = block(h)
        return cast(Tensor, self.head(self.head_norm(h[:, 0])))

    def embed_ids(self, ids: Tensor) -> Tensor:
        """(P, L) ids of tokens -> (P, D); the feature is that of the first highest id, which ends the text."""
        h = self.tokens[ids] + self.positions
        for block in self.blocks:
            h = block(h, causal=True)
        return cast(Tensor, self.head(self.head_norm(h[torch.arange(len(h), device=h.device), ids.argmax(1)])))
