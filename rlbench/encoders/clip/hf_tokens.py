"""A checkpoint's tokenizer, used as in its own pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoTokenizer

from rlbench.core.errors import CheckpointError
from rlbench.encoders.clip.hf_quiet import reading_tokenizer
from rlbench.encoders.clip.weights import check_no_code

_VOCABULARIES = ("vocab.json", "tokenizer.json", "spiece.model", "vocab.txt", "tokenizer.model")


class Tokens:
    """Prompts -> ids, padded to one length; longer prompts are cut at the limit of the tokenizer or of the tower.

    The tokenizer decides about lower case, special tokens, the side of padding and the attention mask. In its own
    pipeline, a CLIP pads to the longest prompt of a batch and masks the padding; one length gives equal features.
    SigLIP 2 was trained with lower case, which its Gemma tokenizer does not make; so it is made here.

    Raises: CheckpointError: the folder has no readable vocabulary, or more tokens than its text tower.
    """

    def __init__(self, folder: Path, kind: str, config: Any) -> None:
        if not any((folder / name).is_file() for name in _VOCABULARIES):
            raise CheckpointError(f"{folder} has no tokenizer: it needs one of {', '.join(_VOCABULARIES)}")
        check_no_code(folder / "tokenizer_config.json")
        with reading_tokenizer(folder):  # without False, transformers asks on the terminal whether to run code
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            last = max(self._tokenizer.get_vocab().values(), default=-1)
        if last >= config.vocab_size:
            raise CheckpointError(
                f"{folder}: tokens up to number {last}, but its text tower has only {config.vocab_size}"
            )
        if self._tokenizer.pad_token_id is None:
            raise CheckpointError(
                f"the tokenizer of {folder} has no padding token; set pad_token in tokenizer_config.json"
            )
        # CLAP's text tower is a RoBERTa, whose positions begin after that of the padding.
        positions = config.max_position_embeddings - (config.pad_token_id + 1 if kind == "clap" else 0)
        longest = self._tokenizer.model_max_length
        if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
            raise CheckpointError(f"the tokenizer of {folder} has a model_max_length that is not a positive number")
        self._length = int(min(longest, positions))
        self._lower = kind.startswith("siglip") and "gemma" in type(self._tokenizer).__name__.lower()
        self._padding = "longest" if kind == "clap" else "max_length"

    def __call__(self, prompts: Sequence[str], padding: str = "") -> Mapping[str, Tensor]:
        """(P,) -> (P, L) int64 tensors, by the names of the text tower's arguments."""
        texts = [prompt.lower() for prompt in prompts] if self._lower else list(prompts)
        cut = {"padding": padding or self._padding, "max_length": self._length, "truncation": True}
        with reading_tokenizer(self._tokenizer.name_or_path):
            found = self._tokenizer(texts, return_tensors="pt", **cut)
        return {name: found[name] for name in ("input_ids", "attention_mask") if name in found}
