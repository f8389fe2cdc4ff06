"""End to end on the linear oracle: every attack of the smoke suite reaches the closed-form robust accuracy exactly."""

import pytest
import torch

import rlbench
from rlbench.core import Adversarial, Clean, Worst
from rlbench.encoders.linear import weights


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out = tmp_path_factory.mktemp("store")
    return {str(r.perturbation): r for r in rlbench.run("smoke", "linear", out=str(out), workers=1)}


def minimal_eps(norm: str) -> torch.Tensor:
    """(N,) float64: the smallest eps that breaks each example of the suite; below 0 for a clean error."""
    suite, w = rlbench.load_suite("smoke"), weights().double()
    part = suite.task.load(rlbench.load_encoder("linear").boxes["image"], 0, suite.examples)
    z = (part.x.flatten(1).double() - 0.5) @ w.T
    dual = torch.cdist(w, w, p=1 if norm == "linf" else 2)[part.y]
    reach = (z.gather(1, part.y[:, None]) - z) / dual
    return reach.scatter(1, part.y[:, None], float("inf")).amin(1)


SUITE = rlbench.load_suite("smoke")


@pytest.mark.parametrize("perturbation", SUITE.perturbations, ids=str)
def test_robust_accuracy_is_the_closed_form(records, perturbation) -> None:
    record = records[str(perturbation)]
    if isinstance(perturbation, Clean):
        assert record.n_correct == int((minimal_eps("linf") > 0).sum())
        return
    assert isinstance(perturbation, Adversarial | Worst)
    eps = minimal_eps(perturbation.threat.norm)
    expected = int((eps > float(perturbation.threat.eps)).sum())
    assert 0 < expected < int((eps > 0).sum())
    assert record.n_correct == expected
    assert record.n == SUITE.examples and record.error is None
