"""`rlbench new`: what it writes runs as it stands, in another process; what is wrong is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import Call, fails
from PIL import Image

from rlbench.core.suite import load_suite

RUN = ("--workers", "1", "--examples", "4", "--quiet")


def rlbench(folder: Path, *arguments: str, plugins: str = "") -> str:
    """The output of the command in a new process, which must succeed."""
    environment = {**os.environ, "RLBENCH_PLUGINS": plugins, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rlbench", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attack", "corruption", "fusion", "task"])
def test_a_new_plugin_runs_in_its_own_suite(call: Call, tmp_path: Path, kind: str) -> None:
    call("new", kind, "fresh")
    assert "fresh" in rlbench(tmp_path, "list", f"{kind}s", plugins="fresh")
    out = rlbench(tmp_path, "run", "--suite", "fresh.yaml", "--model", "rlbind", *RUN, plugins="fresh")
    assert "rlbind:mini: sound" in out and "failed" not in out


@pytest.mark.slow
def test_a_new_encoder_runs_in_a_suite_over_a_new_folder(call: Call, tmp_path: Path) -> None:
    for label, level in (("day", 200), ("night", 40)):
        (tmp_path / "sky" / "test" / label).mkdir(parents=True)
        for k in range(2):
            pixels = np.full((32, 32, 3), level + k, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "sky" / "test" / label / f"{k}.png")
    call("new", "encoder", "fresh")
    result = call("new", "suite", "skies", "--data", "sky")
    assert '"day": "day"' in (tmp_path / "skies.yaml").read_text() and "put pictures" not in result.output
    out = rlbench(tmp_path, "run", "--suite", "skies.yaml", "--model", "fresh:make", *RUN)
    assert "n = 4" in out and "failed" not in out


def test_a_new_suite_reads_folders_of_any_name(call: Call, tmp_path: Path) -> None:
    labels = ['O"Neil', "back\\slash", "it's #1: grün", "yes"]
    for label in labels:
        folder = tmp_path / 'Bilder #1: "neu"' / "test" / label
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / "0.png")
    call("new", "suite", "2024", "--data", 'Bilder #1: "neu"')
    suite = load_suite(str(tmp_path / "2024.yaml"))
    assert suite.name == "2024" and sorted(one.name for one in suite.task.classes) == sorted(labels)


@pytest.mark.slow
def test_a_new_objective_trains(call: Call, tmp_path: Path) -> None:
    call("new", "objective", "fresh")
    settings = ("objective=fresh", "steps=1", "examples=64", "validation=10")
    sets = [word for setting in settings for word in ("--set", setting)]
    out = rlbench(tmp_path, "train", "tecoa", "--modality", "image", *sets, "--quiet", plugins="fresh")
    assert "trained rlbench-runs" in out
    run = tmp_path / "rlbench-runs" / "tecoa-1"
    assert any("fresh" in path.read_text() for path in run.glob("*.yaml"))


def test_the_next_command_is_printed(call: Call) -> None:
    assert "export RLBENCH_PLUGINS=fresh" in call("new", "attack", "fresh").output
    assert "--model mine:make" in call("new", "encoder", "mine").output


def test_an_existing_file_is_refused_and_kept(call: Call, tmp_path: Path) -> None:
    (tmp_path / "fresh.yaml").write_text("mine")
    fails(call("new", "attack", "fresh"), "fresh.yaml exists", untouched=tmp_path / "fresh.py")
    assert (tmp_path / "fresh.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("attack", "my-attack", "no identifier"),
        ("attack", "class", "a keyword"),
        ("attack", "pgd", "exists already"),
        ("attack", "torch", "installed Python module"),
        ("encoder", "rlbind", "rlbench list models"),
        ("suite", "thermal", "exists already"),
        ("suite", "a/b", "letters, digits"),
        ("atack", "mine", "did you mean 'attack'"),
    ],
)
def test_a_wrong_name_is_one_line(call: Call, tmp_path: Path, kind: str, name: str, words: str) -> None:
    fails(call("new", kind, name), words)
    assert not list(tmp_path.iterdir())


PROJECT = """[project]
name = "plugins"
[project.entry-points."rlbench.plugins"]
mine = "mine"
[project.entry-points."rlbench.suites"]
mine = "mine.suites"
"""


def test_in_a_plugin_package_the_file_goes_to_the_package(call: Call, tmp_path: Path) -> None:
    (tmp_path / "src" / "mine" / "suites").mkdir(parents=True)
    for folder in ("mine", "mine/suites"):
        (tmp_path / "src" / folder / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    out = call("new", "encoder", "fresh").output
    assert (tmp_path / "src/mine/fresh.py").is_file() and "pip install -e" in out and "--model fresh " in out
    call("new", "suite", "fresh")
    assert (tmp_path / "src/mine/suites/fresh.yaml").is_file()
    call("new", "encoder", "other", "--here")
    assert (tmp_path / "other.py").is_file()


def test_a_missing_plugin_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "no_such_module")
    fails(call("list", "attacks"), "RLBENCH_PLUGINS names 'no_such_module'", "unset")
