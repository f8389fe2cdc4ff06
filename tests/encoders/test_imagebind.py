"""ImageBind's published layout, in small sizes, against its definition with torch's own layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from languagebind_models import WORDS, write_checkpoint
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.core.media import filterbank
from rlbench.encoders.clip.fronts import MEAN, STD
from rlbench.encoders.clip.text import ClipTokens
from rlbench.encoders.imagebind import ImageBind, imagebind
from rlbench.encoders.models import is_path, load_encoder

OUT, SIDE, PATCH = 20, 28, 14
WIDTHS = {"vision": (32, 16), "text": (48, 16), "audio": (24, 12), "depth": (16, 8)}


class Block(nn.Module):
    def __init__(self, width: int, heads: int, extra: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=extra)  # (length, batch, width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 2 * width))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(2 * width, width))

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        n = self.norm_1(h)
        h = h + self.attn(n, n, n, need_weights=False, attn_mask=mask)[0]
        return h + self.mlp(self.norm_2(h))


def parts(modality: str, vocabulary: int, positions: int) -> dict[str, nn.Module]:
    """The modules of a modality, by the names of the published weights."""
    width, heads = WIDTHS[modality]
    before = nn.Module()
    if modality == "text":
        before.token_embedding = nn.Embedding(vocabulary, width)
        before.pos_embed = nn.Parameter(torch.empty(1, positions, width))
        before.register_buffer("mask", torch.full((positions, positions), float("-inf")).triu(1))
        after = nn.Module()
        after.proj = nn.Sequential(nn.LayerNorm(width, 1e-6), nn.Linear(width, OUT, bias=False))
    else:
        stem, helper = nn.Module(), nn.Module()
        if modality == "vision":
            kernel = (2, PATCH, PATCH)
            stem.proj = nn.Sequential(nn.Identity(), nn.Conv3d(3, width, kernel, kernel, bias=False))
        else:
            stem.proj = nn.Conv2d(1, width, 16, 10, bias=False)
            stem.norm_layer = nn.LayerNorm(width)
        count = (SIDE // PATCH) ** 2 if modality == "vision" else 12 * 19
        helper.pos_embed = nn.Parameter(torch.empty(1, count + 1, width))
        before.cls_token = nn.Parameter(torch.empty(1, 1, width))
        before.rgbt_stem, before.pos_embedding_helper = stem, helper
        after = nn.Sequential(nn.LayerNorm(width, 1e-6), nn.Identity(), nn.Linear(width, OUT, bias=False))
    trunk = nn.Module()
    trunk.pre_transformer_layer = nn.Sequential(nn.LayerNorm(width, 1e-6) if modality == "vision" else nn.Identity())
    trunk.blocks = nn.ModuleList([Block(width, heads, modality in ("audio", "depth")) for _ in range(2)])
    return {"preprocessors": before, "trunks": trunk, "heads": after}


class Reference(nn.Module):
    def __init__(self, vocabulary: int, positions: int) -> None:
        super().__init__()
        made = {modality: parts(modality, vocabulary, positions) for modality in WIDTHS}
        for kind in ("preprocessors", "trunks", "heads"):
            self.add_module(f"modality_{kind}", nn.ModuleDict({m: one[kind] for m, one in made.items()}))
        scaling = nn.Module()
        scaling.log_logit_scale = nn.Parameter(torch.tensor(3.0))
        self.modality_postprocessors = nn.ModuleDict({"text": nn.Sequential(nn.Identity(), scaling)})
        g = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if not name.endswith("log_logit_scale"):
                    value.copy_(0.3 * torch.randn(value.shape, generator=g) + name.endswith("norm.weight"))

    def encode(self, modality: str, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.modality_trunks[modality].pre_transformer_layer(tokens).transpose(0, 1)
        for block in self.modality_trunks[modality].blocks:
            h = block(h, mask)
        return h.transpose(0, 1)

    def see(self, modality: str, x: Tensor) -> Tensor:
        """(B, C, T, H, W) or (B, 1, mels, frames), normalised -> (B, OUT), unit norm."""
        before = self.modality_preprocessors[modality]
        h = before.rgbt_stem.proj(x).flatten(2).transpose(1, 2)
        h = before.rgbt_stem.norm_layer(h) if modality != "vision" else h
        h = torch.cat([before.cls_token.expand(len(h), -1, -1), h], 1) + before.pos_embedding_helper.pos_embed
        head = self.modality_heads[modality]
        return normalize(head[2](head[0](self.encode(modality, h))[:, 0]), dim=-1)

    def read(self, ids: Tensor) -> Tensor:
        before = self.modality_preprocessors["text"]
        h = self.encode("text", before.token_embedding(ids) + before.pos_embed, before.mask)
        return normalize(self.modality_heads["text"].proj(h[torch.arange(len(h)), ids.argmax(1)]), dim=-1)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Reference, ClipTokens]:
    folder = write_checkpoint(tmp_path_factory.mktemp("imagebind"), "image")
    vocabulary = len((folder / "vocab.json").read_text().split(","))
    model = Reference(vocabulary, 9).eval()
    torch.save(model.state_dict(), folder / "imagebind_huge.pth")
    return folder / "imagebind_huge.pth", model, ClipTokens(folder, vocabulary, 9)


def test_images_videos_and_texts_are_as_defined(made) -> None:
    path, model, tokens = made
    encoder = load_encoder(f"imagebind:{path}")
    assert set(encoder.boxes) == {"image", "video", "audio"} and encoder.boxes["image"].shape == (3, SIDE, SIDE)
    assert encoder.logit_scale == pytest.approx(torch.tensor(3.0).exp())
    x = torch.rand(2, 3, 10, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (MEAN, STD))
    pairs = [model.see("vision", ((x - mean) / std)[:, :, k : k + 2]) for k in range(0, 10, 2)]
    still = model.see("vision", ((x - mean) / std)[:, :, :1].repeat(1, 1, 2, 1, 1))
    with torch.no_grad():
        assert torch.allclose(encoder.embed(x[:, :, 0], "image"), still, atol=1e-5)
        assert torch.allclose(encoder.embed(x, "video"), normalize(sum(pairs), dim=-1), atol=1e-5)
        assert torch.allclose(encoder.embed_text(WORDS), model.read(tokens(WORDS)[0]), atol=1e-5)
    assert encoder.embed_text([]).shape == (0, OUT)
    with pytest.raises(ModalityError, match="no depth; it has image, video, audio"):
        encoder.embed(x, "depth")


def test_sounds_are_the_mean_of_three_pieces(made) -> None:
    path, model, _ = made
    encoder = imagebind(source=str(path), seconds=3.0)
    wave = torch.rand(2, 1, 48_000, generator=torch.Generator().manual_seed(2)) - 0.5
    found = []
    for start in (0, 8_000, 16_000):
        piece = wave[:, 0, start : start + 32_000]
        mel = filterbank.fbank(piece - piece.mean(1, keepdim=True), 128).transpose(1, 2)
        assert mel.shape == (2, 128, 198)
        found.append(model.see("audio", (pad(mel, (0, 6)) + 4.268)[:, None] / 9.138))
    assert torch.allclose(encoder.embed(wave, "audio"), normalize(sum(found), dim=-1), atol=1e-5)


def test_gradients_reach_the_inputs(made) -> None:
    encoder = imagebind(source=str(made[0]), seconds=0.5, frames=2)
    for modality, box in encoder.boxes.items():
        x = (torch.rand(1, *box.shape) * 0.1 + 0.2).requires_grad_()
        (gradient,) = torch.autograd.grad(encoder.embed(x, modality)[:, 0].sum(), x)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


@contextmanager
def changed(path: Path, **values: object) -> Iterator[Path]:
    weights = torch.load(path)
    other = path.with_name("other.pth")
    torch.save({k: v for k, v in {**weights, **values}.items() if v is not None}, other)
    yield other


AUDIO = "modality_preprocessors.audio.pos_embedding_helper.pos_embed"
BLOCK = "modality_trunks.vision.blocks.1.norm_2.bias"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({BLOCK: None}, r"does not hold the towers of ImageBind: Missing key"),
        ({"modality_trunks.text.extra": torch.zeros(1)}, "does not hold the towers of ImageBind: Unexpected key"),
        ({AUDIO: torch.zeros(1, 100, 24)}, "its audio tower has 100 positions; 128 x 204 log-mel frames need 229"),
        ({"modality_heads.text.proj.1.weight": None}, "does not hold a tower of ImageBind"),
    ],
)
def test_other_files_are_refused(made, values, message) -> None:
    with changed(made[0], **values) as other, pytest.raises(CheckpointError, match=message):
        imagebind(source=str(other))


def test_mistakes_in_the_name(made, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*none\.pth; download https://"):
        load_encoder(f"imagebind:{tmp_path}/none.pth")
    with pytest.raises(FieldError, match="frames 3"):
        imagebind(source=str(made[0]), frames=3)
    assert is_path("imagebind:imagebind_huge.pth") and isinstance(load_encoder(f"imagebind:{made[0]}"), ImageBind)
