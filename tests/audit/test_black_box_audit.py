"""Audits of black boxes: the checks that can run do, the others do not apply, and the badge is never `sound`."""

from __future__ import annotations

from pathlib import Path

import pytest
from black_boxes import describe, serve

from rlbench.audit.report import NEED_GRADIENTS, audit
from rlbench.core.suite import load_suite


@pytest.mark.parametrize(("knowledge", "attack"), [("score", "square"), ("label", "rays")])
def test_what_needs_gradients_does_not_apply(knowledge: str, attack: str) -> None:
    found = audit(load_suite("smoke"), f"black_boxes:make_{knowledge}_box", examples=6)
    status = {one.id: one.status for one in found.findings}
    none = {*NEED_GRADIENTS, *(["H9"] if knowledge == "label" else [])}
    assert {id_ for id_, one in status.items() if one == "not applicable"} == none
    assert all(one in ("pass", "skip") for id_, one in status.items() if id_ not in none), found.findings
    assert found.badge == "partial" and found.accepted
    said = {one.id: one.said for one in found.findings}
    assert said["H3"].startswith(f"{attack} ran") and f"under {attack}" in said["S6"]
    assert found.robust is not None and found.robust <= found.clean


def test_answers_that_are_kept_are_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path))
    with serve(describe("labels")) as served:
        found = audit(load_suite("smoke"), served.url, examples=6, only=["H1", "H4", "H7", "H9", "S10"])
        assert served.inputs == 6
    assert [one.status for one in found.findings] == ["pass", *["not applicable"] * 4]
    assert found.badge == "partial"
