"""Fixtures of the training tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlbench.training import folder


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write an empty curves.png: drawing takes half of a tiny run's time."""
    monkeypatch.setattr(folder, "draw_curves", lambda metrics, png, *, title: png.write_bytes(b""))


@pytest.fixture
def metrics() -> Callable[[Path], list[dict]]:
    """Reads the lines of a run's metrics.jsonl."""
    return lambda path: [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
