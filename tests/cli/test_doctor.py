"""`rlbench doctor`: on a broken installation, the line that breaks has its remedy, and the others are still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Call

from rlbench.cli import doctor
from rlbench.tasks.integrity import list_data_sets


def test_a_whole_installation_passes(call: Call) -> None:
    result = call("doctor")
    lines = result.output.splitlines()
    assert result.exit_code == 0 and lines[-1] == "everything works", result.output
    assert {"rlbench", "python", "torch", "cpu", "opencv", "hub cache", "store"} <= {
        line[8:].partition(":")[0] for line in lines
    }


def test_packages_that_do_not_import_are_lines(tmp_path: Path) -> None:
    """As on an image without libGL, and with a torch of another CUDA."""
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: not found')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "rlbench", "doctor"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("BROKEN  opencv"))
    assert "libGL.so.1" in lines[at] and "apt-get install" in lines[at + 1]
    at = next(k for k, line in enumerate(lines) if line.startswith("BROKEN  torch"))
    assert "libcudart" in lines[at] and "pip install" in lines[at + 1]
    assert any(line.startswith("ok      store") for line in lines)


def test_a_missing_package_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    line = doctor._package("no-such-distribution", "no_such_module")
    assert line.found == "not installed" and line.remedy == "pip install no-such-distribution"


def test_a_folder_without_permission_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    line = doctor._folder("store", tmp_path / "new", "choose another")
    assert line.remedy == "choose another" and "Permission denied" in line.found


def test_published_sets_are_counted(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / list_data_sets()["esc50"].source.folder).mkdir(parents=True)
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path / "data"))
    lines = list(doctor._data())
    assert lines[0].found.endswith("published data sets in it: 1")
    assert "rlbench data check esc50" in lines[1].remedy
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path / "none"))
    assert "is no folder" in next(doctor._data()).found
