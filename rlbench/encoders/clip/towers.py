"""CLIP's two towers as in LanguageBind: transformers' layers on a rectangular grid, with attention over time.

CLIP: Radford et al., 2021, https://arxiv.org/abs/2103.00020. LanguageBind: Zhu et al., 2023,
https://arxiv.org/abs/2310.01852. Parameters have the names of transformers' CLIPModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlbench.core.errors import DataError, RLBenchError, first_line

try:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer
except (ImportError, RuntimeError) as error:  # it imports an installed torchvision, which may not match torch
    raise RLBenchError(
        f"transformers can't be imported ({first_line(error.__cause__ or error)}); an installed torchvision must be of "
        "the same build as torch: uninstall it, or install both from the same index"
    ) from error

Attention = Literal["sdpa", "eager"]


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """The architecture of a visual tower; the defaults are ViT-L/14.

    Attributes:
        hidden: width of the transformer.
        mlp: width of its MLPs.
        layers: number of its layers.
        heads: number of its attention heads.
        patch: side of a patch, in pixels.
        channels: number of input channels.
        height: height of the input in pixels; rows that do not fill a patch are ignored.
        width: width of the input in pixels; columns that do not fill a patch are ignored.
        projection: size of the embedding.
        frames: number of frames of the attention over time; 0: there is none.
        frame_classes: number of class tokens, one per frame; 0: one for all frames.
        activation: the activation of the MLPs.
        eps: the constant of the layer norms.
    """

    hidden: int = 1024
    mlp: int = 4096
    layers: int = 24
    heads: int = 16
    patch: int = 14
    channels: int = 3
    height: int = 224
    width: int = 224
    projection: int = 768
    frames: int = 0
    frame_classes: int = 0
    activation: str = "gelu"
    eps: float = 1e-5

    @property
    def positions(self) -> int:
        """Number of patches plus one class token."""
        return (self.height // self.patch) * (self.width // self.patch) + 1

    @property
    def clip(self) -> int:
        """Number of frames that the input must have; 0: any number."""
        return self.frames or self.frame_classes


@dataclass(frozen=True, kw_only=True)
class TextSizes:
    """The architecture of a text tower; the defaults are ViT-L/14's."""

    hidden: int = 768
    mlp: int = 3072
    layers: int = 12
    heads: int = 12
    vocabulary: int = 49408
    positions: int = 77
    projection: int = 768
    activation: str = "gelu"
    eps: float = 1e-5


