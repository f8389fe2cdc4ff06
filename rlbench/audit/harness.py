"""Checks of the harness and of the encoder's outputs: H1 to H11, S4, S10, S14."""

from __future__ import annotations

from fractions import Fraction

import torch

from rlbench.audit.adaptive import Effort, attack_adaptively, describe
from rlbench.audit.lab import Lab
from rlbench.core import Adversarial, registry
from rlbench.core.badges import Finding, Status
from rlbench.core.stats.metrics import margin
from rlbench.encoders.defences.classifier_defence import Fronted
from rlbench.engine.soundness.consistency import COMPANY, OTHER, relative_change
from rlbench.engine.soundness.rules import check_chance, findings


def h1(lab: Lab) -> Finding:
    """Whether the clean inputs lie in the box."""
    box, x = lab.bench.box, lab.x
    fine = bool(x.isfinite().all()) and float(x.min()) >= box.low and float(x.max()) <= box.high
    text = f"inputs span {x.min():.3g} to {x.max():.3g}, the box is [{box.low:g}, {box.high:g}]"
    return Finding(id="H1", status="pass" if fine else "fail", said=text)


def h2(lab: Lab) -> Finding:
    """Evaluation mode, which `evaluate.prepare` requires."""
    return Finding(id="H2", status="pass", said="checked when the encoder was loaded")


def h3(lab: Lab) -> Finding:
    """Whether the gradient attacks ran and the judge accepted their points."""
    errors = [outcome.error for outcome in lab.gradient_attacks if outcome.error]
    ran = "fgsm, pgd and apgd-ce" if lab.knowledge == "white-box" else lab.attacks_text
    text = errors[0] if errors else f"{ran} ran, and all their points lie in the ball"
    return Finding(id="H3", status="fail" if errors else "pass", said=text)


def h4(lab: Lab) -> Finding:
    """Classifies adversarial points again, in reversed order and batches of 7."""
    if not lab.is_repeatable:
        return Finding(id="H4", status="skip", said="the encoder's outputs are random, see S10")
    x = lab.x.clone()
    outcome = lab.main_attack()
    x[lab.rows] = outcome.x_adv
    once = lab.logits(x)
    again = torch.cat([lab.logits(part) for part in torch.split(x.flip(0), OTHER)]).flip(0)
    far = float(relative_change(once, again).max())
    differ = float(((margin(once, lab.y) > 0) != (margin(again, lab.y) > 0)).float().mean())
    text = f"{100 * differ:.3g}% of the verdicts differ; logits differ by {100 * far:.2g}% of the largest"
    return Finding(id="H4", status="fail" if differ > 0.001 or far > COMPANY else "pass", said=text)


def h5(lab: Lab) -> Finding:
    """Compares pgd at eps 0 with the clean pass."""
    if not lab.is_repeatable:
        return Finding(id="H5", status="skip", said="the encoder's outputs are random, see S10")
    robust, clean = lab.main_attack(Fraction(0)).robust, lab.clean.robust
    text = f"{int((robust != clean).sum())} of {lab.n} examples differ"
    return Finding(id="H5", status="pass" if torch.equal(robust, clean) else "fail", said=text)


def run_cheap_checks(lab: Lab) -> list[Finding]:
    """H7, H8, H9 and S4, as in every run."""
    found = [one for one in findings(lab.sums, lab.knowledge) if one.id != "S14"]
    if any("does not require grad" in outcome.error for outcome in lab.gradient_attacks[:2]):
        found[0] = Finding(id="H7", status="fail", said="the encoder has no gradient at all")
    return found


def h10(lab: Lab) -> Finding:
    """Whether the losses of the suite's attacks work with this number of classes."""
    classes, notes, status = lab.bench.n_classes, [], "pass"
    attacks = [p for p in lab.bench.suite.perturbations if isinstance(p, Adversarial)]
    for name, fields in dict.fromkeys((attack.attack, attack.fields) for attack in attacks):
        method = registry.make("attack", name, fields)
        if classes < getattr(method, "min_classes", 2):
            used = getattr(method, "loss_used", None)
            status = status if used else "warn"
            notes.append(
                f"{name} uses the loss {used(classes)}" if used else f"{name} needs {method.min_classes} classes"
            )
    text = f"{classes} classes" + "".join(f"; {one}" for one in notes)
    return Finding(id="H10", status="warn" if status == "warn" else "pass", said=text)


def h11(lab: Lab) -> Finding:
    """Tests clean accuracy against the largest class's share."""
    return check_chance(int(lab.clean.robust.sum()), lab.y.tolist())


def s10(lab: Lab) -> Finding:
    """Compares five forward passes of the same input."""
    text = f"five forward passes differ by {100 * lab.spread:.2g}% of the largest logit"
    text += "; the trait randomised is not declared" if not lab.is_repeatable else ""
    text += f"; the attacks use the expectation over {lab.bench.draws} draws (EoT)" if lab.declares_randomness else ""
    return Finding(id="S10", status="pass" if lab.is_repeatable else "adaptive", said=text)


def s14(lab: Lab) -> Finding:
    """Declared traits, except randomness (S10); a defence is attacked in its ways, or through honest()."""
    if isinstance(lab.bench.encoder, Fronted):
        return _check_defence(lab)
    answered = {"randomised"} | ({"non_differentiable"} if lab.knowledge != "white-box" else set())
    traits = sorted(lab.bench.encoder.traits - answered)
    honest = getattr(lab.bench.encoder, "honest", None)
    if not traits or honest is None:
        text = f"the encoder declares {', '.join(traits)} and has no honest()" if traits else "no trait is declared"
        return Finding(id="S14", status="adaptive" if traits else "pass", said=text)
    through = float(lab.attack_through(lab.with_encoder(honest())).float().mean())
    plain = float(lab.survivors.float().mean())
    status: Status = "fail" if through < plain - 0.01 else "pass"
    text = f"accuracy is {100 * through:.1f}% when attacked through honest(), else {100 * plain:.1f}%"
    return Finding(id="S14", status=status, said=text)


def _check_defence(lab: Lab) -> Finding:
    """S14 for a test-time defence: the plain gradient attacks must not leave more than the adaptive ones."""
    found = attack_adaptively(lab, Effort())
    plain, adaptive = (float(one.float().mean()) for one in (lab.survivors, found.adaptive))
    status: Status = "fail" if adaptive < plain - 0.01 else "pass"
    text = f"accuracy is {100 * adaptive:.1f}% under adaptive attacks, {100 * plain:.1f}% under plain ones"
    return Finding(id="S14", status=status, said=f"{text} (step by step: {describe(found)})")
