"""Fixtures of all tests. Torch uses one thread: two on a busy machine can be 100 times slower at batch 1."""

import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from commands import MINE, Call
from tiny_suite import suite_file

from rlbench.cli.main import main
from rlbench.core import Record
from rlbench.engine.run.runner import run


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["RLBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def originals() -> Path:
    """The outputs of LanguageBind's original code."""
    root = Path(os.environ.get("RLBENCH_FIXTURES") or Path(__file__).parents[2] / "shared" / "fixtures")
    if not (root / "languagebind").is_dir():
        pytest.skip("no outputs of the original code: set RLBENCH_FIXTURES")
    return root / "languagebind"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs the command in an empty folder; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="rlbench")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fast suite of blobs with four kinds of cells."""
    file = tmp_path_factory.mktemp("suites") / "mine.yaml"
    file.write_text(MINE)
    return file


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The records of an uninterrupted run of 300 examples: two blocks."""
    folder = tmp_path_factory.mktemp("whole")
    return run(suite_file(folder, 300), "linear", out=folder / "out", workers=1)
