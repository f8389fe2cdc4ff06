"""Soundness in every run: the rules of the cheap checks, the counts of a watch, and the fields of a record."""

from dataclasses import replace

import pytest
import torch

from rlbench.core import Adversarial, Clean, Threat, Worst
from rlbench.core.badges import Finding, badge
from rlbench.core.suite import load_suite
from rlbench.core.threat import parse_eps
from rlbench.engine.attack.meter import Meter
from rlbench.engine.run.runner import run
from rlbench.engine.soundness.rules import check_chance, findings, provenance
from rlbench.engine.soundness.watch import SUMS, Watch, total

FINE = dict.fromkeys(SUMS, 0) | {"passes": 1000, "correct": 1000, "gradients": 1000, "examples": 1000}


def status_of(id_: str, **sums: int) -> str:
    return next(one.status for one in findings(FINE | sums) if one.id == id_)


@pytest.mark.parametrize(
    ("id_", "sums", "expected"),
    [
        ("H7", {"zero_gradients": 10}, "pass"),  # 1% is allowed
        ("H7", {"zero_gradients": 11}, "warn"),
        ("H7", {"zero_gradients": 1000}, "fail"),
        ("H7", {"blind_gradients": 10}, "pass"),
        ("H7", {"zero_gradients": 5, "blind_gradients": 11}, "warn"),
        ("H7", {"zero_gradients": 1000, "blind_gradients": 1000}, "fail"),
        ("H8", {"saturated": 50}, "pass"),  # 5% is
        ("H8", {"saturated": 51}, "warn"),
        ("H9", {"not_finite": 1}, "fail"),
        ("H9", {"probabilities": 1000}, "warn"),
        ("H9", {"constant": 11}, "warn"),
        ("S4", {"lost": 1}, "pass"),  # flags equal for 99.9%
        ("S4", {"lost": 2}, "fail"),
        ("S4", {"lost": 2, "undefended": 1000}, "adaptive"),
        ("S14", {"undefended": 1}, "adaptive"),
    ],
)
def test_the_rules_of_the_cheap_checks(id_, sums, expected) -> None:
    assert status_of(id_, **sums) == expected


def test_a_badge_is_the_worst_finding_and_a_record_names_it() -> None:
    made = [Finding(id="S2", status=status, said="") for status in ("pass", "skip", "warn", "adaptive", "fail")]
    assert [badge(made[: k + 1]) for k in range(5)] == ["sound", "sound", "warn", "needs adaptive", "unreliable"]
    assert provenance([FINE]) == {"soundness": "sound"}
    assert provenance([{}, {}]) == {}  # blocks of an older version were not watched
    halves = [FINE | {"saturated": 200}, FINE]
    assert provenance(halves) == {"soundness": "warn", "soundness_failed": "H8: 10% of correct points have a loss of 0"}
    assert total([{"passes": 2}, {"passes": 3, "lost": 1}])["passes"] == 5


@pytest.mark.parametrize(
    ("right", "labels", "expected"),
    [
        (6, [*range(10)] * 4, "warn"),  # P(X >= 6) = .21 for 40 draws of 1/10
        (8, [*range(10)] * 4, "pass"),  # P(X >= 8) = .042
        (0, [*range(10)] * 4, "warn"),
        (90, [0] * 90 + [1] * 10, "warn"),  # always the larger class
        (96, [0] * 90 + [1] * 10, "pass"),  # P(X >= 96) = .024 for 100 draws of 9/10
        (3, [*range(10)] * 3, "warn"),  # fewer than 32: no more than the largest class has
        (4, [*range(10)] * 3, "pass"),
        (0, [*range(7)], "skip"),
        (20, [0] * 100, "skip"),  # of a single class
    ],
)
def test_clean_accuracy_is_compared_with_chance(right, labels, expected) -> None:
    found = check_chance(right, labels)
    assert (found.id, found.status) == ("H11", expected)
    assert ("not above chance" in found.said) == (expected == "warn")


TWICE = """
from rlbench.encoders.models import load_encoder
class Twice:
    traits = frozenset()
    sha256 = {}
    def __init__(self):
        self.inner = load_encoder("languagebind", "thermal")
        self.boxes, self.logit_scale = self.inner.boxes, self.inner.logit_scale
    def embed(self, x, modality):
        return self.inner.embed(x / 255, modality)
    def embed_text(self, prompts):
        return self.inner.embed_text(prompts)
"""


