"""Real data packs for tests of tasks."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def data() -> Path:
    """The folder of the packs; without one, the test is skipped."""
    root = Path(os.environ.get("RLBENCH_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not root.is_dir():
        pytest.skip("no data packs: set RLBENCH_DATA")
    return root
