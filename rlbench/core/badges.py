"""Soundness checks, their findings, and the badge that sums them up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Badge = Literal["sound", "warn", "needs adaptive", "unreliable"]
Status = Literal["pass", "warn", "fail", "adaptive", "skip"]
BADGES: dict[Status, Badge] = {
    "skip": "sound",
    "pass": "sound",
    "warn": "warn",
    "adaptive": "needs adaptive",
    "fail": "unreliable",
}
RANK: tuple[Badge, ...] = ("sound", "warn", "needs adaptive", "unreliable")  # best first
DOUBTED = ("needs adaptive", "unreliable")
MARK = "*"  # follows the number of a cell that is not sound


@dataclass(frozen=True, kw_only=True)
class Check:
    """A soundness check.

    Attributes:
        id: its name on reports: H of the harness, S of the attack's strength.
        asks: what has to hold.
        rule: when it fails, and with which badge.
        advice: what to do then.
        cost: in passes for n examples.
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
    """The result of a check; `said` is what it measured, in words."""

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
        advice="fix the attack, or the encoder if its outputs or gradients are not finite",
        always=True,
    ),
    Check(
        id="H4",
        asks="an output does not depend on the other examples in the batch",
        rule="logits change by over 1%, or flags by over 0.1%, with another batch order and size: unreliable",
        advice="remove batch statistics from the encoder, or freeze them",
        cost="2 n forward",
        always=True,
    ),
    Check(
        id="H5",
        asks="at eps 0 the robust accuracy equals the clean accuracy",
        rule="error unless exactly equal",
        advice="find out why the encoder is not deterministic",
        cost="2 n forward",
        always=True,
    ),
    Check(
        id="H7",
        asks="gradients are not zero",
        rule="zero at over 1% of correct points: warn; at all of them: unreliable",
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
        rule="over 1% of rows are probabilities or all equal: warn; values that are not finite: unreliable",
        advice="return logits: no softmax, no rejection by a constant, no NaN",
        always=True,
    ),
    Check(
        id="H10",
        asks="there are enough classes for the attack's loss",
        rule="too few, and no substitute: warn",
        advice="use the cross-entropy or the margin",
        always=True,
    ),
    Check(
        id="S1",
        asks="many small steps are at least as strong as one",
        rule="more examples survive pgd than fgsm: unreliable",
        advice="plot the loss along the path: it does not follow the gradient",
        cost="42 n",
    ),
    Check(
        id="S2",
        asks="twice the iterations change nothing",
        rule="accuracy falls by 1 point or more: warn",
        advice="raise the attack's steps until accuracy is stable",
        cost="600 n",
    ),
    Check(
        id="S3",
        asks="the attack has converged",
        rule="the last tenth of the steps makes over 5% of the decrease of the survivors' margin: warn",
        advice="raise the attack's steps",
    ),
    Check(
        id="S4",
        asks="the attack returns an adversarial point if it visits one",
        rule="lost for over 0.1% of the examples: unreliable",
        advice="keep the best point; if the encoder is not deterministic, declare the trait randomised",
        always=True,
    ),
    Check(
        id="S5",
        asks="accuracy does not rise with eps",
        rule="it rises by more than a point: unreliable",
        advice="the attack is stuck: check its gradients and step size",
        cost="160 n",
    ),
    Check(
        id="S6",
        asks="an unbounded attack reaches chance",
        rule="accuracy above chance when eps is the whole box: unreliable",
        advice="no model resists that: the gradients mislead; attack through a differentiable stand-in (BPDA)",
        cost="40 n",
    ),
    Check(
        id="S7",
        asks="an attack without gradients is no stronger than one with them",
        rule="square breaks over 0.2 points of the survivors of the gradient attacks: unreliable",
        advice="gradients are masked: find where they vanish, or attack through a stand-in (BPDA)",
        cost="1000 n forward",
    ),
    Check(
        id="S8",
        asks="adversarial examples of the undefended sibling are no stronger",
        rule="fewer examples survive the sibling's than the encoder's own: unreliable",
        advice="the encoder hides its gradients: attack through the sibling or a stand-in (BPDA)",
        cost="41 n",
    ),
    Check(
        id="S9",
        asks="random noise in the ball is weaker than the attack",
        rule="fewer examples survive 20 random points than the attack: unreliable",
        advice="the attack searches in the wrong direction: check its gradients",
        cost="20 n forward",
    ),
    Check(
        id="S10",
        asks="the same input gives the same output",
        rule="forward passes differ: needs adaptive; with and without a gradient: unreliable",
        advice="declare the trait randomised and attack the expectation over 20 passes (EoT)",
        cost="5 n forward",
        always=True,
    ),
    Check(
        id="S12",
        asks="the attack finds planted adversarial points (binarization test)",
        rule="it finds under 95% of them: unreliable",
        advice="the attack is too weak: use more steps, another loss, or an attack made for the defence",
        cost="100 m passes of m <= 24 examples",
    ),
    Check(
        id="S14",
        asks="a defence that plain attacks can't see through is attacked adaptively",
        rule="it declares traits, and no attack is adaptive: needs adaptive",
        advice="give the encoder honest(), a differentiable stand-in, or attack the expectation (EoT)",
        always=True,
    ),
)


CHECKS: dict[str, Check] = {check.id: check for check in _ALL}


def badge(found: Iterable[Finding]) -> Badge:
    """The worst badge of any finding; "sound" for none."""
    return max((BADGES[finding.status] for finding in found), key=RANK.index, default="sound")


def is_doubtful(badge: object) -> bool:
    """Whether a cell has a badge other than "sound"; a cell without a badge is not doubtful."""
    return bool(badge) and badge != "sound"
