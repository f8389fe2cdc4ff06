"""What an attack costs at most, and as usual."""

from fractions import Fraction
from pathlib import Path

import pytest

from rlbench.core import Adversarial, Threat
from rlbench.engine import cells


@pytest.mark.parametrize("name", ["adaptive", "adaptive-long"])
def test_the_usual_passes_of_an_adaptive_attack_hold_for_every_bundled_pair(name: str) -> None:
    cell = Adversarial(name, Threat("linf", Fraction(4, 255)))
    usual, most = (cells.bound_passes(cell, 10, usual=usual)[1] for usual in (True, False))
    page = (Path(__file__).parents[2] / "benchmarks" / "adaptive.md").read_text()
    part = page[page.index(f"## {name}, ") :].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in part.splitlines() if line.startswith("| ")]
    found = [(int(row[3]), int(row[-1].replace(",", ""))) for row in rows if row[3].strip().isdigit()]
    assert len(found) == 16 and all(passes <= usual * correct for correct, passes in found)
    assert usual < most / 2
