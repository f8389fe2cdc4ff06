"""Planted defences: each is caught by its check and broken through honest(); bundled encoders pass all checks."""

import pytest
import torch

from rlbench.audit.lab import Lab, main_threat
from rlbench.audit.report import audit
from rlbench.core import Adversarial, registry
from rlbench.core.errors import FieldError
from rlbench.core.suite import load_suite
from rlbench.encoders import models
from rlbench.encoders.defences.classifier_defence import ClassifierDefence
from rlbench.encoders.loading import check_frozen
from rlbench.engine.block.bench import prepare

N = 12
CAUGHT = {
    "batch-statistics": "H4",
    "blur": "H7",
    "dropout": "S10",
    "float16": "H7",
    "jpeg": "H7",
    "k-winners": "H7",
    "nan": "H9",
    "noise": "S10",
    "quantise": "H7",
    "random-resize": "S10",
    "rejection": "H9",
    "saturated": "H8",
    "shattered": "S8",
    "softmax": "H9",
    "stop-gradient": "S8",
    "temperature": "H7",
    "trap": "S8",
}
MASKED = ("float16", "quantise", "stop-gradient", "trap")


def test_all_defences_are_tested_and_none_is_listed_as_a_model() -> None:
    made = {name: registry.make("defence", name) for name in registry.names("defence")}
    planted = {name for name, defence in made.items() if not isinstance(defence, ClassifierDefence)}
    assert set(CAUGHT) == planted and len(CAUGHT) >= 14
    assert not any("+" in model.name for model in models.models())


@pytest.mark.parametrize("name", CAUGHT)
def test_every_planted_defence_fails_its_check(name) -> None:
    found = audit(load_suite("thermal"), f"languagebind+{name}", examples=N, only=[CAUGHT[name]])
    (finding,) = found.findings
    assert found.badge != "sound", finding.said
    assert found.model == f"languagebind:mini+{name}" and found.sibling == "languagebind:mini"


@pytest.mark.parametrize("model", ["languagebind", "rlbind"])
def test_no_cheap_check_flags_a_bundled_encoder(model) -> None:
    found = audit(load_suite("thermal"), model, examples=N, only=sorted(set(CAUGHT.values()) - {"S8"}))
    assert found.badge == "sound", [(one.id, one.said) for one in found.findings if one.status != "pass"]


@pytest.mark.parametrize("name", MASKED)
def test_an_honest_attack_breaks_a_defence_that_hides_its_gradients(name) -> None:
    suite = load_suite("thermal")
    threat = main_threat([p for p in suite.perturbations if isinstance(p, Adversarial)], suite.name)
    lab = Lab(prepare(suite, f"languagebind+{name}"), N, threat)
    encoder = lab.classifier.encoder
    assert int(lab.attack_through(lab.with_encoder(encoder.honest())).sum()) < int(lab.attack("pgd").robust.sum())


@pytest.mark.parametrize("name", CAUGHT)
def test_a_defended_encoder_is_an_encoder_of_its_own(name) -> None:
    encoder = models.load_encoder(f"languagebind+{name}", "thermal")
    check_frozen(encoder, name)
    plain = models.load_encoder("languagebind", "thermal")
    assert encoder.sha256["thermal"] not in ("", plain.sha256["thermal"])
    x = 0.2 + 0.6 * torch.rand(3, *encoder.boxes["thermal"].shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(encoder.embed(x, "thermal").norm(dim=1), torch.ones(3), atol=1e-5)
    honest = encoder.honest()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(honest.embed(x, "thermal")[:, 0].sum(), x)
    assert gradient.isfinite().all() and (gradient.flatten(1) != 0).any(1).all()


def test_a_defence_of_blocks_refuses_an_input_that_they_do_not_divide() -> None:
    defence = registry.make("defence", "jpeg")
    assert defence.front(torch.rand(2, 3, 16, 24)).shape == (2, 3, 16, 24)
    with pytest.raises(FieldError, match="an input of 16 x 20 does not divide"):
        defence.front(torch.rand(2, 3, 16, 20))
