"""Puts a run's weights into a baseline's folder: how the bundled checkpoints come from their recipes.

python -m rlbench.training.bundle RUN_FOLDER baselines/fare
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml


def bundle(run: Path, baseline: Path) -> None:
    """Copies the run's files over the baseline's and takes their entries into its card."""
    card: dict[str, Any] = yaml.safe_load((baseline / "card.yaml").read_text(encoding="utf-8"))
    new: dict[str, Any] = yaml.safe_load((run / "card.yaml").read_text(encoding="utf-8"))
    for name, backbone in new["backbones"].items():
        entries = card["backbones"][name]["modalities"]
        for modality, entry in backbone["modalities"].items():
            shutil.copyfile(run / entry["file"], baseline / entry["file"])
            entries[modality] = entry
    (baseline / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False, width=120), encoding="utf-8")


if __name__ == "__main__":
    bundle(Path(sys.argv[1]), Path(sys.argv[2]))
