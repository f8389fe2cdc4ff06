"""Prompts -> embeddings, with CLIP's tokenizer from a checkpoint's folder, or with hashed words if there is none."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core.errors import CheckpointError
from rlbench.encoders.clip.hf_quiet import reading_tokenizer
from rlbench.encoders.clip.towers import TextTower

_VOCABULARIES = ("vocab.json", "tokenizer.json")
_BATCH = 256  # prompts per call


class Tokenizer(Protocol):
    """(P,) prompts -> (P, L) int64 ids, and a (P, L) int64 mask that is 0 at padding."""

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class HashedTokens:
    """A tokenizer without vocabulary, for random text towers: each word is hashed to an id.

    The last two ids mark the begin and the end; longer prompts are cut.
    """

    vocabulary: int
    positions: int

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        begin, end = self.vocabulary - 2, self.vocabulary - 1
        ids = torch.full((len(prompts), self.positions), end)
        for row, prompt in zip(ids, prompts, strict=True):
            words = re.findall(r"[^\W_]+", prompt.lower())[: self.positions - 2]
            row[: len(words) + 1] = torch.tensor([begin, *(zlib.crc32(word.encode()) % begin for word in words)])
        length = (ids == end).int().argmax(1, keepdim=True)
        return ids, (torch.arange(self.positions) <= length).long()


class ClipTokens:
    """The byte-pair encoding of a checkpoint's folder, padded to the text tower's positions; longer prompts are cut.

    Raises:
        CheckpointError: the folder has no vocabulary, or one of another size.
    """

    def __init__(self, folder: Path, vocabulary: int, positions: int) -> None:
        from transformers import CLIPTokenizer

        if not any((folder / name).is_file() for name in _VOCABULARIES):
            raise CheckpointError(f"{folder} has no tokenizer: it needs vocab.json and merges.txt, or tokenizer.json")
        with reading_tokenizer(folder):
            self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        if len(self._tokenizer) != vocabulary:
            raise CheckpointError(f"{folder}: {len(self._tokenizer)} tokens, but its text tower has {vocabulary}")
        self._positions = positions
        if int(self(["a photo"])[0].max()) >= vocabulary:
            raise CheckpointError(f"{folder}: its tokenizer has ids beyond the {vocabulary} of the text tower")

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        cut = {"padding": "max_length", "max_length": self._positions, "truncation": True}
        with reading_tokenizer(self._tokenizer.name_or_path):
            found = self._tokenizer(list(prompts), return_tensors="pt", **cut)
        return found["input_ids"], found["attention_mask"]

    @property
    def special(self) -> tuple[int, int, int]:
        """The tokens that begin, end and pad a text."""
        inner = self._tokenizer
        return int(inner.bos_token_id), int(inner.eos_token_id), int(inner.pad_token_id)

    def save(self, folder: Path) -> None:
        """Writes the files of the tokenizer, with the length of the text tower."""
        self._tokenizer.model_max_length = self._positions
        self._tokenizer.save_pretrained(folder)


class Text(nn.Module):
    """A frozen text tower with its tokenizer.

    Attributes:
        tower: the text tower.
        tokens: the tokenizer.
        source: its origin: "hub REPOSITORY REVISION", "folder PATH" or "fresh SIZE SEED".
    """

    def __init__(self, tower: TextTower, tokens: Tokenizer, source: str) -> None:
        super().__init__()
        self.tower, self.tokens, self.source = tower, tokens, source

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, D), unit norm."""
        device = self.tower.text_projection.weight.device
        rows = []
        with torch.no_grad():
            for start in range(0, len(prompts), _BATCH):
                ids, mask = self.tokens(prompts[start : start + _BATCH])
                rows.append(normalize(self.tower(ids.to(device), mask.to(device)), dim=-1))
        return torch.cat(rows) if rows else torch.empty(0, self.tower.sizes.projection, device=device)


def digest(tower: TextTower) -> str:
    """The sha256 of a text tower's weights in float32, to check that all modalities share it."""
    found = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        found.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
