"""Tests the lowest and newest versions of the dependencies: `python benchmarks/dependencies.py lowest`.

Installs the package in a new virtual environment, with every direct dependency at its lower bound, at the newest
version that the bounds allow, or as in constraints.txt; then runs a few commands and tests in it. torch alone may be a
download of several GB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = shutil.ignore_patterns(".*", "build", "*.egg-info", "rlbench-*", "__pycache__")
LIMIT = 3600  # seconds per command; pip's include the downloads
IMPORTS = """
import importlib, pkgutil, rlbench
for module in pkgutil.walk_packages(rlbench.__path__, "rlbench."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
LIBRARIES = """
import rlbench, torch
from rlbench.encoders.models import load_encoder
from rlbench.encoders.heads import zero_shot
from rlbench.core.suite import load_suite
suite, encoder = load_suite("thermal"), load_encoder("rlbind", "thermal")
head = zero_shot(encoder, "thermal", suite.task.classes, suite.task.templates)
found = suite.task.load(encoder.boxes["thermal"], 0, 2)
for name, eps in (("apgd-t", 4), ("torchattacks:PGD", 4), ("autoattack:reference", 64)):  # breaks early
    rlbench.attack(head, found.x, found.y, name, eps=f"{eps}/255")
"""
TRAIN = "train rlbind --stage 2 --modality thermal --set steps=2 --set examples=64 --set batch=32 --set validation=16"
COMMANDS = (
    "run --suite smoke --model linear --out store",
    "run --suite robot --model rlbind --examples 1 --out store",
    "run --suite thermal --model rlbind --examples 16 --out store --workers 2",
    f"{TRAIN} --set lora=2 --out trained",
    "run --suite thermal --model trained --examples 16 --out store",
    "leaderboard --records store --out board.md",
    "leaderboard --records store --format csv --out board.csv",
    "leaderboard --records store --html site",
    "plot store --out figures",
    "show thermal --model rlbind --examples 2",
    "list attacks",
    "compare rlbind:mini trained --records store",
)


def requirements(extras: Sequence[str] = ()) -> list[Requirement]:
    """The direct dependencies, and those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    more = [text for extra in extras for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in [*project["dependencies"], *more]]


def pin_lowest(needed: Requirement) -> str:
    """The requirement as `name==bound`. Raises: ValueError if it has no lower bound."""
    bounds = [one.version for one in needed.specifier if one.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{needed} must have one lower bound, such as {needed.name}>=1.0")
    return f"{needed.name}=={bounds[0]}"


def constraints(which: str, extras: Sequence[str]) -> list[str]:
    """The lines of pip's constraints file."""
    if which == "newest":
        return []
    if which == "lowest":
        return [pin_lowest(needed) for needed in requirements(extras)]
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def report(name: str, command: Sequence[str], folder: Path) -> bool:
    """Runs a command in the folder and prints a line; if it fails, also the last lines of its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        click.echo(f"failed  {name}: it took more than {LIMIT} s")
        return False
    click.echo(f"{'failed' if done.returncode else 'works '}  {name}")
    lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip() and "WARNING" not in line]
    for line in lines[-20:] if done.returncode else ():
        click.echo(f"        {line[:300]}")
    return done.returncode == 0


def versions(python: Path, extras: Sequence[str]) -> str:
    """The installed versions of the direct dependencies, in one line."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True)
    found = {one["name"].lower().replace("_", "-"): one["version"] for one in json.loads(listed.stdout)}
    names = [needed.name.lower().replace("_", "-") for needed in requirements(extras)]
    return ", ".join(f"{name} {found.get(name, 'missing')}" for name in names)


def trials(python: Path, tests: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and command of everything that has to work."""
    yield "import of every module", [str(python), "-P", "-c", IMPORTS]
    yield "attacks of the libraries", [str(python), "-P", "-c", LIBRARIES]
    for command in COMMANDS:
        yield f"rlbench {command}", [str(python), "-P", "-m", "rlbench", *command.split()]
    if tests:
        where = [str(ROOT / test) for test in tests]
        options = ["-q", "-x", "-p", "no:cacheprovider", "-W", "default", "--rootdir", str(ROOT)]
        yield f"pytest {' '.join(tests)}", [str(python), "-P", "-m", "pytest", *options, *where]


@click.command()
@click.argument("which", type=click.Choice(["lowest", "newest", "constraints"]))
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Also test the dependencies of an extra.")
@click.option("--test", "tests", multiple=True, metavar="FILE", help="Also run these tests of the project.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to make the environment [default: a temporary folder]."
)
def main(which: str, extras: tuple[str, ...], tests: tuple[str, ...], folder: Path | None) -> None:
    """Test the lowest or newest versions of the dependencies, or those of constraints.txt; exit 1 if a test fails."""
    with tempfile.TemporaryDirectory(prefix="rlbench-dependencies-") as temporary:
        place = (folder or Path(temporary)).absolute()
        python, work = place / which / ("Scripts" if os.name == "nt" else "bin") / "python", place / f"work-{which}"
        if not python.exists():
            venv.create(place / which, with_pip=True)
        work.mkdir(exist_ok=True)
        shutil.copytree(ROOT, place / "source", ignore=SKIPPED, dirs_exist_ok=True)  # for pip, which builds in it
        (work / "constraints.txt").write_text("".join(f"{line}\n" for line in constraints(which, extras)))
        package = str(place / "source") + (f"[{','.join(extras)}]" if extras else "")
        more = ["pytest", "hypothesis"] if tests else []
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--progress-bar",
            "off",
            "-c",
            "constraints.txt",
            package,
            *more,
        ]
        if not report(f"pip install at the {which} versions", install, work):
            sys.exit(1)
        click.echo(f"        {versions(python, extras)}")
        if not all([report(name, command, work) for name, command in trials(python, tests)]):
            sys.exit(1)


if __name__ == "__main__":
    main()
