"""Small random checkpoints of LanguageBind, in folders laid out as on the hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401
import yaml
from safetensors.torch import save_file

from rlbench.core import Modality
from rlbench.encoders.clip.towers import TextSizes, VisionSizes, random_weights
from rlbench.encoders.languagebind import languagebind
from rlbench.encoders.mini import mini

VISION = VisionSizes(hidden=64, mlp=96, layers=2, heads=4, patch=7, height=28, width=28, projection=24)
WORDS = ["a", "photo", "of", "dog", "cat"]


def write_checkpoint(
    folder: Path, modality: Modality, seed: int = 0, text_seed: int = 0, *, vision: VisionSizes = VISION, **text: int
) -> Path:
    """Writes a checkpoint with a byte-pair vocabulary of a few words; `text` changes the sizes of its text tower."""
    pieces = {letter for word in WORDS for letter in word}
    merges, vocabulary = [], [*sorted(pieces), *sorted(f"{letter}</w>" for letter in pieces)]
    for word in WORDS:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            merges.append(f"{left} {right}")
            left += right
            vocabulary.append(left)
    vocabulary = [*dict.fromkeys(vocabulary), "<|startoftext|>", "<|endoftext|>"]
    tiny = {"hidden": 32, "mlp": 64, "layers": 2, "heads": 4, "positions": 16}
    of = {**tiny, "vocabulary": len(vocabulary), "projection": vision.projection, **text}
    sizes = TextSizes(**of)
    g = torch.Generator().manual_seed(text_seed)
    weights = {**random_weights(sizes, g), "logit_scale": torch.tensor(2.0)}
    weights |= random_weights(vision, torch.Generator().manual_seed(seed))
    folder.mkdir(exist_ok=True, parents=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]))
    heads = {"text": sizes.heads, "vision": vision.heads}
    sections = {f"{tower}_config": {"num_attention_heads": number} for tower, number in heads.items()}
    (folder / "config.json").write_text(json.dumps({"architectures": [f"LanguageBind{modality.title()}"], **sections}))
    return folder


def write_run(folder: Path, modality: Modality, checkpoint: Path | None) -> Path:
    """Writes the folder of a finished training run of a checkpoint's tower, or of a random mini tower."""
    folder.mkdir(parents=True)
    file = folder / f"vit-{modality}.safetensors"
    encoder = languagebind(files={modality: checkpoint}) if checkpoint else mini(fresh=(modality,))
    encoder.save(modality, file)
    data = file.read_bytes()
    weights = {
        "file": file.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "trained": {"seed": 3},
    }
    family = "languagebind" if checkpoint else "mini"
    backbone = {"family": family, "data": "a few pictures", "modalities": {modality: weights}}
    card = {"baseline": "fare", "summary": "Trained by rlbench train fare.", "backbones": {"vit": backbone}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder
