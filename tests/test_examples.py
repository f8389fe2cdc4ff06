"""The examples run, and each notebook is that of its script."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = ("attack_a_classifier", "own_clip_on_a_folder", "rlbind_against_tecoa")
spec = spec_from_file_location("notebooks", EXAMPLES / "notebooks.py")
assert spec is not None and spec.loader is not None
notebooks = module_from_spec(spec)
spec.loader.exec_module(notebooks)


def test_every_script_is_listed() -> None:
    assert tuple(path.stem for path in notebooks.list_scripts()) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_notebook_is_that_of_the_script(name: str) -> None:
    made = notebooks.to_notebook((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    assert (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8") == made, "run python examples/notebooks.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
