"""Puts a campaign's weights into the baselines' folders: how the bundled checkpoints come from their recipes.

python -m rlbench.training.bundle RUNS/1 baselines
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError
from rlbench.encoders.mini import pack, unpack


def bundle(rounds: Path, baselines: Path) -> list[str]:
    """Puts the runs ROUND/MODALITY/JOB over the baselines that are called like the jobs; returns what was copied.

    Weights are kept in 8 bits, which is half of a run's own file.

    Raises:
        CheckpointError: there is no finished run.
    """
    copied = []
    for card in sorted(rounds.glob("*/*/card.yaml")):
        baseline = baselines / card.parent.name
        if (baseline / "card.yaml").is_file():
            _copy(card.parent, baseline)
            copied.append(f"{card.parent.parent.name} {baseline.name}")
    if not copied:
        raise CheckpointError(f"{rounds} has no finished runs of a baseline, as MODALITY/METHOD/card.yaml")
    return copied


def _copy(run: Path, baseline: Path) -> None:
    """One run's files and their entries in the card; a start that is another run is named by its baseline."""
    card: dict[str, Any] = yaml.safe_load((baseline / "card.yaml").read_text(encoding="utf-8"))
    new: dict[str, Any] = yaml.safe_load((run / "card.yaml").read_text(encoding="utf-8"))
    for name, backbone in new["backbones"].items():
        entries = card["backbones"][name]["modalities"]
        for modality, entry in backbone["modalities"].items():
            start = Path(entry["trained"]["init"])
            if start.is_absolute():
                entry["trained"]["init"] = f"{start.name}:{name}"
            entries[modality] = {**entry, **_smaller(run / entry["file"], modality, baseline / entry["file"])}
    (baseline / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False, width=120), encoding="utf-8")


def _smaller(source: Path, modality: Modality, target: Path) -> dict[str, Any]:
    """Writes a mini tower with 8 bits a weight; what a card says of the file."""
    data = pack(unpack(source.read_bytes(), modality, str(source)), rows="int8")
    target.write_bytes(data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


if __name__ == "__main__":
    bundle(Path(sys.argv[1]), Path(sys.argv[2]))
