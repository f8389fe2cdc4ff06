"""Audits of encoders whose soundness is known, and the report."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from rlbench.audit import harness, report
from rlbench.audit.lab import Lab, main_threat
from rlbench.audit.report import RUNS, audit
from rlbench.cli.main import main
from rlbench.core import Adversarial, Threat
from rlbench.core.badges import CHECKS, Finding
from rlbench.core.errors import AttackError, DataError, FieldError, SuiteError, UnknownName
from rlbench.core.suite import load_suite
from rlbench.core.threat import parse_eps
from rlbench.encoders.defences.defended import Defence, Defended
from rlbench.engine.block.bench import prepare


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
    text = json.loads(found.json())
    assert text["badge"] == "sound" and text["findings"][0]["rule"] == CHECKS["H1"].rule


def test_mistakes() -> None:
    with pytest.raises(UnknownName, match="check"):
        audit(load_suite("smoke"), "linear", only=["S99"])
    with pytest.raises(FieldError, match="1 to 200"):
        audit(load_suite("smoke"), "linear", examples=201)
    with pytest.raises(UnknownName):
        audit(load_suite("smoke"), "linear+no-such-defence")
    with pytest.raises(DataError, match="none of the first 1 examples of image is classified correctly"):
        audit(load_suite("image"), "random:mini", examples=1)


@pytest.mark.parametrize(("model", "code"), [("linear", 0), ("linear+jpeg", 1)])
def test_the_command_writes_a_report_and_exits_by_the_badge(tmp_path, model, code) -> None:
    words = ["--suite", "smoke", "--model", model, "--examples", "16", "--check", "H7", "--check", "S10"]
    done = CliRunner().invoke(main, ["audit", *words, "--out", str(tmp_path), "--quiet", "--device", "cpu"])
    assert done.exit_code == code, done.output
    (path,) = (tmp_path / "audits").iterdir()
    text = json.loads(path.read_text())
    assert [one["id"] for one in text["findings"]] == ["H7", "S10"]
    assert f"badge: {text['badge']}" in done.output
    assert (CHECKS["H7"].advice in done.output) == (code == 1)


@dataclass(frozen=True, kw_only=True)
class Shaky(Defence):
    """An encoder with noise on its embedding, declared as a trait or not."""

    declared: bool = True

    @property
    def traits(self):
        return frozenset({"randomised"} if self.declared else ())

    def middle(self, embedded):
        return embedded + 0.02 * torch.randn(embedded.shape)


@pytest.mark.parametrize("declared", [True, False])
def test_declared_randomness_is_attacked_by_eot_and_undeclared_is_reported(declared) -> None:
    bench = prepare(load_suite("smoke"), "linear")
    head = replace(bench.classifier, encoder=Defended(bench.classifier.encoder, Shaky(declared=declared)))
    lab = Lab(replace(bench, classifier=head), 6, Threat("linf", parse_eps("4/255")))
    random, same = harness.s10(lab), harness.h5(lab)
    assert random.status == ("pass" if declared else "adaptive")
    assert ("not declared" in random.said) != declared
    assert same.status == ("pass" if declared else "skip") and lab.spread > 1e-3


@pytest.mark.parametrize(("honest", "status"), [(False, "adaptive"), (True, "fail")])
def test_a_declared_purifier_needs_an_adaptive_attack(honest, status) -> None:
    bench = prepare(load_suite("smoke"), "linear+jpeg")
    encoder = bench.classifier.encoder
    declaring = SimpleNamespace(
        boxes=encoder.boxes, logit_scale=encoder.logit_scale, traits=frozenset({"purifies_input"}), embed=encoder.embed
    )
    if honest:
        declaring.honest = encoder.honest
    lab = Lab(
        replace(bench, classifier=replace(bench.classifier, encoder=declaring)), 16, Threat("linf", parse_eps("8/255"))
    )
    assert harness.s14(lab).status == status  # accuracy is lower through honest() than under plain attacks


def test_a_check_whose_attack_crashes_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples of a crashed attack count as robust, so a comparison with it would pass."""
    lab = SimpleNamespace(outcomes={}, knowledge="white-box")

    def compare(lab: SimpleNamespace) -> Finding:
        lab.outcomes["apgd-ce(steps=200)"] = SimpleNamespace(error="the gradient is not finite")
        return Finding(id="S2", status="pass", said="accuracy does not fall")

    def crash(lab: SimpleNamespace) -> Finding:
        raise AttackError("crashed: planned")

    monkeypatch.setattr(report, "RUNS", {"S2": compare, "S8": crash})
    found = report._run_check("S2", lab)
    assert found.status == "fail" and found.said.startswith("apgd-ce(steps=200): the gradient is not finite; ")
    assert report._run_check("S2", lab).status == "pass"  # a crash is reported once, by the first check that meets it
    assert report._run_check("S8", lab) == Finding(id="S8", status="fail", said="crashed: planned")
