"""The wheel has every file that the installed package reads, and nothing else; its build warns of nothing."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("rlbench", "suites", "baselines", "leaderboards")
FILES = ("pyproject.toml", "README.md", "LICENSE")
READ = {  # by folder of the repository: patterns of the files that the installed package reads
    "rlbench": ("**/*",),
    "suites": ("*.py", "*.yaml"),
    "baselines": ("*.py", "*/*.yaml", "*/*.safetensors"),
    "leaderboards": ("*.py", "*.md", "*.yaml", "records/*.jsonl", "entries/*.json"),
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> tuple[set[str], str]:
    """The names in the wheel, and what its build printed."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return set(ZipFile(built).namelist()), done.stdout + done.stderr


def _read(folder: str) -> set[str]:
    """The names in the wheel of the files of a folder."""
    home = "rlbench" if folder == "rlbench" else f"rlbench/{folder}"
    found = [path for pattern in READ[folder] for path in (ROOT / folder).glob(pattern) if path.is_file()]
    paths = [path.relative_to(ROOT / folder) for path in found if "__pycache__" not in path.parts]
    return {f"{home}/{path.as_posix()}" for path in paths}


@pytest.mark.parametrize("folder", READ)
def test_the_wheel_has_every_file_that_is_read(wheel, folder: str) -> None:
    """What is missing needs a line of package-data or packages in pyproject.toml."""
    assert len(_read(folder)) > 10 and _read(folder) - wheel[0] == set()


def test_the_wheel_has_nothing_else(wheel) -> None:
    own = {name for name in wheel[0] if ".dist-info/" not in name}
    assert own - {name for folder in READ for name in _read(folder)} == set()


def test_the_build_does_not_warn_about_packages(wheel) -> None:
    assert "absent from the `packages`" not in wheel[1] and "DeprecationWarning" not in wheel[1]
