"""Gradients that are lost in one sensor are named, although the others have theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import sensor_oracle as oracle
import torch

from rlbench.audit.report import audit
from rlbench.core.suite import load_suite
from rlbench.engine.attack.meter import Meter
from rlbench.engine.run.runner import run
from rlbench.engine.soundness.watch import Part, Watch

ENTRY = "{attack: pgd, steps: 3, norm: linf, eps: 0.03, sensors: %s}"
SAID = "100% of gradients are zero on an attacked sensor"


@pytest.mark.parametrize("sensors", ["all", "[image, depth]"])
def test_a_lost_gradient_is_named_where_its_sensor_is_attacked(tmp_path: Path, monkeypatch, sensors: str) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "sensor_oracle")
    model, found = "sensor_oracle:linear_sensors", {}
    for fusion in ("sum", "deaf"):
        head = oracle.HEAD.replace("task:", f"fusion: {fusion}\ntask:")
        file = str(oracle.suite_file(tmp_path, ENTRY % sensors, head=head))
        facts = run(file, model, out=tmp_path / fusion, workers=1)[-1].provenance
        (audited,) = audit(load_suite(file), model, examples=20, only=["H7"]).findings
        found[fusion] = facts["soundness"], facts.get("soundness_failed"), audited.said
    fine = "sound", None, "0% of gradients are zero"
    assert found["sum"] == fine
    assert found["deaf"] == (("warn", f"H7: {SAID}", SAID) if sensors == "all" else fine)


def test_a_watch_counts_gradients_that_are_zero_in_a_part() -> None:
    x, y = torch.rand(3, 6).requires_grad_(), torch.zeros(3, dtype=torch.int64)

    class Joint(Meter):
        def parts(self, rows):
            return [Part(0, 4, torch.tensor([True, True, True])), Part(4, 6, torch.tensor([True, False, True]))]

    watch = Watch(y)
    weights = torch.tensor([[1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0]])
    logits = Joint(lambda x: torch.stack([1 + (weights * x).sum(1), 0 * x[:, 0]], 1), 3, watch=watch)(x)
    torch.autograd.grad(logits.sum(), x)
    sums = watch.sums(torch.zeros(3, dtype=torch.bool))
    assert (sums["gradients"], sums["zero_gradients"], sums["blind_gradients"]) == (3, 0, 1)
