"""Checks of the harness's promises and of the encoder's answers: H1 to H10, S4, S10, S14."""

from __future__ import annotations

from fractions import Fraction

import torch

from rlbench.audit.lab import Lab
from rlbench.core import Adversarial, registry
from rlbench.core.badges import Finding, Status
from rlbench.core.stats.metrics import margin
from rlbench.engine.attack.eot import DRAWS
from rlbench.engine.soundness.consistency import COMPANY, OTHER, moved
from rlbench.engine.soundness.rules import findings


def h1(lab: Lab) -> Finding:
    """Inputs in the box."""
    box, x = lab.bench.box, lab.x
    fine = bool(x.isfinite().all()) and float(x.min()) >= box.low and float(x.max()) <= box.high
    said = f"{x.min():.3g} to {x.max():.3g} in [{box.low:g}, {box.high:g}]"
    return Finding(id="H1", status="pass" if fine else "fail", said=said)


def h2(lab: Lab) -> Finding:
    """Evaluation mode: the bench was not prepared otherwise."""
    return Finding(id="H2", status="pass", said="checked when the encoder was loaded")


def h3(lab: Lab) -> Finding:
    """The gradient attacks ran, and the judge took their answers."""
    errors = [outcome.error for outcome in lab.white if outcome.error]
    said = errors[0] if errors else "fgsm, pgd and apgd-ce ran, and every point was in its ball"
    return Finding(id="H3", status="fail" if errors else "pass", said=said)


def h4(lab: Lab) -> Finding:
    """Adversarial points, classified once more in reversed order and batches of 7."""
    if not lab.repeats:
        return Finding(id="H4", status="skip", said="the encoder does not repeat itself: S10")
    x = lab.x.clone()
    outcome = lab.attacked("pgd")
    x[lab.rows] = outcome.x_adv
    once = lab.logits(x)
    again = torch.cat([lab.logits(part) for part in torch.split(x.flip(0), OTHER)]).flip(0)
    far = float(moved(once, again).max())
    differ = float(((margin(once, lab.y) > 0) != (margin(again, lab.y) > 0)).float().mean())
    said = f"{100 * differ:.3g}% of flags differ, logits by {100 * far:.2g}% of the largest"
    return Finding(id="H4", status="fail" if differ > 0.001 or far > COMPANY else "pass", said=said)


def h5(lab: Lab) -> Finding:
    """pgd at eps 0."""
    if not lab.repeats:
        return Finding(id="H5", status="skip", said="the encoder does not repeat itself: S10")
    robust, clean = lab.attacked("pgd", times=Fraction(0)).robust, lab.clean.robust
    said = f"{int((robust != clean).sum())} of {lab.n} differ"
    return Finding(id="H5", status="pass" if torch.equal(robust, clean) else "fail", said=said)


def cheap(lab: Lab) -> list[Finding]:
    """H7, H8, H9 and S4, as every run has them."""
    found = [one for one in findings(lab.sums) if one.id != "S14"]
    crashed = next((outcome.error for outcome in lab.white[:2] if "does not require grad" in outcome.error), "")
    if crashed:
        found[0] = Finding(id="H7", status="fail", said="there is no gradient at all")
    return found


def h10(lab: Lab) -> Finding:
    """The losses of the suite's attacks with this number of classes."""
    classes, said, status = lab.bench.n_classes, [], "pass"
    attacks = [p for p in lab.bench.suite.perturbations if isinstance(p, Adversarial)]
    for name, fields in dict.fromkeys((attack.attack, attack.fields) for attack in attacks):
        method = registry.make("attack", name, fields)
        if classes < getattr(method, "min_classes", 2):
            used = getattr(method, "loss_used", None)
            status = status if used else "warn"
            said.append(f"{name} ascends {used(classes)}" if used else f"{name} needs {method.min_classes}")
    text = f"{classes} classes" + "".join(f"; {one}" for one in said)
    return Finding(id="H10", status="warn" if status == "warn" else "pass", said=text)


def s10(lab: Lab) -> Finding:
    """Five passes of the same input."""
    said = f"five passes differ by {100 * lab.random:.2g}% of the largest logit"
    said += "; the trait randomised is not declared" if not lab.repeats else ""
    said += f"; attacked is the expectation over {DRAWS} draws" if lab.declared else ""
    return Finding(id="S10", status="pass" if lab.repeats else "adaptive", said=said)


def s14(lab: Lab) -> Finding:
    """Declared traits but randomness, which is S10's; where the encoder has honest(), it is attacked through that."""
    traits = sorted(lab.classifier.encoder.traits - {"randomised"})
    honest = getattr(lab.classifier.encoder, "honest", None)
    if not traits or honest is None:
        said = f"declares {', '.join(traits)} and no honest()" if traits else "declares no trait"
        return Finding(id="S14", status="adaptive" if traits else "pass", said=said)
    through, plain = float(lab.through(lab.behind(honest())).float().mean()), float(lab.left.float().mean())
    status: Status = "fail" if through < plain - 0.01 else "pass"
    said = f"declares {', '.join(traits)}; through honest() {100 * through:.1f}% are left, else {100 * plain:.1f}%"
    return Finding(id="S14", status=status, said=said)
