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
READ = {  # by folder of the repository: patterns of the files that the installed package reads, and its folder there
    "rlbench": (("**/*.py", "py.typed", "report/site/templates/*", "tasks/names/*"), "rlbench"),
    "suites": (("*.yaml",), "rlbench/suites"),
    "baselines": (("*/*.yaml", "*/*.safetensors"), "rlbench/baselines"),
    "leaderboards": (("*.md", "*.yaml", "records/*.jsonl", "entries/*.json"), "rlbench/leaderboards"),
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


@pytest.mark.parametrize("folder", READ)
def test_the_wheel_has_every_file_that_is_read(wheel, folder: str) -> None:
    patterns, home = READ[folder]
    for pattern in patterns:
        found = sorted(path for path in (ROOT / folder).glob(pattern) if path.is_file() and path.suffix != ".pyc")
        assert found, f"{folder}/{pattern} matches nothing"
        missing = [path for path in found if f"{home}/{path.relative_to(ROOT / folder).as_posix()}" not in wheel[0]]
        assert not missing, f"{folder}: {missing[:3]} are not in the wheel; see package-data in pyproject.toml"


def test_the_wheel_has_nothing_else(wheel) -> None:
    suffixes = {
        ".py",
        ".typed",
        ".yaml",
        ".safetensors",
        ".md",
        ".jsonl",
        ".json",
        ".csv",
        ".txt",
        ".css",
        ".js",
        ".j2",
    }
    own = {name for name in wheel[0] if ".dist-info/" not in name}
    assert {name for name in own if Path(name).suffix not in suffixes} == set()
    assert {name.split("/")[0] for name in own} == {"rlbench"}
    assert not any(part in ("tests", "docs", "benchmarks") for name in own for part in name.split("/"))


def test_the_build_does_not_warn_about_packages(wheel) -> None:
    assert "absent from the `packages`" not in wheel[1] and "DeprecationWarning" not in wheel[1]
