"""One thread for every test: two on a busy machine can be a hundred times slower at batch 1."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def originals() -> Path:
    """What LanguageBind's original code gives."""
    root = Path(os.environ.get("RLBENCH_FIXTURES") or Path(__file__).parents[2] / "shared" / "fixtures")
    if not (root / "languagebind").is_dir():
        pytest.skip("no outputs of the original code: set RLBENCH_FIXTURES")
    return root / "languagebind"
