"""The section of a model card about several sensors: its numbers are those of the board."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Call, fails
from fused_records import fused_records
from made import made

from rlbench.core import Record
from rlbench.core.errors import StoreError
from rlbench.report.boards import sensors
from rlbench.report.boards.leaderboard import freeze
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures.model_report import report


def test_fused_results_have_the_summary_of_the_board() -> None:
    both = [*fused_records(), *(r for r in fused_records("mean") if "+" in r.modality)]
    text = report(both, "m:mini", "m.png").text
    parts = sensors.sections(tables(frame(both)))
    assert len(parts) == 9 and all(part in text for part in parts)  # a summary and two fusions
    assert "-25.0 (1:3, p .625)" in text and "the safest fusion is" in text
    alone = report([r for r in both if r.modality == "image"], "m:mini", "m.png").text
    assert "Sensors together" not in alone


def _of_series(number: int, ones: int) -> list[Record]:
    facts = {"data": f"d{number}", "checkpoint": "0123456789abcdef", **({"series": number} if number else {})}
    return [replace(made("a:mini", "clean", np.arange(100) < ones, **facts), key=f"{number:016x}")]


def test_a_report_of_one_series(call: Call, tmp_path: Path) -> None:
    both = [*_of_series(0, 90), *_of_series(3, 70)]
    texts = {number: report(both, "a:mini", "a.png", series=number).text for number in (None, 0, 3)}
    looked = ("| 90.0", "| 70.0", "--examples 100 --series 3\n", "--examples 100\n")
    shown = {number: {part for part in looked if part in text} for number, text in texts.items()}
    assert shown[0] == {"| 90.0", "--examples 100\n"} and shown[3] == {"| 70.0", "--examples 100 --series 3\n"}
    assert shown[None] == shown[0] | shown[3]
    with pytest.raises(StoreError, match="a:mini has no results on series 1; these records have 0, 3"):
        report(both, "a:mini", "a.png", series=1)
    (tmp_path / "r.jsonl").write_text(freeze([*_of_series(0, 90), *_of_series(3, 70)]))
    assert call("report", "a:mini", "--records", "r.jsonl", "--series", 3, "--out", "a.md").exit_code == 0
    assert "| 70.0" in (text := (tmp_path / "a.md").read_text()) and "| 90.0" not in text
    fails(call("report", "a:mini", "--records", "r.jsonl", "--series", 1, "--out", "b.md"), "no results on series 1")
    assert not (tmp_path / "b.md").exists()
