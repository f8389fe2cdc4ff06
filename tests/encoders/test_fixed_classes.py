"""The classifier of a task by an encoder that has classes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from black_boxes import describe, serve

from rlbench.core.errors import DataError
from rlbench.core.suite import load_suite
from rlbench.encoders.black_box.classes import head_of_classes
from rlbench.encoders.models import load_encoder


def test_classes_are_found_by_name_and_missing_ones_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RLBENCH_QUERIES", raising=False)
    suite = load_suite("smoke")
    names = [one.name for one in suite.task.classes]
    with serve(describe(classes=[name.upper().replace(" ", "_") for name in reversed(names)])) as served:
        head = head_of_classes(load_encoder(served.url), "image", suite.task)
        x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(head(x), head.encoder.classify(x, "image").flip(1))  # type: ignore[attr-defined]
    with (
        serve(describe(classes=["cat", *names[1:]])) as served,
        pytest.raises(DataError, match=f"the task also has '{names[0]}'"),
    ):
        head_of_classes(load_encoder(served.url), "image", suite.task)
    with (
        serve(describe("labels", classes=["cat", *names])) as served,
        pytest.raises(DataError, match="also answers the label 'cat'"),
    ):
        head_of_classes(load_encoder(served.url), "image", suite.task)
