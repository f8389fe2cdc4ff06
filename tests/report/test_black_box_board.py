"""Records of a black box on a board: their own columns, with knowledge and queries, beside those of a white box."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import black_boxes

import rlbench
from rlbench.core import Adversarial, Clean, Threat, Worst
from rlbench.core.suite import load_suite

T = Threat("linf", Fraction(8, 255))


def test_a_black_box_has_its_own_columns(tmp_path: Path) -> None:
    assert black_boxes.make_label_box().knowledge == "label"
    rays = Adversarial("rays", T, (("queries", 40),))
    suite = replace(load_suite("smoke"), perturbations=(Clean(), Adversarial("fgsm", T), rays, Worst(T)), examples=10)
    for model in ("linear", "black_boxes:make_label_box"):
        rlbench.run(suite, model, out=tmp_path / "out", workers=1)
    frame = rlbench.leaderboard.load(tmp_path / "out")
    board = rlbench.leaderboard.render(frame, "Boxes")
    for column in ("fgsm linf 8/255", "rays(queries=40) linf 8/255 label", "worst linf 8/255 label"):
        assert column in board
    clean = frame[frame.perturbation == "clean"]
    assert len(clean) == 2 and clean.n_correct.nunique() == 1
    assert sorted(clean.knowledge.fillna("white-box")) == ["label", "white-box"]
