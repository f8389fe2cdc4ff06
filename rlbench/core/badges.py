"""Soundness checks, their findings, and the badge that sums them up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Badge = Literal["sound", "partial", "warn", "needs adaptive", "unreliable"]
Status = Literal["pass", "warn", "fail", "adaptive", "skip", "not applicable"]
BADGES: dict[Status, Badge] = {
    "skip": "sound",
    "pass": "sound",
    "not applicable": "partial",  # of a black box: not everything could be checked
    "warn": "warn",
    "adaptive": "needs adaptive",
    "fail": "unreliable",
}
RANK: tuple[Badge, ...] = ("sound", "partial", "warn", "needs adaptive", "unreliable")  # best first
DOUBTED = ("needs adaptive", "unreliable")
MARK = "*"  # follows the number of a cell that is not sound


@dataclass(frozen=True, kw_only=True)
class Check:
    """A soundness check.

    Attributes:
        id: such as "H1" (of the harness) or "S7" (of the attack's strength).
        asks: what has to hold.
        rule: when it fails, and with which badge.
        advice: what to do then.
        cost: the number of passes for n examples.
        always: whether every run makes it, not only `rlbench audit`.
    """

    id: str
    asks: str
    rule: str
    advice: str
    cost: str = "free"
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check.

    Attributes:
        id: of the check.
        status: the result.
        said: the measurement, in words.
    """

    id: str
    status: Status
    said: str

    @property
    def check(self) -> Check:
        """The check with its rule and advice."""
        return CHECKS[self.id]


_ALL = (
    Check(
        id="H1",
        asks="inputs lie in the encoder's box",
        rule="an input outside the box is an error",
        advice="declare the box that the inputs really have, and normalise inside the encoder",
        always=True,
    ),
    Check(
        id="H2",
        asks="the encoder is in evaluation mode and its parameters are frozen",
        rule="training mode or a trainable parameter is an error",
        advice="call eval() and requires_grad_(False) in the function that makes the encoder",
        always=True,
    ),
    Check(
        id="H3",
        asks="adversarial examples are finite and lie in the box and in the ball",
        rule="a norm above eps (1 + 1e-6) or a crash is an error",
        advice="fix the attack, or the encoder if its outputs or gradients are not finite",
        always=True,
    ),
    Check(
        id="H4",
        asks="an example's output does not depend on the rest of its batch",
        rule="unreliable if another order and size of batches changes logits by over 1%, or over 0.1% of the verdicts",
        advice="remove batch statistics from the encoder, or fix them",
        cost="2 n forward",
        always=True,
    ),
    Check(
        id="H5",
        asks="at eps 0, robust accuracy equals clean accuracy",
        rule="they must be exactly equal",
        advice="find out why the encoder gives different outputs for the same input",
        cost="2 n forward",
        always=True,
    ),
    Check(
        id="H7",
        asks="gradients are not zero",
        rule="warn if over 1% of the gradients at correct points are zero, unreliable if all are",
        advice="attack through a differentiable approximation (BPDA); square and transfer need no gradient",
        always=True,
    ),
    Check(
        id="H8",
        asks="the loss is not saturated",
        rule="warn if float32 cross-entropy is exactly 0 at over 5% of correct points",
        advice="lower the logit scale, or attack with loss: margin; rlbench's own losses do not saturate this way",
        always=True,
    ),
    Check(
        id="H9",
        asks="outputs look like logits",
        rule="warn if over 1% of rows are probabilities or constant, unreliable if a value is not finite",
        advice="return logits: no softmax, no constant row for rejected inputs, no NaN",
        always=True,
    ),
    Check(
        id="H10",
        asks="there are enough classes for the attack's loss",
        rule="warn if there are too few and the attack has no substitute loss",
        advice="use the cross-entropy or the margin loss",
        always=True,
    ),
    Check(
        id="H11",
        asks="clean accuracy is above chance",
        rule="warn if it is not above the share of the largest class: one-sided exact binomial test at 5%; for 8 to 31 "
        "examples by the shares alone",
        advice="the accuracy under attack says nothing then: check that the box is the range of the encoder's inputs "
        "(0 to 1, not 0 to 255, or the reverse), their colour order, and the class names",
        always=True,
    ),
    Check(
        id="S1",
        asks="many small steps are at least as strong as one",
        rule="unreliable if pgd leaves a higher accuracy than fgsm",
        advice="plot the loss along the attack's path: the gradient does not predict it",
        cost="42 n",
    ),
    Check(
        id="S2",
        asks="twice the iterations change nothing",
        rule="warn if accuracy falls by 1 point or more",
        advice="increase the attack's steps until accuracy stops falling",
        cost="600 n",
    ),
    Check(
        id="S3",
        asks="the attack has converged",
        rule="warn if over 5% of the drop in the survivors' margins happens in the last tenth of the steps",
        advice="increase the attack's steps",
    ),
    Check(
        id="S4",
        asks="the attack returns an adversarial point if it has seen one",
        rule="unreliable if it loses the point for over 0.1% of the examples",
        advice="return the best point seen; if the encoder's outputs are random, declare the trait randomised",
        always=True,
    ),
    Check(
        id="S5",
        asks="a larger eps never gives a higher accuracy",
        rule="unreliable if accuracy rises with eps by over a point",
        advice="the attack is stuck: check its gradients and its step size",
        cost="160 n",
    ),
    Check(
        id="S6",
        asks="without a bound, the attack reduces accuracy to chance",
        rule="unreliable if accuracy is above chance when eps spans the whole box",
        advice="nothing withstands this, so gradients mislead: attack through a differentiable approximation (BPDA)",
        cost="40 n",
    ),
    Check(
        id="S7",
        asks="an attack without gradients is no stronger than one with gradients",
        rule="unreliable if square breaks over 0.2% of the examples after the gradient attacks failed on them",
        advice="the gradients are masked: find where they are lost, and attack through an approximation (BPDA)",
        cost="1000 n forward",
    ),
    Check(
        id="S8",
        asks="adversarial examples of the undefended sibling are no stronger",
        rule="unreliable if they leave a lower accuracy than attacks on the encoder itself",
        advice="the encoder hides its gradients: attack through the sibling or through an approximation (BPDA)",
        cost="41 n",
    ),
    Check(
        id="S9",
        asks="random noise in the ball is weaker than the attack",
        rule="unreliable if 20 random points leave a lower accuracy than the attack",
        advice="the attack searches in the wrong direction: check its gradients",
        cost="20 n forward",
    ),
    Check(
        id="S10",
        asks="the same input gives the same output",
        rule="needs adaptive if forward passes differ, unreliable if they differ with and without a gradient",
        advice="declare the trait randomised, and attack the expectation over 20 passes (EoT)",
        cost="5 n forward",
        always=True,
    ),
    Check(
        id="S12",
        asks="the attack finds planted adversarial points (binarization test)",
        rule="unreliable if it finds fewer than 95% of them",
        advice="the attack is too weak for this encoder: use more steps, another loss, or one made for the defence",
        cost="100 m passes of m <= 24 examples",
    ),
    Check(
        id="S14",
        asks="a defence that evades standard attacks is attacked adaptively",
        rule="needs adaptive if a trait is declared and no adaptive attack is run, unreliable if one leaves less",
        advice="report the accuracy under the adaptive attacks; a defence without one needs honest(), a differentiable "
        "approximation, or an attack on its expectation (EoT)",
        always=True,
    ),
)


CHECKS: dict[str, Check] = {check.id: check for check in _ALL}


def badge(found: Iterable[Finding]) -> Badge:
    """The worst badge of any finding; "sound" for none."""
    return max((BADGES[finding.status] for finding in found), key=RANK.index, default="sound")


def worst_badge(badges: Iterable[str]) -> str:
    """The worst of several soundness badges; "" without any. An unknown badge is worse than all others."""
    return max(filter(None, badges), key=lambda badge: RANK.index(badge) if badge in RANK else len(RANK), default="")


def is_wrong(finding: Finding) -> bool:
    """Whether the check was made and something is wrong."""
    return BADGES[finding.status] not in ("sound", "partial")


def is_doubtful(badge: object) -> bool:
    """Whether a cell has a badge other than "sound"; a cell without a badge is not doubtful."""
    return bool(badge) and badge != "sound"
