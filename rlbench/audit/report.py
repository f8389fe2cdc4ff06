"""Runs an audit of a model on a suite and makes its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

from rlbench.audit import harness, planted, rivals, strength
from rlbench.audit.lab import Answer, Lab, main_threat
from rlbench.core import Adversarial, Suite
from rlbench.core.badges import CHECKS, RANK, Badge, Finding, badge
from rlbench.core.errors import AttackError, FieldError, SuiteError, UnknownName
from rlbench.encoders.cards import Model
from rlbench.encoders.models import models, resolve
from rlbench.engine.block.bench import Bench, prepare

UNDEFENDED = "languagebind"  # the baseline from which the others were trained
MAX_EXAMPLES = 200
NEED_GRADIENTS = ("H7", "H8", "S1", "S2", "S3", "S7", "S12")
Check = Callable[[Lab], Finding]


def _run_cheap_check(id_: str) -> Check:
    return lambda lab: next(one for one in harness.run_cheap_checks(lab) if one.id == id_)


RUNS: Mapping[str, Check] = {
    "H1": harness.h1,
    "H2": harness.h2,
    "H3": harness.h3,
    "H4": harness.h4,
    "H5": harness.h5,
    "H7": _run_cheap_check("H7"),
    "H8": _run_cheap_check("H8"),
    "H9": _run_cheap_check("H9"),
    "H10": harness.h10,
    "H11": harness.h11,
    "S1": strength.s1,
    "S2": strength.s2,
    "S3": strength.s3,
    "S4": _run_cheap_check("S4"),
    "S5": strength.s5,
    "S6": strength.s6,
    "S7": rivals.s7,
    "S8": rivals.s8,
    "S9": rivals.s9,
    "S10": harness.s10,
    "S12": planted.s12,
    "S14": harness.s14,
}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit.

    Attributes:
        suite: its name.
        model: its name.
        examples: the number of examples.
        threat: the threat model of the attacks.
        sibling: the model whose adversarial examples were transferred, or "".
        clean: accuracy on clean examples.
        robust: accuracy under fgsm, pgd and apgd-ce together; None where only some checks ran, or one of these crashed.
        findings: one per check.
        seconds: wall time.
    """

    suite: str
    model: str
    examples: int
    threat: str
    sibling: str
    clean: float
    robust: float | None
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def badge(self) -> Badge:
        """The worst badge of any finding."""
        return badge(self.findings)

    @property
    def accepted(self) -> bool:
        """Whether the numbers may be quoted: the badge is sound or warn."""
        return RANK.index(self.badge) <= RANK.index("warn")

    def json(self) -> str:
        """The report as JSON, with the question, rule and advice of each check."""
        found = [asdict(finding.check) | asdict(finding) for finding in self.findings]
        facts = asdict(replace(self, findings=())) | {"badge": self.badge, "findings": found}
        return json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _find_sibling(bench: Bench, model: Model) -> tuple[str, Answer | None]:
    """The encoder inside a defence, or the undefended baseline with the same backbone: its name and classifier."""
    inner = getattr(bench.encoder, "sibling", None)
    if inner is not None:
        return model.name.rpartition("+")[0], bench.classifier.on(inner)
    other = f"{UNDEFENDED}:{model.backbone}"
    if model.baseline == UNDEFENDED or other not in {one.name for one in models()}:
        return "", None
    return other, prepare(bench.suite, other, device=bench.device).classifier


def _explain_lack(id_: str, lab: Lab) -> Finding | None:
    """The finding that a check does not apply to a black box; None if it does."""
    if lab.knowledge == "white-box":
        return None
    lacks = dict.fromkeys(NEED_GRADIENTS, "the encoder gives no gradients")
    lacks |= {"H9": "the encoder gives no scores"} if lab.knowledge == "label" else {}
    lacks |= dict.fromkeys(("H4", "S10"), "answers are kept, and not asked again") if lab.bench.is_metered else {}
    return Finding(id=id_, status="not applicable", said=lacks[id_]) if id_ in lacks else None


def _mark_random(found: Finding, lab: Lab) -> Finding:
    """Makes a failure "adaptive" where the encoder is random: its expectation has to be attacked first."""
    random = found.id.startswith("S") and found.status == "fail" and not lab.is_repeatable
    return replace(found, status="adaptive") if random else found


def _run_check(id_: str, lab: Lab) -> Finding:
    """The finding of a check; it fails where an attack that it runs crashes or breaks its contract."""
    before = set(lab.outcomes)
    try:
        found = _explain_lack(id_, lab) or RUNS[id_](lab)
    except AttackError as error:
        return Finding(id=id_, status="fail", said=str(error))
    crashes = [f"{name}: {one.error}" for name, one in lab.outcomes.items() if name not in before and one.error]
    return replace(found, status="fail", said="; ".join([*crashes, found.said])) if crashes else found


def _check_arguments(examples: int, only: Sequence[str]) -> None:
    if not 1 <= examples <= MAX_EXAMPLES:
        raise FieldError(f"examples is {examples}; an audit takes 1 to {MAX_EXAMPLES}")
    for id_ in only:
        if id_ not in RUNS:
            raise UnknownName("check", id_, RUNS)


def _run_checks(lab: Lab, only: Sequence[str], report: Callable[[str, int, int], None]) -> tuple[Finding, ...]:
    """The findings of all checks, or of `only` some; arguments as of `audit`."""
    chosen, findings = [id_ for id_ in RUNS if not only or id_ in only], list[Finding]()
    for done, id_ in enumerate(chosen):
        report(f"{id_}: {CHECKS[id_].asks}", done, len(chosen))
        findings.append(_mark_random(_run_check(id_, lab), lab))
    report("done", len(chosen), len(chosen))
    return tuple(findings)


def audit(
    suite: Suite,
    model: str,
    *,
    examples: int = 100,
    only: Sequence[str] = (),
    device: str = "cpu",
    batch_size: int = 64,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_pass: Callable[[int], None] = lambda passes: None,
) -> Audit:
    """Runs the soundness checks of a model on a suite, in the suite's main Linf threat model.

    Args:
        suite: a classification suite with an Linf attack.
        model: its name.
        examples: number of test examples, from the first; 1 to 200.
        only: ids of checks, such as "S7" (default: all).
        device: such as "cpu" or "cuda".
        batch_size: the most examples of a forward pass.
        report: called with the check that starts, the number of finished checks and their total.
        on_pass: called with the number of examples of every forward pass.

    Raises:
        FieldError: `examples` is out of range.
        UnknownName: there is no such check.
        SuiteError: the suite has no Linf attack, or is about retrieval.
        RLBenchError: as `evaluate.prepare`.
    """
    _check_arguments(examples, only)
    begun, resolved = perf_counter(), resolve(model)
    threat = main_threat([p for p in suite.perturbations if isinstance(p, Adversarial)], suite.name)
    bench = prepare(suite, model, device=device, batch_size=batch_size)
    if bench.retriever is not None:
        raise SuiteError(f"suite {suite.name} is about retrieval; an audit needs a classification suite")
    n = min(examples, suite.task.size("test") or examples)
    name, sibling = _find_sibling(bench, resolved)
    lab = Lab(bench, n, threat, sibling, on_pass)
    findings = _run_checks(lab, only, report)
    return Audit(
        suite=suite.name,
        model=resolved.name,
        examples=n,
        threat=str(threat),
        sibling=name,
        clean=lab.clean.accuracy,
        robust=None if only or any(one.error for one in lab.gradient_attacks) else lab.survivors.float().mean().item(),
        findings=findings,
        seconds=perf_counter() - begun,
    )
