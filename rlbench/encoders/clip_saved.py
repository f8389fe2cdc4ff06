"""A trained tower as one safetensors file that describes itself: its architecture, and its text tower's source.

The weights are float32 under the names of transformers' CLIPModel; the metadata is one JSON text.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlbench.core import Modality
from rlbench.encoders.clip_towers import Attention, VisionSizes, VisionTower, vision_tower
from rlbench.encoders.clip_weights import sha256_of
from rlbench.errors import CheckpointError

_KEY = "rlbench"  # of the metadata: a single one, since several have no fixed order


@dataclass(frozen=True)
class Saved:
    """A file's tower, and which text tower it is bound to: where that is from, and its sha256."""

    vision: VisionTower
    text: str
    text_sha256: str
    sha256: str


def write_tower(tower: VisionTower, path: Path, *, modality: Modality, text: str, text_sha256: str) -> None:
    """Writes a tower; the same weights give the same bytes."""
    about = {"modality": modality, "text": text, "text_sha256": text_sha256, "sizes": asdict(tower.sizes)}
    weights = {name: value.detach().float().cpu().contiguous() for name, value in sorted(tower.state_dict().items())}
    save_file(weights, path, metadata={_KEY: json.dumps(about, sort_keys=True)})


def read_tower(path: Path, modality: Modality, attention: Attention = "sdpa") -> Saved:
    """The tower of `write_tower`, frozen, in eval mode.

    Raises:
        CheckpointError: missing, truncated, of another modality or architecture, or with values that are not finite.
    """
    about, weights = _opened(path)
    if about.get("modality") != modality:
        raise CheckpointError(f"{path} is a tower of {about.get('modality')}; {modality} was asked for")
    try:
        vision = vision_tower(weights, VisionSizes(**about["sizes"]), attention)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{path} does not hold the tower that it describes: {reason}") from error
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds weights that are not finite: {name}")
    return Saved(vision, str(about.get("text", "")), str(about.get("text_sha256", "")), sha256_of(path))


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as opened:
            about = json.loads((opened.metadata() or {}).get(_KEY, "{}"))
            weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read as a saved tower: {error}") from error
    return about, weights
