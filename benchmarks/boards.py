"""Measures the CPU seconds of a large board: 300 models x 10 columns as markdown, CSV and page.

python benchmarks/boards.py [models [examples]]
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np

from rlbench.core import Adversarial, Clean, Perturbation, Record, Threat, Worst
from rlbench.report.boards import leaderboard
from rlbench.report.site import page
from rlbench.store.keys import content_hash
from rlbench.store.lines import to_line

THREATS = tuple(Threat("linf", Fraction(eps, 255)) for eps in (2, 4, 8))
ATTACKS = tuple(Adversarial(name, threat) for name in ("pgd", "apgd-t") for threat in THREATS)
COLUMNS: tuple[Perturbation, ...] = (Clean(), *ATTACKS, *map(Worst, THREATS))


def make_records(models: int, n: int) -> list[Record]:
    """Records of models with accuracies between 0.3 and 0.9 that depend on how hard an example is."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(size=n)
    found = []
    for k in range(models):
        skill, noise = rng.normal(), rng.normal(size=n)
        for place, column in enumerate(COLUMNS):
            correct = hardness + 0.5 * noise < skill + 1 - 0.2 * place
            found.append(_record(f"model-{k:03}", column, correct))
    return found


def _record(model: str, column: Perturbation, correct: np.ndarray) -> Record:
    facts = {"protocol": str(column), "data": "d", "anchors": "a", "seed": 0, "checkpoint": model, "soundness": "sound"}
    return Record(
        key=content_hash([model, column]),
        suite="synthetic",
        suite_version=1,
        task="world",
        modality="image",
        model=model,
        backbone="none",
        perturbation=column,
        n=len(correct),
        n_correct=int(correct.sum()),
        error=None,
        forwards=1,
        backwards=0,
        flags=np.packbits(correct).tobytes().hex(),
        provenance=facts,
    )


def main() -> None:
    models, n = map(int, (sys.argv[1:] + ["300", "500"][len(sys.argv) - 1 :])[:2])
    print(f"{models} models x {len(COLUMNS)} columns, n = {n}")  # noqa: T201
    with TemporaryDirectory() as folder:
        file = Path(folder) / "records.jsonl"
        file.write_text("".join(to_line(record) + "\n" for record in make_records(models, n)))
        shapes = {
            "markdown": lambda: leaderboard.render(leaderboard.load(file), "t", baseline="model-000"),
            "csv": lambda: leaderboard.render(leaderboard.load(file), "t", baseline="model-000", format="csv"),
            "page": lambda: page.render([file], baseline="model-000"),
        }
        for name, draw in shapes.items():
            begun = process_time()
            size = len(draw().encode())
            print(f"{name}: {process_time() - begun:.1f} s of CPU, {size / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
