"""A randomly initialised vision tower of real size as a benchmark's model, on images whose answers break in part.

Its answers mean nothing. Its sizes are those of CLIP's towers, so its passes cost what a trained one's cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from rlbench.core import Adversarial, Box, Clean, Examples, Label, Modality, Suite, Trait
from rlbench.core.batch import BatchSize
from rlbench.encoders.clip.fronts import Pixels
from rlbench.encoders.clip.towers import VisionSizes, random_weights, vision_tower
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.block.bench import Bench

SIZES = {
    "vit-b-32": VisionSizes(hidden=768, mlp=3072, layers=12, heads=12, patch=32, projection=512),
    "vit-l-14": VisionSizes(),
    "tiny": VisionSizes(hidden=64, mlp=128, layers=2, heads=2, patch=16, height=32, width=32, projection=32),
}
CLASSES = 100
BLUR = 16  # pixels
PROTOTYPES = 2 * 10**6  # the first of the images whose embeddings are the anchors


class RandomVision(nn.Module):
    """An encoder of images with the random tower of a size; embeddings are centred, as random ones are nearly equal."""

    traits: frozenset[Trait] = frozenset()
    sha256: dict[Modality, str] = {}  # noqa: RUF012  # of the protocol Encoder, never changed
    logit_scale = 20.0
    centre: Tensor

    def __init__(self, size: str, seed: int = 0) -> None:
        super().__init__()
        sizes, g = SIZES[size], torch.Generator().manual_seed(seed)
        self.boxes: dict[Modality, Box] = {"image": Box(shape=(3, sizes.height, sizes.width))}
        self.front, self.tower = Pixels(self.boxes["image"]), vision_tower(random_weights(sizes, g), sizes)
        self.register_buffer("centre", torch.zeros(sizes.projection))
        with torch.no_grad():
            self.centre = torch.cat([self.features(x) for x in draw(sizes.height, 10**6, 32).split(8)]).mean(0)
        self.eval().requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) float32."""
        return self.tower(self.front(_average(x))).float() - self.centre  # type: ignore[no-any-return]

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D), unit norm."""
        return normalize(self.features(x), dim=-1)

    def embed_text(self, prompts: list[str]) -> Tensor:
        """It has no text."""
        raise NotImplementedError


def _average(x: Tensor) -> Tensor:
    """(B, C, H, W) -> the same, with each block's mean: answers break at an eps as of trained models."""
    b, c, h, w = x.shape
    blocks = x.view(b, c, h // BLUR, BLUR, w // BLUR, BLUR)
    return blocks.mean((3, 5), keepdim=True).expand_as(blocks).reshape(x.shape)


def draw(side: int, start: int, n: int) -> Tensor:
    """(n, 3, side, side) in [0, 1]: smooth random images; the k-th depends only on `start` + k."""
    coarse = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(start + k)) for k in range(n)]
    return interpolate(torch.stack(coarse), (side, side), mode="bicubic").clamp(0, 1)


@dataclass(frozen=True)
class SmoothImages:
    """Smooth random images near those of a class, with the model's own answers as labels: all are correct clean."""

    head: ZeroShot = field(hash=False)
    modality: Modality = "image"
    classes: tuple[Label, ...] = tuple(Label(str(k), str(k)) for k in range(CLASSES))
    templates: tuple[str, ...] = ("{}",)

    def size(self, split: str) -> None:
        """Any number."""

    def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
        """Examples start..stop-1."""
        ids, prototypes = tuple(str(k) for k in range(start, stop)), draw(box.shape[-1], PROTOTYPES, CLASSES)
        own = draw(box.shape[-1], start, stop - start)
        numbers = torch.arange(start, stop)
        share = 0.7 + 0.25 * (numbers * 0.618034 % 1).view(-1, 1, 1, 1)  # of an image that is its class's
        x = own + share * (prototypes[numbers % CLASSES] - own)
        with torch.no_grad():
            y = torch.cat([self.head(part.to(self.head.anchors.device)).argmax(1).cpu() for part in x.split(16)])
        return Examples(x, y, ids, ids)

    def fingerprint(self) -> str:
        """A name."""
        return f"smooth random images {type(self.head.encoder).__name__}"


@cache
def make_head(size: str, device: str = "cpu") -> ZeroShot:
    """The classifier of a size; its anchors are embeddings of smooth images.

    Args:
        size: a key of SIZES.
        device: a torch device.
    """
    encoder = RandomVision(size)
    side = encoder.boxes["image"].shape[-1]
    with torch.no_grad():
        anchors = torch.cat([encoder.embed(x, "image") for x in draw(side, PROTOTYPES, CLASSES).split(10)])
    return ZeroShot(encoder.to(device), "image", anchors.to(device))


def make_bench(
    size: str, *attacks: Adversarial, examples: int, device: str = "cpu", batch_size: int | BatchSize = 64
) -> Bench:
    """The tower of a size on its images, ready to be evaluated.

    Args:
        size: a key of SIZES.
        *attacks: the columns beside the clean one.
        examples: number of examples.
        device: a torch device.
        batch_size: the most examples of a forward pass.
    """
    head = make_head(size, device)
    suite = Suite(
        name=size,
        version=1,
        summary="",
        modality="image",
        task_name="smooth images",
        task=SmoothImages(head),
        perturbations=(Clean(), *attacks),
        examples=examples,
        seed=0,
        path="",
    )
    batch = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size, device)
    return Bench(suite, head, head.box, f"smooth {size}", device, batch)
