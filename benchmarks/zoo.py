"""Shows which soundness checks flag each planted defence, and its accuracy under an adaptive attack.

python benchmarks/zoo.py [SUITE] [MODEL] [EXAMPLES] [DEFENCE ...]     # thermal languagebind 24, all of them

Per defence: its badge; its accuracy clean, under plain gradient attacks (the worst of fgsm, pgd-20 and apgd-ce-100),
and under 40 steps of pgd on its honest stand-in (the expectation, a differentiable form, or no defence), judged on the
defence itself; CPU seconds of the audit; and the failing checks.
"""

from __future__ import annotations

import sys
from time import process_time

import torch

from rlbench.audit.lab import Lab, main_threat
from rlbench.audit.report import audit
from rlbench.core import Adversarial, registry
from rlbench.core.suite import load_suite
from rlbench.encoders.defences.classifier_defence import ClassifierDefence
from rlbench.engine.block.bench import prepare


def attack_honestly(suite_name: str, model: str, n: int) -> float:
    """The robust accuracy under an attack on the honest stand-in."""
    suite = load_suite(suite_name)
    threat = main_threat([p for p in suite.perturbations if isinstance(p, Adversarial)], suite.name)
    lab = Lab(prepare(suite, model), n, threat)
    return float(lab.attack_through(lab.with_encoder(lab.classifier.encoder.honest())).float().mean())  # type: ignore[attr-defined]


def planted() -> list[str]:
    """The defences that are planted for the audit; `test_time.py` is about the others."""
    made = {name: registry.make("defence", name) for name in registry.names("defence")}
    return [name for name, defence in made.items() if not isinstance(defence, ClassifierDefence)]


def main(suite: str = "thermal", model: str = "languagebind", examples: str = "24", *names: str) -> None:
    """Writes a markdown table row by row."""
    torch.set_num_threads(1)
    n = int(examples)
    sys.stdout.write("| defence | badge | clean | plain | honest | seconds | failing checks |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- |\n")
    for name in names or planted():
        begun = process_time()
        found = audit(load_suite(suite), f"{model}+{name}", examples=n)
        seconds, left = process_time() - begun, attack_honestly(suite, f"{model}+{name}", n)
        failing = ", ".join(one.id for one in found.findings if one.status not in ("pass", "skip"))
        numbers = " | ".join(f"{100 * share:.1f}" for share in (found.clean, found.robust or 0.0, left))
        sys.stdout.write(f"| {name} | {found.badge} | {numbers} | {seconds:.0f} | {failing} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
