"""Badges: what the soundness checks come to, in a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass


Badge = Literal["sound", "warn", "needs adaptive", "unreliable"]


Status = Literal["pass", "warn", "fail", "adaptive", "skip"]


BADGES: dict[Status, Badge] = {
    "skip": "sound",
    "pass": "sound",
    "warn": "warn",
    "adaptive": "needs adaptive",
    "fail": "unreliable",
}


RANK: tuple[Badge, ...] = ("sound", "warn", "needs adaptive", "unreliable")


MARK = "*"  # at the number of a cell that is not sound


@dataclass(frozen=True, kw_only=True)
class Check:
    """A soundness check.

    Attributes:
        asks: what has to hold. rule: when it fails. advice: what to do then. cost: of n examples.
        always: it is part of every run.
    """

    id: str
    asks: str
    rule: str
    advice: str
    cost: str = "free"
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found; `said` is what was measured."""

    id: str
    status: Status
    said: str

    @property
    def check(self) -> Check:
        return CHECKS[self.id]


_ALL = (
    Check(
        id="H1",
        asks="inputs lie in the encoder's box",
        rule="error otherwise",
        advice="give the encoder the box of its inputs; normalise inside it",
        always=True,
    ),
    Check(
        id="H2",
        asks="the encoder is in evaluation mode, its parameters frozen",
        rule="error otherwise",
        advice="call eval() and requires_grad_(False) in its factory",
        always=True,
    ),
    Check(
        id="H3",
        asks="adversarial examples are finite, in the box and in the ball",
        rule="norm over eps (1 + 1e-6), or a crash: error",
        advice="mend the attack, or the encoder whose answers or gradients are not finite",
        always=True,
    ),
    Check(
        id="H4",
        asks="an answer does not depend on the other examples of its batch",
        rule="logits that move by over 1%, or flags by over 0.1%, in another batch order and size: unreliable",
        advice="take batch statistics out of the encoder, or fix them",
        cost="2 n forward",
        always=True,
    ),
    Check(
        id="H5",
        asks="at eps 0 the robust accuracy is the clean one",
        rule="error unless exactly equal",
        advice="find out why the encoder does not repeat itself",
        cost="2 n forward",
        always=True,
    ),
    Check(
        id="H7",
        asks="gradients are there to be followed",
        rule="zero at over 1% of correct points: warn; at all: unreliable",
        advice="attack through a differentiable stand-in (BPDA); square and transfer need no gradient",
        always=True,
    ),
    Check(
        id="H8",
        asks="the loss is not saturated",
        rule="float32 cross-entropy of exactly 0 at over 5% of correct points: warn",
        advice="lower the logit scale, or attack with loss: margin; rlbench's own losses do not saturate with it",
        always=True,
    ),
    Check(
        id="H9",
        asks="outputs look like logits",
        rule="rows of probabilities or equal values over 1%: warn; values that are not finite: unreliable",
        advice="return logits: no softmax, no rejection by a constant, no NaN",
        always=True,
    ),
    Check(
        id="H10",
        asks="there are as many classes as the attack's loss needs",
        rule="fewer, without a substitute: warn",
        advice="use the cross-entropy or the margin",
        always=True,
    ),
    Check(
        id="S1",
        asks="many small steps are at least as strong as one",
        rule="pgd leaves more than fgsm: unreliable",
        advice="look at the loss along the path: it is not what the gradient says",
        cost="42 n",
    ),
    Check(
        id="S2",
        asks="twice the iterations change nothing",
        rule="accuracy falls by 1 point or more: warn",
        advice="raise the attack's steps until it does not",
        cost="600 n",
    ),
    Check(
        id="S3",
        asks="the attack has converged",
        rule="the last tenth of its steps makes over 5% of the way that the survivors' margin went: warn",
        advice="raise the attack's steps",
    ),
    Check(
        id="S4",
        asks="an adversarial point that was seen is returned",
        rule="lost for over 0.1% of the examples: unreliable",
        advice="keep the best point; if the encoder does not repeat itself, declare the trait randomised",
        always=True,
    ),
    Check(
        id="S5",
        asks="a larger eps is never easier to withstand",
        rule="accuracy rises with eps by more than a point: unreliable",
        advice="the attack is stuck: look at its gradients and its step size",
        cost="160 n",
    ),
    Check(
        id="S6",
        asks="without a bound the attack reaches chance",
        rule="accuracy above chance when eps is the whole box: unreliable",
        advice="nothing withstands that: the gradients lead nowhere; attack through a differentiable stand-in (BPDA)",
        cost="40 n",
    ),
    Check(
        id="S7",
        asks="an attack without gradients is no stronger than one with",
        rule="square breaks over 0.2 points of what the gradient attacks left: unreliable",
        advice="gradients are masked: find where they are lost, attack through a stand-in (BPDA)",
        cost="1000 n forward",
    ),
    Check(
        id="S8",
        asks="examples made on the undefended sibling are no stronger",
        rule="the sibling's examples leave less than the encoder's own: unreliable",
        advice="the encoder hides its gradients: attack through the sibling or a stand-in (BPDA)",
        cost="41 n",
    ),
    Check(
        id="S9",
        asks="random noise in the ball is weaker than the attack",
        rule="20 random points leave less than the attack: unreliable",
        advice="the attack searches in the wrong direction: look at its gradients",
        cost="20 n forward",
    ),
    Check(
        id="S10",
        asks="the same input gives the same answer",
        rule="forward passes differ: needs adaptive; with and without a gradient: unreliable",
        advice="declare the trait randomised and attack the expectation over 20 passes (EoT)",
        cost="5 n forward",
        always=True,
    ),
    Check(
        id="S12",
        asks="the attack finds adversarial points that are known to be there (binarization test)",
        rule="under 95% of the planted ones are found: unreliable",
        advice="the attack is too weak for this encoder: more steps, another loss, or one made for the defence",
        cost="100 m passes of m <= 24 examples",
    ),
    Check(
        id="S14",
        asks="a defence that hides from plain attacks is attacked adaptively",
        rule="declared traits, without an adaptive attack: needs adaptive",
        advice="give the encoder honest(), a differentiable stand-in, or attack the expectation (EoT)",
        always=True,
    ),
)


CHECKS: dict[str, Check] = {check.id: check for check in _ALL}


def badge(found: Iterable[Finding]) -> Badge:
    """The worst of what the findings make."""
    return max((BADGES[finding.status] for finding in found), key=RANK.index, default="sound")


def doubtful(badge: object) -> bool:
    """Whether a cell's badge is another than "sound"; nothing is known of one without a badge."""
    return bool(badge) and badge != "sound"


DOUBTED = ("needs adaptive", "unreliable")
