"""Copies a campaign's weights into the baselines' folders: how the bundled checkpoints come from their recipes.

rlbench campaign baselines/campaigns/bundle.yaml --out runs && python benchmarks/bundle.py runs/1 baselines
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
import yaml

from rlbench.core import Modality
from rlbench.core.errors import CheckpointError
from rlbench.encoders.mini import pack, unpack


def bundle(runs: Path, baselines: Path) -> list[str]:
    """Copies the runs MODALITY/JOB of a campaign's round into the baselines with the names of the jobs.

    Weights are stored in 8 bits, which takes half the space of a run's own file.

    Args:
        runs: the folder of a round.
        baselines: the folder of the baselines; those without a card are skipped.

    Returns:
        "MODALITY BASELINE" of each run.

    Raises:
        CheckpointError: There is no finished run.
    """
    copied = []
    for card in sorted(runs.glob("*/*/card.yaml")):
        baseline = baselines / card.parent.name
        if (baseline / "card.yaml").is_file():
            _copy(card.parent, baseline)
            copied.append(f"{card.parent.parent.name} {baseline.name}")
    if not copied:
        raise CheckpointError(f"{runs} has no finished runs of a baseline, as MODALITY/METHOD/card.yaml")
    return copied


def _copy(run: Path, baseline: Path) -> None:
    """Copies a run's weights and card entries; if the run starts from another run, the card names its baseline."""
    card: dict[str, Any] = yaml.safe_load((baseline / "card.yaml").read_text(encoding="utf-8"))
    new: dict[str, Any] = yaml.safe_load((run / "card.yaml").read_text(encoding="utf-8"))
    for name, backbone in new["backbones"].items():
        entries = card["backbones"].setdefault(name, {**backbone, "modalities": {}})["modalities"]
        for modality, entry in backbone["modalities"].items():
            start = Path(entry["trained"]["init"])
            entry["trained"].pop("init_sha256", None)  # of the run's weights, which the baseline has in 8 bits
            if start.is_absolute():
                entry["trained"]["init"] = f"{start.name}:{name}"
            entries[modality] = {**entry, **_compress(run / entry["file"], modality, baseline / entry["file"])}
    (baseline / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False, width=120), encoding="utf-8")


def _compress(source: Path, modality: Modality, target: Path) -> dict[str, Any]:
    """Writes a mini tower with 8 bits a weight; returns the card's entry of the file."""
    data = pack(unpack(source.read_bytes(), modality, str(source)), rows="int8")
    target.write_bytes(data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


@click.command()
@click.argument("runs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("baselines", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(runs: Path, baselines: Path) -> None:
    """Copy the runs of a campaign's round, RUNS/MODALITY/JOB, into the folders BASELINES/JOB."""
    try:
        for line in bundle(runs, baselines):
            click.echo(line)
    except CheckpointError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