def test_an_encoder_that_scales_its_inputs_once_more_is_not_sound(tmp_path, monkeypatch) -> None:
    """Its own division of 0..255 leaves black pictures, and its answers are those of one class."""
    (tmp_path / "twice.py").write_text(TWICE)
    monkeypatch.chdir(tmp_path)
    fgsm = Adversarial("fgsm", Threat("linf", parse_eps("2/255")))
    suite = replace(load_suite("thermal"), perturbations=(Clean(), fgsm), examples=40)
    records = run(suite, ["languagebind", "twice:Twice"], out="out", workers=1)
    assert [record.provenance["soundness"] for record in records] == ["sound"] * 2 + ["warn"] * 2
    said = "H11: clean accuracy is 10%, the largest class has 10% of 40 examples: not above chance (p = 0.58)"
    assert [record.provenance.get("soundness_failed") for record in records[2:]] == [said] * 2


def watch_pass(classify, x, y) -> dict[str, int]:
    watch = Watch(y)
    logits = Meter(classify, len(x), batch_size=4, watch=watch)(x.requires_grad_())
    if logits.requires_grad:
        torch.autograd.grad(logits[:, 0].sum(), x)
    return watch.sums(torch.zeros(len(x), dtype=torch.bool))


def test_a_watch_counts_each_fault() -> None:
    x, y = torch.linspace(0.5, 1, 6)[:, None] * torch.tensor([1.0, 0.1]), torch.zeros(6, dtype=torch.int64)
    plain = watch_pass(lambda x: x.exp(), x, y)
    assert plain == FINE | {"passes": 6, "correct": 6, "gradients": 6, "examples": 6}
    assert watch_pass(lambda x: 1000 * x.exp() + 100 * torch.tensor([1.0, 0.0]), x, y)["saturated"] == 6
    assert watch_pass(lambda x: x.softmax(1), x, y)["probabilities"] == 6
    assert watch_pass(lambda x: x.detach() + 0 * x, x, y)["zero_gradients"] == 6
    assert watch_pass(lambda x: torch.where(x < 2, torch.nan, x), x, y)["not_finite"] == 6
    assert watch_pass(lambda x: torch.zeros_like(x), x, y)["constant"] == 6


def test_zero_gradients_are_counted_per_example_over_all_coordinates() -> None:
    x, y = torch.rand(3, 4000), torch.zeros(3, dtype=torch.int64)
    weights = torch.zeros(4000, 2)
    weights[-1, 0] = 1.0
    sums = watch_pass(lambda x: (x * torch.tensor([[1.0], [0.0], [1.0]])) @ weights + torch.tensor([1.0, 0.0]), x, y)
    assert (sums["gradients"], sums["zero_gradients"]) == (3, 1)


def test_a_watch_changes_no_number_and_accepts_a_leaf_twice() -> None:
    w, x, y = torch.randn(5, 3), torch.rand(7, 5).requires_grad_(), torch.randint(3, (7,))
    watch = Watch(y)
    for _ in range(3):
        both = [Meter(lambda x: (x @ w).tanh(), 7, watch=seen) for seen in (None, watch)]
        logits = [meter(x) for meter in both]
        grads = [torch.autograd.grad(one.square().sum(), x)[0] for one in logits]
        assert torch.equal(*logits) and torch.equal(*grads)
    correct = int((logits[0].argmax(1) == y).sum())
    sums = watch.sums(torch.zeros(7, dtype=torch.bool))
    assert (sums["passes"], sums["gradients"]) == (21, 3 * correct)


def test_an_adversarial_example_that_is_found_but_not_returned_is_lost() -> None:
    watch = Watch(torch.zeros(3, dtype=torch.int64))
    meter = Meter(lambda x: x, 3, watch=watch)
    meter(torch.tensor([[1.0, 2.0], [1.0, 1.0 + 1e-6], [2.0, 1.0]]))  # clearly broken, a tie but for rounding, correct
    assert watch.sums(torch.tensor([True, True, True]))["lost"] == 1
    assert watch.sums(torch.tensor([False, True, True]))["lost"] == 0
    assert watch.sums(torch.tensor([True]), torch.tensor([2]))["lost"] == 0


def test_every_run_is_watched(tmp_path) -> None:
    pgd = Adversarial("pgd", Threat("linf", parse_eps("4/255")))
    suite = replace(load_suite("smoke"), perturbations=(Clean(), pgd, Worst(pgd.threat)), examples=16)
    records = run(suite, ["linear", "linear+jpeg"], out=tmp_path, workers=1)
    assert [record.provenance["soundness"] for record in records] == ["sound"] * 4 + ["unreliable"] * 2
    assert records[-1].provenance["soundness_failed"] == "H7: 100% of gradients are zero"
