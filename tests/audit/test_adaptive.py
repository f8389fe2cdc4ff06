"""Adaptive attacks on made defences whose true robustness is that of the encoder behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from rlbench.audit import adaptive, harness
from rlbench.audit.adaptive import Effort, attack_adaptively, attack_static, undefended
from rlbench.audit.lab import Lab
from rlbench.audit.report import audit
from rlbench.core import Threat
from rlbench.core.errors import RLBenchError
from rlbench.core.suite import load_suite
from rlbench.core.threat import parse_eps
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Fronted, Held, Way
from rlbench.engine.block.bench import prepare

SHORT = Effort(static_steps=10, targets=3, steps=10, duels=1, duel_steps=5)
N = 24


@dataclass(frozen=True, kw_only=True)
class Masked(ClassifierDefence):
    """Changes nothing but the gradient, which is zero."""

    def predict(self, plain, x):
        return plain.score(x.detach()) + 0 * x.sum()


@dataclass(frozen=True, kw_only=True)
class Shifted(ClassifierDefence):
    """Answers for the negative of the input, by the negative logits: on an affine encoder this changes nothing."""

    def predict(self, plain, x):
        return -plain.score(1 - x)


@dataclass(frozen=True, kw_only=True)
class Gated(ClassifierDefence):
    """Answers by the encoder where the first pixel is dark, else by the nearest example that it remembers."""

    memory: tuple[torch.Tensor, ...] = ()

    def predict(self, plain, x):
        known, y = self.memory
        nearest = torch.cdist(x.detach().flatten(1), known.flatten(1)).argmin(1)
        dark = x.flatten(1)[:, :1] < 0.3
        return torch.where(dark, plain.score(x), torch.nn.functional.one_hot(y[nearest], 4) + 0 * plain.score(x))

    def ways(self):
        def hold(plain, x):
            return Held(plain.score(x), (x.flatten(1)[:, 0] - 0.3).relu())

        return (*super().ways(), Way("branch: dark", hold))


def lab_of(defence: ClassifierDefence, eps: str = "8/255") -> Lab:
    bench = prepare(load_suite("smoke"), "linear")
    head = replace(bench.classifier, encoder=Fronted(bench.encoder, defence))
    return Lab(replace(bench, classifier=head), N, Threat("linf", parse_eps(eps)))


def test_a_defence_that_masks_its_gradient_is_as_robust_as_its_encoder() -> None:
    lab = lab_of(Masked())
    found = attack_adaptively(lab, SHORT)
    assert torch.equal(found.adaptive, found.static) and 0 < int(found.static.sum()) < int(found.clean.sum())
    assert int(lab.survivors.sum()) > int(found.adaptive.sum())
    finding = harness.s14(lab)
    assert finding.status == "fail" and "oblivious" in finding.said


def test_the_steps_only_remove_examples_and_the_static_attack_is_optimal_on_the_linear_encoder() -> None:
    lab = lab_of(Shifted())
    static = attack_static(undefended(lab), lab, SHORT)
    plain = undefended(lab)
    with torch.no_grad():
        logits = plain(lab.x)
    own = logits.gather(1, lab.y[:, None])
    w = plain.encoder._weights  # type: ignore[attr-defined]
    gaps = plain.logit_scale * lab.ball.radius * (w[lab.y][:, None] - w[None]).abs().sum(2)
    others = ((own - logits) > gaps) | torch.nn.functional.one_hot(lab.y, 4).bool()
    assert torch.equal(static.robust, others.all(1))
    left = [int(one.sum()) for one in attack_adaptively(lab, SHORT, static).left.values()]
    assert left == sorted(left, reverse=True)


def test_a_hinge_raises_the_true_logit() -> None:
    lab = lab_of(Gated())
    way = lab.bench.encoder.ways()[1]  # type: ignore[attr-defined]
    seen = adaptive._Through(way, undefended(lab), lab.y, 64)(lab.x)
    slack = (lab.x.flatten(1)[:, 0] - 0.3).relu()
    rise = (seen - undefended(lab)(lab.x)).gather(1, lab.y[:, None])[:, 0]
    assert torch.allclose(rise, (1e4 + 100 * slack).double(), atol=1e-2)
    duel = adaptive._Duel(adaptive._Through(way, undefended(lab), lab.y, 64), lab.y, (lab.y + 1) % 4)
    assert torch.equal(
        duel(lab.x[3:5], torch.tensor([3, 4])), seen[3:5].gather(1, torch.stack([lab.y, (lab.y + 1) % 4], 1)[3:5])
    )


def test_a_gate_is_broken_in_the_branch_that_the_hinge_holds() -> None:
    x, y = lab_of(Masked()).x.clone(), lab_of(Masked()).y
    x[:, 0, 0, 0] = 0.33  # an attack can darken the pixel below the gate's 0.3, but only just
    lab = lab_of(Gated(memory=(x, y)))
    lab.__dict__["x"] = x
    found = attack_adaptively(lab, SHORT)
    assert int(found.adaptive.sum()) < int(found.left["pipeline"].sum())
    assert torch.equal(found.adaptive, found.static)


def test_random_defences_get_fresh_draws_at_every_call() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Noisy(ClassifierDefence):
        traits = frozenset({"randomised"})

        def predict(self, plain, x):
            return plain.score(x) + torch.randn(1, 1)

    lab = lab_of(Noisy())
    through = adaptive._Through(lab.bench.encoder.ways()[0], undefended(lab), lab.y, 64)  # type: ignore[attr-defined]
    draws = [adaptive._FreshDraws(through, 2, seed=0) for _ in range(2)]
    first, again = draws[0](lab.x), draws[0](lab.x)
    assert not torch.allclose(first, again) and torch.equal(draws[1](lab.x), first)


def test_only_a_test_time_defence_is_attacked_adaptively() -> None:
    bench = prepare(load_suite("smoke"), "linear+jpeg")
    with pytest.raises(RLBenchError, match="no test-time defence"):
        attack_adaptively(Lab(bench, 4, Threat("linf", parse_eps("4/255"))), SHORT)


def test_the_badge_of_a_defence_is_a_verdict() -> None:
    found = audit(load_suite("smoke"), "linear+anti-adversary", examples=12, only=["S14"])
    assert found.findings[0].status in ("pass", "fail") and found.badge != "needs adaptive"
    assert "static replay" in found.findings[0].said


def test_the_audit_shows_that_clipure_masks_its_gradients() -> None:
    found = audit(load_suite("thermal"), "languagebind+clipure-cos", examples=12, only=["H7", "S8"])
    assert {one.id: one.status for one in found.findings} == {"H7": "fail", "S8": "fail"}
    assert found.badge == "unreliable"
