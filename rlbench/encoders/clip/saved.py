"""A trained tower as one safetensors file, with its architecture and the source of its text tower.

The weights are float32, with the names of transformers' CLIPModel; the metadata is one JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError, first_line
from rlbench.encoders.clip.towers import Attention, VisionSizes, VisionTower, vision_tower
from rlbench.encoders.clip.weights import sha256_of

_KEY = "rlbench"  # the only key of the metadata, since several keys would have no fixed order


@dataclass(frozen=True)
class Saved:
    """The contents of a file.

    Attributes:
        vision: the tower.
        box: the options of its box.
        text, text_sha256: source and checksum of the text tower that it was trained with.
        sha256: of the file.
    """

    vision: VisionTower
    box: dict[str, Any]
    text: str
    text_sha256: str
    sha256: str


def write_tower(tower: VisionTower, path: Path, about: Mapping[str, object]) -> None:
    """Writes a tower; equal arguments give equal bytes.

    Args:
        tower: the tower to store, with its sizes.
        path: the file.
        about: its "modality", "box", "text" and "text_sha256".
    """
    text = json.dumps({**about, "sizes": asdict(tower.sizes)}, sort_keys=True)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in sorted(tower.state_dict().items())}
    save_file(weights, path, metadata={_KEY: text})


def read_tower(path: Path, modality: Modality, attention: Attention = "sdpa") -> Saved:
    """Reads a file of `write_tower`; the tower is frozen and in evaluation mode.

    Raises:
        CheckpointError: missing, truncated, of another modality or architecture, or with values that are not finite.
    """
    about, weights = _open(path)
    if about.get("modality") != modality:
        raise CheckpointError(f"{path} is a tower for {about.get('modality')}; {modality} was requested")
    try:
        sizes = VisionSizes(**about["sizes"])
        if sizes.layers > len(weights):
            raise ValueError(f"{sizes.layers} layers in {len(weights)} tensors")
        vision = vision_tower(weights, sizes, attention)
        box, text, bound = dict(about["box"]), str(about["text"]), str(about["text_sha256"])
    except Exception as error:  # the towers may raise anything for arbitrary sizes
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        raise CheckpointError(f"{path} does not hold the tower that it describes: {reason}") from error
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path} holds weights that are not finite: {name}")
    return Saved(vision, box, text, bound, sha256_of(path))


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as opened:
            about = dict(json.loads((opened.metadata() or {}).get(_KEY, "{}")))
            weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as a saved tower: {first_line(error)}") from error
    return about, weights