class _Embeddings(nn.Module):
    """Embeds the patches of a rectangle, and adds a class token and positions."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        shape = (sizes.frame_classes, sizes.hidden) if sizes.frame_classes else (sizes.hidden,)
        self.class_embedding = nn.Parameter(torch.empty(shape))
        self.patch_embedding = nn.Conv2d(sizes.channels, sizes.hidden, sizes.patch, sizes.patch, bias=False)
        self.position_embedding = nn.Embedding(sizes.positions, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B * T, C, H, W) -> (B * T, N, D)."""
        patches = self.patch_embedding(x).flatten(2).transpose(1, 2)
        tokens = self.class_embedding.view(-1, 1, patches.shape[-1])  # one, or one per frame
        tokens = tokens.repeat(len(patches) // len(tokens), 1, 1)
        return torch.cat([tokens, patches], 1) + self.position_embedding.weight


class _Layer(nn.Module):
    """transformers' layer without masks."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        stock = CLIPEncoderLayer(config)
        self.self_attn, self.layer_norm1 = stock.self_attn, stock.layer_norm1
        self.mlp, self.layer_norm2 = stock.mlp, stock.layer_norm2

    def forward(self, h: Tensor) -> Tensor:
        """(B * T, N, D) -> the same."""
        h = h + self.self_attn(self.layer_norm1(h))[0]
        return cast(Tensor, h + self.mlp(self.layer_norm2(h)))


class _TemporalLayer(_Layer):
    """A layer that first attends over the frames, patch by patch, without an MLP."""

    def __init__(self, config: CLIPVisionConfig, frames: int) -> None:
        super().__init__(config)
        self.frames = frames
        self.temporal_embedding = nn.Parameter(torch.empty(1, frames, config.hidden_size))
        self.temporal_attn = type(self.self_attn)(config)
        self.temporal_layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, h: Tensor) -> Tensor:
        """(B * T, N, D) -> the same."""
        n, d = h.shape[1:]
        over_time = h.view(-1, self.frames, n, d).transpose(1, 2).reshape(-1, self.frames, d)
        if self.frames > 1:
            over_time = over_time + self.temporal_embedding
        over_time = over_time + self.temporal_attn(self.temporal_layer_norm1(over_time))[0]
        return super().forward(over_time.view(-1, n, self.frames, d).transpose(1, 2).reshape(-1, n, d))


class _Layers(nn.Module):
    def __init__(self, layers: list[_Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class _Vision(nn.Module):
    def __init__(self, sizes: VisionSizes, attention: Attention) -> None:
        super().__init__()
        config = CLIPVisionConfig(
            hidden_size=sizes.hidden,
            intermediate_size=sizes.mlp,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            hidden_act=sizes.activation,
            layer_norm_eps=sizes.eps,
        )
        config._attn_implementation = attention
        frames = sizes.frames
        self.embeddings = _Embeddings(sizes)
        self.pre_layrnorm = nn.LayerNorm(sizes.hidden, eps=sizes.eps)
        self.encoder = _Layers(
            [_TemporalLayer(config, frames) if frames else _Layer(config) for _ in range(sizes.layers)]
        )
        self.post_layernorm = nn.LayerNorm(sizes.hidden, eps=sizes.eps)


class VisionTower(nn.Module):
    """The visual tower of one modality, with its projection; features are not normalised."""

    def __init__(self, sizes: VisionSizes, attention: Attention = "sdpa") -> None:
        super().__init__()
        self.sizes, self.checkpointing = sizes, False
        self.vision_model = _Vision(sizes, attention)
        self.visual_projection = nn.Linear(sizes.hidden, sizes.projection, bias=False)

    def gradient_checkpointing_enable(self) -> None:
        """Recomputes the layers' activations in the backward pass: less memory, a third more time."""
        self.checkpointing = True

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, T, H, W), normalised -> (B, P), the mean over the frames.

        Raises: DataError: height, width or number of frames do not match the tower.
        """
        x = pixel_values
        frames = x.shape[2] if x.dim() == 5 else 1
        if self.sizes.clip not in (0, frames) or x.shape[-2:] != (self.sizes.height, self.sizes.width):
            size = f"{self.sizes.height} x {self.sizes.width}, {self.sizes.clip or 'any number of'} frames"
            raise DataError(f"pixel values of shape {tuple(x.shape)} do not fit a tower for {size}")
        if x.dim() == 5:
            x = x.transpose(1, 2).flatten(0, 1)
        model = self.vision_model
        h = model.pre_layrnorm(model.embeddings(x))
        # A clip in ViT-L/14 needs 4 GB of activations; on a CPU, recomputing them takes only a seventh more time.
        again = torch.is_grad_enabled() and (self.checkpointing or (frames > 1 and x.device.type == "cpu"))
        for layer in model.encoder.layers:
            h = checkpoint(layer, h, use_reentrant=False) if again else layer(h)
        pooled = model.post_layernorm(h[:, 0]).view(-1, frames, h.shape[-1]).mean(1)
        return cast(Tensor, self.visual_projection(pooled))


class TextTower(nn.Module):
    """transformers' text tower with its projection; the feature is that of the first end-of-text token."""

    def __init__(self, sizes: TextSizes, attention: Attention = "sdpa") -> None:
        super().__init__()
        self.sizes = sizes
        config = CLIPTextConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.hidden,
            intermediate_size=sizes.mlp,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=sizes.positions,
            projection_dim=sizes.projection,
            hidden_act=sizes.activation,
            layer_norm_eps=sizes.eps,
            bos_token_id=sizes.vocabulary - 2,
            eos_token_id=2,  # makes transformers take the first position of the highest id, which ends the text
        )
        config._attn_implementation = attention
        model = CLIPTextModelWithProjection(config)
        self.text_model, self.text_projection = model.text_model, model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(P, L) int64 ids, and a mask that is 0 at padding -> (P, D), not normalised."""
        pooled = self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return cast(Tensor, self.text_projection(pooled))


def vision_tower(weights: Mapping[str, Tensor], sizes: VisionSizes, attention: Attention = "sdpa") -> VisionTower:
    """A visual tower with these weights (not copies), frozen, in evaluation mode; names and shapes must match."""
    with torch.device("meta"):
        tower = VisionTower(sizes, attention)
    tower.load_state_dict(weights, strict=True, assign=True)
    return tower.eval().requires_grad_(False)


def text_tower(weights: Mapping[str, Tensor], sizes: TextSizes, attention: Attention = "sdpa") -> TextTower:
    """A text tower with these weights (not copies), frozen, in evaluation mode; names and shapes must match."""
    with torch.device("meta"):
        tower = TextTower(sizes, attention)
    tower.load_state_dict(weights, strict=True, assign=True)
    embeddings = tower.text_model.embeddings
    embeddings.position_ids = torch.arange(sizes.positions)[None]  # not a weight, so it has no values yet
    return tower.eval().requires_grad_(False)


def shapes(sizes: VisionSizes | TextSizes) -> dict[str, torch.Size]:
    """The names and shapes of a tower's weights."""
    with torch.device("meta"):
        tower = VisionTower(sizes) if isinstance(sizes, VisionSizes) else TextTower(sizes)
    return {name: value.shape for name, value in tower.state_dict().items()}


def random_weights(sizes: VisionSizes | TextSizes, g: torch.Generator) -> dict[str, Tensor]:
    """Random weights of a tower, with the deviations of CLIP and of LanguageBind's attention over time."""
    hidden, layers = sizes.hidden, sizes.layers
    deep = hidden**-0.5 * (2 * layers) ** -0.5
    deviations = {"q_proj": deep, "k_proj": deep, "v_proj": deep, "out_proj": hidden**-0.5, "fc2": deep}
    deviations |= {"fc1": (2 * hidden) ** -0.5, "class_embedding": hidden**-0.5, "temporal_embedding": hidden**-0.5}
    deviations |= {"visual_projection": hidden**-0.5, "text_projection": hidden**-0.5}

    def one(name: str, shape: torch.Size) -> Tensor:
        if name.endswith("bias"):
            return torch.zeros(shape)
        part = name.removesuffix(".weight").rsplit(".", 1)[-1]
        if "norm" in part:
            return torch.ones(shape)
        return torch.empty(shape).normal_(0.0, deviations.get(part, 0.02), generator=g)

    return {name: one(name, shape) for name, shape in shapes(sizes).items()}
