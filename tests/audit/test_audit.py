"""Soundness: the rules on what is counted, what a watched meter counts, and audits of encoders that are known."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from rlbench.audit import harness
from rlbench.audit.lab import Lab, main_threat
from rlbench.audit.report import RUNS, audit
from rlbench.cli.main import main
from rlbench.core import Adversarial, Clean, Threat, Worst
from rlbench.core.badges import CHECKS, Finding, badge
from rlbench.core.errors import FieldError, SuiteError, UnknownName
from rlbench.core.suite import load_suite
from rlbench.core.threat import parse_eps
from rlbench.encoders.defences.defended import Defence, Defended
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import prepare
from rlbench.engine.run.runner import run
from rlbench.engine.soundness.rules import findings, provenance
from rlbench.engine.soundness.watch import SUMS, Watch, total

FINE = dict.fromkeys(SUMS, 0) | {"passes": 1000, "correct": 1000, "gradients": 1000, "examples": 1000}


def status(id_: str, **sums: int) -> str:
    return next(one.status for one in findings(FINE | sums) if one.id == id_)


@pytest.mark.parametrize(
    ("id_", "sums", "expected"),
    [
        ("H7", {"zero_gradients": 10}, "pass"),  # 1% is allowed
        ("H7", {"zero_gradients": 11}, "warn"),
        ("H7", {"zero_gradients": 1000}, "fail"),
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
    assert status(id_, **sums) == expected


def test_a_badge_is_the_worst_finding_and_a_record_says_which() -> None:
    made = [Finding(id="S2", status=status, said="") for status in ("pass", "skip", "warn", "adaptive", "fail")]
    assert [badge(made[: k + 1]) for k in range(5)] == ["sound", "sound", "warn", "needs adaptive", "unreliable"]
    assert provenance([FINE]) == {"soundness": "sound"}
    assert provenance([{}, {}]) == {}  # blocks of an older version were not watched
    halves = [FINE | {"saturated": 200}, FINE]
    assert provenance(halves) == {"soundness": "warn", "soundness_failed": "H8: 10% of correct points have no loss"}
    assert total([{"passes": 2}, {"passes": 3, "lost": 1}])["passes"] == 5


def watched(answer, x, y) -> dict[str, int]:
    watch = Watch(y)
    logits = Meter(answer, len(x), batch_size=4, watch=watch)(x.requires_grad_())
    if logits.requires_grad:
        torch.autograd.grad(logits[:, 0].sum(), x)
    return watch.sums(torch.zeros(len(x), dtype=torch.bool))


def test_a_watch_counts_what_it_is_told_to() -> None:
    x, y = torch.linspace(0.5, 1, 6)[:, None] * torch.tensor([1.0, 0.1]), torch.zeros(6, dtype=torch.int64)
    plain = watched(lambda x: x.exp(), x, y)
    assert plain == FINE | {"passes": 6, "correct": 6, "gradients": 6, "examples": 6}
    assert watched(lambda x: 1000 * x.exp() + 100 * torch.tensor([1.0, 0.0]), x, y)["saturated"] == 6
    assert watched(lambda x: x.softmax(1), x, y)["probabilities"] == 6
    assert watched(lambda x: x.detach() + 0 * x, x, y)["zero_gradients"] == 6
    assert watched(lambda x: torch.where(x < 2, torch.nan, x), x, y)["not_finite"] == 6
    assert watched(lambda x: torch.zeros_like(x), x, y)["constant"] == 6


def test_a_gradient_that_is_zero_in_some_rows_and_past_the_first_glance() -> None:
    x, y = torch.rand(3, 4000), torch.zeros(3, dtype=torch.int64)
    weights = torch.zeros(4000, 2)
    weights[-1, 0] = 1.0
    sums = watched(lambda x: (x * torch.tensor([[1.0], [0.0], [1.0]])) @ weights + torch.tensor([1.0, 0.0]), x, y)
    assert (sums["gradients"], sums["zero_gradients"]) == (3, 1)


def test_a_watch_changes_no_number_and_takes_a_leaf_twice() -> None:
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


def test_an_error_that_was_seen_and_is_not_returned_is_lost() -> None:
    watch = Watch(torch.zeros(3, dtype=torch.int64))
    meter = Meter(lambda x: x, 3, watch=watch)
    meter(torch.tensor([[1.0, 2.0], [1.0, 1.0 + 1e-6], [2.0, 1.0]]))  # clearly broken, a tie but for rounding, correct
    assert watch.sums(torch.tensor([True, True, True]))["lost"] == 1
    assert watch.sums(torch.tensor([False, True, True]))["lost"] == 0
    assert watch.sums(torch.tensor([True]), torch.tensor([2]))["lost"] == 0


def test_the_main_threat_has_the_most_attacks() -> None:
    def made(name: str, norm, eps: str) -> Adversarial:
        return Adversarial(name, Threat(norm, parse_eps(eps)))

    attacks = [made("pgd", "linf", e) for e in ("2/255", "8/255")] + [made("fgsm", "linf", "2/255")]
    assert str(main_threat([*attacks, *[made(k, "l2", "1") for k in "abc"]], "s")) == "linf 2/255"
    assert str(main_threat(attacks[:2], "s")) == "linf 8/255"  # of equals the largest
    with pytest.raises(SuiteError, match="no linf attack"):
        main_threat([made("pgd", "l2", "1")], "s")


def test_the_linear_oracle_is_sound() -> None:
    asked: list[str] = []
    found = audit(load_suite("smoke"), "linear", examples=12, report=lambda what, *_: asked.append(what))
    bad = {one.id: one.said for one in found.findings if one.status not in ("pass", "skip")}
    assert found.badge == "sound" and found.accepted and not bad
    assert [one.id for one in found.findings] == list(RUNS) and set(RUNS) == set(CHECKS)
    assert len(asked) == len(RUNS) + 1 and asked[-1] == "done"
    report = json.loads(found.json())
    assert report["badge"] == "sound" and report["findings"][0]["rule"] == CHECKS["H1"].rule


def test_mistakes() -> None:
    with pytest.raises(UnknownName, match="check"):
        audit(load_suite("smoke"), "linear", only=["S99"])
    with pytest.raises(FieldError, match="1 to 200"):
        audit(load_suite("smoke"), "linear", examples=201)
    with pytest.raises(UnknownName):
        audit(load_suite("smoke"), "linear+no-such-defence")


@pytest.mark.parametrize(("model", "code"), [("linear", 0), ("linear+jpeg", 1)])
def test_the_command_writes_a_report_and_exits_by_the_badge(tmp_path, model, code) -> None:
    words = ["--suite", "smoke", "--model", model, "--examples", "16", "--check", "H7", "--check", "S10"]
    done = CliRunner().invoke(main, ["audit", *words, "--out", str(tmp_path), "--quiet", "--device", "cpu"])
    assert done.exit_code == code, done.output
    (path,) = (tmp_path / "audits").iterdir()
    report = json.loads(path.read_text())
    assert [one["id"] for one in report["findings"]] == ["H7", "S10"]
    assert f"badge: {report['badge']}" in done.output
    assert (CHECKS["H7"].advice in done.output) == (code == 1)


def test_a_run_keeps_watch(tmp_path) -> None:
    pgd = Adversarial("pgd", Threat("linf", parse_eps("4/255")))
    suite = replace(load_suite("smoke"), perturbations=(Clean(), pgd, Worst(pgd.threat)), examples=16)
    records = run(suite, ["linear", "linear+jpeg"], out=tmp_path, workers=1)
    assert [record.provenance["soundness"] for record in records] == ["sound"] * 4 + ["unreliable"] * 2
    assert records[-1].provenance["soundness_failed"] == "H7: 100% of gradients are zero"


@dataclass(frozen=True, kw_only=True)
class Shaky(Defence):
    """Noise on the embedding, declared or not."""

    declared: bool = True

    @property
    def traits(self):
        return frozenset({"randomised"} if self.declared else ())

    def middle(self, embedded):
        return embedded + 0.02 * torch.randn(embedded.shape)


@pytest.mark.parametrize("declared", [True, False])
def test_declared_randomness_is_attacked_by_its_expectation_and_other_is_named(declared) -> None:
    bench = prepare(load_suite("smoke"), "linear")
    head = replace(bench.classifier, encoder=Defended(bench.classifier.encoder, Shaky(declared=declared)))
    lab = Lab(replace(bench, classifier=head), 6, Threat("linf", parse_eps("4/255")))
    random, same = harness.s10(lab), harness.h5(lab)
    assert random.status == ("pass" if declared else "adaptive")
    assert ("not declared" in random.said) != declared
    assert same.status == ("pass" if declared else "skip") and lab.random > 1e-3


@pytest.mark.parametrize(("honest", "status"), [(False, "adaptive"), (True, "fail")])
def test_a_declared_purifier_needs_an_adaptive_attack(honest, status) -> None:
    bench = prepare(load_suite("smoke"), "linear+jpeg")
    encoder = bench.classifier.encoder
    told = SimpleNamespace(
        boxes=encoder.boxes, logit_scale=encoder.logit_scale, traits=frozenset({"purifies_input"}), embed=encoder.embed
    )
    if honest:
        told.honest = encoder.honest
    lab = Lab(
        replace(bench, classifier=replace(bench.classifier, encoder=told)), 16, Threat("linf", parse_eps("8/255"))
    )
    assert harness.s14(lab).status == status  # through honest() less is left than the plain attacks say
