"""The bundled backbone: a small vision transformer with a convolutional stem per modality, and hashed text.

A small stand-in for LanguageBind (Zhu et al., 2023, https://arxiv.org/abs/2310.01852): one tower per modality, all
trained towards one frozen text tower. The stem follows Xiao et al., 2021, https://arxiv.org/abs/2106.14881, because at
this size a plain patch embedding does not learn within minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import normalize, relu, unfold

from rlbench.core import Box, Modality, Trait
from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.core.registry import register
from rlbench.encoders.clip.hashed_text import HashedText

WIDTH, DEPTH, HEADS, EMBEDDING, GROUPS = 96, 3, 4, 64, 8
SCALE = ".scale"  # suffix for the scales of weights stored in 8 bits
BOXES: dict[Modality, Box] = {
    "image": Box(shape=(3, 32, 32)),
    "thermal": Box(shape=(1, 32, 32)),
    "audio": Box(shape=(1, 64, 64), unit="log-mel"),
    "video": Box(shape=(3, 8, 32, 32)),
}


class TransformerBlock(nn.Module):
    """A pre-norm transformer block; at 16 tokens an explicit softmax is faster than fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        b, n, d = h.shape
        heads = self.qkv(self.norm1(h)).view(b, n, 3, HEADS, d // HEADS).unbind(2)
        q, k, v = (one.transpose(1, 2).reshape(b * HEADS, n, -1) for one in heads)  # one copy in the gradient, too
        attention = (torch.bmm(q, k.transpose(1, 2)) * (d // HEADS) ** -0.5).softmax(-1)
        h = h + self.out(torch.bmm(attention, v).view(b, HEADS, n, -1).transpose(1, 2).reshape(b, n, d))
        return h + cast(Tensor, self.down(relu(self.up(self.norm2(h)))))


class OneChannelConv(nn.Conv2d):
    """A convolution of one channel as a matrix product over patches, whose gradient is twice as fast."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, H / stride, W / stride)."""
        columns = unfold(x, self.kernel_size, padding=cast("tuple[int, int]", self.padding), stride=self.stride)
        assert self.bias is not None
        h = torch.baddbmm(self.bias[:, None], self.weight.flatten(1).expand(len(x), -1, -1), columns)
        return h.view(len(x), -1, x.shape[-2] // self.stride[0], x.shape[-1] // self.stride[1])


def _stem(box: Box) -> nn.Sequential:
    """Convolutions from the box to 4 x 4 tokens; for a 64-pixel box the first one has stride 4."""
    channels = 1
    for size in box.shape[:-2]:
        channels *= size
    kernel, stride = (3, 2) if box.shape[-1] == 32 else (7, 4)
    layers: list[nn.Module] = []
    for width in (24, 48, WIDTH):
        conv = OneChannelConv if channels == 1 else nn.Conv2d
        layers += [
            conv(channels, width, kernel, stride, kernel // 2),
            nn.GroupNorm(GROUPS, width),
            nn.ReLU(inplace=True),
        ]
        channels, kernel, stride = width, 3, 2
    return nn.Sequential(*layers)


class Tower(nn.Module):
    """The tower of one modality; its features are not normalised. Frames of a video become channels."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        self.stem = _stem(box)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, WIDTH))
        self.blocks = nn.ModuleList([TransformerBlock() for _ in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *box.shape) in [0, 1] -> (B, D)."""
        x = (x - 0.5) * 4
        tokens = self.stem(x.reshape(len(x), -1, *x.shape[-2:])).flatten(2).transpose(1, 2)
        h = tokens.contiguous() + self.positions  # else every block copies it
        for block in self.blocks:
            h = block(h)
        return cast(Tensor, self.head(self.norm(h).mean(1)))


class Mini(nn.Module):
    """Towers of some modalities and the text tower, as an Encoder."""

    traits: frozenset[Trait] = frozenset()
    logit_scale = 20.0

    def __init__(self, towers: Mapping[Modality, Tower], sha256: Mapping[Modality, str]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({str(modality): tower for modality, tower in towers.items()})
        self.text = HashedText(dim=EMBEDDING)
        self._sha256 = dict(sha256)

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {m: box for m, box in BOXES.items() if m in self.towers}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return self._sha256

    def features(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), not normalised."""
        if modality not in self.towers:
            raise ModalityError(f"this encoder has no {modality}; it has {', '.join(self.towers)}")
        return cast(Tensor, self.towers[modality](x))

    def tower(self, modality: Modality) -> nn.Module:
        """The module whose parameters are trained."""
        return self.towers[modality]

    def save(self, modality: Modality, path: Path) -> None:
        """Writes the tower in half precision. Raises: CheckpointError: it does not fit in."""
        path.write_bytes(pack(cast(Tower, self.towers[modality])))

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, *box.shape) in the box -> (B, D), unit norm."""
        return normalize(self.features(x, modality).float(), dim=-1)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        return self.text(prompts).to(next(self.parameters()).device)


def pack(tower: Tower, *, rows: Literal["half", "int8"] = "half") -> bytes:
    """The bytes of a tower as safetensors; equal weights give equal bytes.

    Args:
        tower: the tower to store.
        rows: format of matrices and convolutions: half precision, or 8 bits and one scale per row, half as large.

    Raises:
        CheckpointError: A value is not finite in half precision.
    """
    stored: dict[str, Tensor] = {}
    for name, value in sorted(tower.state_dict().items()):
        value = value.detach().cpu()
        if rows == "half" or value.dim() < 2 or len(value) == 1:
            stored[name] = value.half().contiguous()
            if not bool(stored[name].isfinite().all()):
                what = "beyond half precision, in which it is stored" if value.isfinite().all() else "not finite"
                raise CheckpointError(f"{name} has values {what}; try a smaller lr")
            continue
        flat = value.flatten(1)
        scale = (flat.abs().amax(1) / 127).clamp_min(1e-8)
        stored[name + SCALE] = scale
        stored[name] = (flat / scale[:, None]).round().to(torch.int8).view_as(value).contiguous()
    return save(stored)


def _dequantise(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights of what `pack` stored. Raises: RuntimeError: a scale does not fit its rows."""
    weights = {}
    for name, value in stored.items():
        scale = stored.get(name + SCALE)
        if not name.endswith(SCALE):
            weights[name] = (
                value.float() if scale is None else (value.flatten(1).float() * scale[:, None]).view_as(value)
            )
    return weights


def unpack(data: bytes, modality: Modality, source: str) -> Tower:
    """The tower from the bytes of `pack`: float32, frozen, in evaluation mode.

    Args:
        data: the bytes.
        modality: the tower's modality.
        source: the file, for error messages.

    Raises:
        CheckpointError: not safetensors, names or shapes of another architecture, or values that are not finite.
    """
    tower = Tower(BOXES[modality])
    try:
        weights = _dequantise(load(data))
        tower.load_state_dict(weights, strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{source} does not hold a mini {modality} tower: {reason}") from error
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise CheckpointError(f"{source} holds weights that are not finite")
    return tower.eval().requires_grad_(False)


@register("encoder", "mini")
def mini(*, files: Mapping[Modality, Path] | None = None, fresh: tuple[Modality, ...] = (), seed: int = 0) -> Mini:
    """Small transformer towers for image, thermal, audio and video; hashed text; trained on procedural worlds.

    Args:
        files: trained towers by modality.
        fresh: modalities whose towers get random weights instead.
        seed: the seed of the random weights.

    Raises:
        FieldError: files and fresh are both empty.
        CheckpointError: a file does not hold such a tower.
        ModalityError: fresh has a modality without a tower.
    """
    if not files and not fresh:
        raise FieldError(
            "encoder 'mini' needs the field 'files' (trained towers) or 'fresh' (modalities with random weights)"
        )
    data = {modality: path.read_bytes() for modality, path in (files or {}).items()}
    towers = {m: unpack(raw, m, str((files or {})[m])) for m, raw in data.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for modality in fresh:
            if modality not in BOXES:
                raise ModalityError(f"mini has no {modality}; it has {', '.join(BOXES)}")
            towers[modality] = Tower(BOXES[modality])
    encoder = Mini(towers, {m: hashlib.sha256(raw).hexdigest() for m, raw in data.items()})
    return encoder.eval().requires_grad_(False)
