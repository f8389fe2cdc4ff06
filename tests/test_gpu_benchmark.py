"""`benchmarks/gpu.py` runs on a CPU at a tiny size, keeps what it has, and says what it left out."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from accelerate import Accelerator
from click.testing import CliRunner

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu")


def test_all_parts_run_at_a_tiny_size(gpu: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    Accelerator(cpu=True, mixed_precision="no")  # as after another test's training in this process
    result = CliRunner().invoke(gpu.main, ["--tiny", "--out", str(out)], catch_exceptions=False)
    text = out.read_text()
    assert result.exit_code == 0
    assert "| failed" not in text
    assert "| left out" not in text
    assert [f"## {part}" in text for part in gpu.PARTS] == [True] * 4
    for world in gpu.WORLDS:
        assert f"flags of {world}, rlbind | 0 of 4 differ" in text
    for words in ("in bf16, batches of 4", "stage 2", "video: the batch attacked", "last search in float32 after bf16"):
        assert words in text


def test_a_run_that_is_cut_says_what_it_left_out(gpu: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    CliRunner().invoke(gpu.main, ["--tiny", "--limit", "-1", "--out", str(out)], catch_exceptions=False)
    assert out.read_text().count("| left out") == 4


def test_a_vit_l_14_costs_what_is_published(gpu: ModuleType) -> None:
    """81 GMAC forward, so 0.32 TFLOP with the gradient in the input."""
    assert gpu.count_flop(gpu.SIZES["vit-l-14"]) == pytest.approx(4 * 81e9, rel=0.03)
