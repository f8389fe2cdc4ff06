"""Real sensors together: `python benchmarks/pairs.py --out FOLDER [--suite NAME] [--examples N]`.

Trains the mini backbone on the train split of each sensor of a suite of pairs, joins the towers to one model, and runs
the suite: each sensor alone, fused, with one missing, with one or all attacked. RLBENCH_DATA names the folder of the
packs. FOLDER gets the models, the records and, as NAME.md, the boards, whose intervals are by source, and the share of
examples that are certified, right whatever one sensor says. The splits of
pair_rgbt_sky share sites, so that its numbers tell whether fused cells work on real data, not how well a model
recognises things elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click
import yaml
from tabulate import tabulate

import rlbench
from rlbench.core import Modality, Suite
from rlbench.core.suite import load_suites
from rlbench.encoders.fused import Fused
from rlbench.encoders.takeover import Certified, certify_takeover
from rlbench.engine.block.bench import prepare
from rlbench.report.boards import leaderboard
from rlbench.report.boards.tables import frame
from rlbench.training.run import train

SUITES = ("pack-pair-sky", "pack-sky-objects")
RECIPE = {"init": "languagebind:mini", "original": None, "lr": 0.001}  # as in baselines/campaigns/packs.yaml


def train_sensors(suites: list[Suite], out: Path, epochs: int) -> dict[Modality, Path]:
    """Trains one tower on the train split of each suite with a single sensor; returns the run folders."""
    found = {}
    for suite in suites:
        modality = cast(Modality, suite.modality)
        changes = {**RECIPE, "epochs": epochs}
        found[modality] = train("languagebind", suite=suite, out=out / modality, overrides=changes, device="cpu")
    return found


def join_towers(folders: Mapping[Modality, Path], out: Path) -> Path:
    """Makes one model of several run folders that have one modality each."""
    out.mkdir(parents=True, exist_ok=True)
    card: dict[str, Any] = {}
    for folder in folders.values():
        own = yaml.safe_load((folder / "card.yaml").read_text(encoding="utf-8"))
        card = card or own
        (backbone,) = own["backbones"].values()
        for modality, entry in backbone["modalities"].items():
            shutil.copy(folder / entry["file"], out / entry["file"])
            next(iter(card["backbones"].values()))["modalities"][modality] = entry
    (out / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return out


def certify(suites: Sequence[Suite], model: Path, examples: int | None) -> str:
    """A table of the share of examples, in %, that each fusion with a certificate gets right whatever a sensor says."""
    rows = []
    for suite in suites:
        bench = prepare(suite, str(model))
        if isinstance(bench.classifier, Fused) and isinstance(bench.classifier.fusion, Certified):
            found = bench.inputs.load(0, min(examples or suite.examples, suite.task.size("test") or suite.examples))
            safe = certify_takeover(bench.classifier, found.x, found.y)
            rows.append({"fusion": suite.fusion, "n": len(safe), "certified, %": f"{100 * safe.float().mean():.1f}"})
    return tabulate(rows, headers="keys", tablefmt="github")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder for models and records.")
@click.option("--suite", "names", multiple=True, default=SUITES, help="A suite of pairs; repeatable.")
@click.option("--examples", type=int, help="Examples of each cell [default: the suite's].")
@click.option("--epochs", type=int, default=10, show_default=True, help="Passes over the train splits.")
def main(out: Path, names: tuple[str, ...], examples: int | None, epochs: int) -> None:
    """Train a tower for each sensor, run the suites, and write the boards."""
    for name in names:
        suites = load_suites(name)
        towers = train_sensors([suite for suite in suites if not suite.sensors], out / name, epochs)
        model = join_towers(towers, out / name / "model")
        records = rlbench.run(suites, str(model), out=out / name / "store", examples=examples)
        board = leaderboard.render(frame(records), f"{name}: the mini backbone, trained on each sensor's train split")
        table = certify([suite for suite in suites if suite.sensors], model, examples)
        (out / f"{name}.md").write_text(f"{board}\n## Certified\n\n{table}\n", encoding="utf-8")
        click.echo(f"wrote {out / name}.md")


if __name__ == "__main__":
    main()
