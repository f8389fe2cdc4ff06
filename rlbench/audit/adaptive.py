"""Adaptive attacks on a test-time defence, after Croce et al., 2022, https://arxiv.org/abs/2202.13711.

In this order, each on the examples that are left, and each judged on the full defence (by the mean over its draws):

- the oblivious attack: the points of a strong attack on the static encoder, which does not see the defence;
- static replay: the same encoder is attacked on past its first error, so that its points have a large margin;
- each of the defence's own ways (`Way`): the pipeline with its inner steps as a constant (BPDA) and in expectation
  (EoT), the unrolled steps, or one branch of a gate, held there by a hinge.

So the accuracy under all of them is per example the worst case, and never above the oblivious one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlbench.audit.lab import Lab
from rlbench.core import Classifier, registry
from rlbench.core.errors import RLBenchError
from rlbench.core.seeds import generator, seed_globals
from rlbench.encoders.defences.classifier_defence import Fronted, Held, Way, hold_nothing
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.attack.judge import attack_and_judge, judge, run_attack
from rlbench.engine.attack.meter import Meter

RAISE = 1e4  # added to the true logit: the attack goes on after the first error
HINGE = 100.0  # weight of a gate's slack, against logits at scales of 20 to 100


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard the adaptive attacks try.

    Attributes:
        static_steps: of apgd-ce and apgd-t on the static encoder.
        restarts: of apgd-t on the static encoder.
        targets: of apgd-t on the static encoder.
        steps: of every untargeted run against the defence.
        duels: runs against one other class each, from the likeliest.
        duel_steps: of such a run.
        draws: fresh draws of a random defence at every step (EoT).
    """

    static_steps: int = 50
    restarts: int = 1
    targets: int = 9
    steps: int = 50
    duels: int = 3
    duel_steps: int = 25
    draws: int = 1


@dataclass(frozen=True, eq=False)
class StaticAttack:
    """The attack on the encoder without the defence: which examples (n,) withstand it, and its points (n, *shape)."""

    robust: Tensor
    x_adv: Tensor


@dataclass(frozen=True, eq=False)
class AdaptiveResult:
    """Which examples (n,) withstand what.

    Attributes:
        clean: no attack.
        static: the attack on the encoder without the defence, judged there.
        oblivious: the same points, judged on the defence.
        left: by attack, in order, the examples that withstand it and all attacks before it.
    """

    clean: Tensor
    static: Tensor
    oblivious: Tensor
    left: Mapping[str, Tensor]

    @property
    def adaptive(self) -> Tensor:
        """(n,) bool, the examples that withstand all attacks."""
        return list(self.left.values())[-1]


@dataclass(frozen=True, eq=False)
class _Through:
    """The classifier that an attack sees in place of a defence: its true logit is raised, more where a gate is missed.

    Attributes:
        way: the form of the defence.
        plain: the undefended classifier.
        y: (N,) the true classes.
        size: the most examples of a forward pass.
    """

    way: Way
    plain: ZeroShot
    y: Tensor
    size: int

    @property
    def batch_size(self) -> int:
        return self.size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        y = self.y if rows is None else self.y[rows.to(self.y.device)]
        parts = [self.way.run(self.plain, part) for part in torch.split(x, self.size)]
        found = Held(*(torch.cat(column) for column in zip(*parts, strict=True)))
        logits = found.logits.double()
        return logits + (RAISE + HINGE * found.slack[:, None]) * one_hot(y, logits.shape[1])


@dataclass(eq=False)
class _FreshDraws:
    """The mean of a few draws of a random classifier, other ones at every call: the expectation over an attack's steps.

    One call draws the same for all rows of a batch (see `classifier_defence`).
    """

    classifier: _Through
    draws: int
    seed: int
    calls: int = 0

    @property
    def batch_size(self) -> int:
        return max(1, self.classifier.batch_size // self.draws)

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self.calls += 1
        logits = []
        for draw in range(self.draws):
            seed = int(generator(self.seed, "fresh", self.calls, draw).integers(2**32))
            with seed_globals(seed, x.device):
                logits.append(self.classifier(x, rows))
        return torch.stack(logits).mean(0)


@dataclass(frozen=True, eq=False)
class _Duel:
    """A classifier of two classes, the true one first, and one other class (N,) of each example."""

    classifier: Classifier
    y: Tensor
    other: Tensor

    @property
    def batch_size(self) -> int:
        return self.classifier.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        rows = torch.arange(len(x)) if rows is None else rows
        pair = torch.stack([self.y, self.other], 1)[rows.to(self.y.device)]
        return self.classifier(x, rows=rows).gather(1, pair)


def undefended(lab: Lab) -> ZeroShot:
    """The classifier without the test-time defence. Raises: RLBenchError: the encoder has none."""
    encoder = lab.bench.encoder
    if not isinstance(encoder, Fronted):
        raise RLBenchError(f"{type(encoder).__name__} has no test-time defence; name one, such as rlbind+view-mean")
    return lab.bench.classifier.on(encoder.sibling)


def attack_static(plain: ZeroShot, lab: Lab, effort: Effort) -> StaticAttack:
    """apgd-ce, then apgd-t on the examples that are left, as an attack that sees no defence.

    Args:
        plain: the classifier without the defence.
        lab: its examples and threat model.
        effort: of the attack.
    """

    def meter(n: int) -> Meter:
        return Meter(plain, n, batch_size=lab.bench.batch_size, on_pass=lab.on_pass)

    robust = judge(meter(lab.n), lab.x, lab.x, lab.y, lab.ball).correct
    x_adv = lab.x.clone()
    targeted = {"restarts": effort.restarts, "targets": effort.targets}
    for name, fields in (("apgd-ce", {}), ("apgd-t", targeted)):
        rows = robust.nonzero()[:, 0]
        if len(rows):
            method = registry.make("attack", name, {"steps": effort.static_steps, **fields})
            x, y = lab.x[rows], lab.y[rows]
            x_adv[rows], judged = attack_and_judge(
                method, meter(len(rows)), x, y, lab.ball, lab.streams(f"static {name}", rows)
            )
            robust[rows] = judged.correct
    return StaticAttack(robust, x_adv)


def attack_adaptively(lab: Lab, effort: Effort, static: StaticAttack | None = None) -> AdaptiveResult:
    """Attacks a defence in all its ways.

    Args:
        lab: the defended encoder on its examples.
        effort: of the attacks.
        static: the attack on the undefended encoder, if it ran before.

    Raises: RLBenchError: the encoder has no test-time defence; AttackError: an attack broke its contract.
    """
    plain = undefended(lab)
    static = static or attack_static(plain, lab, effort)
    left = lab.clean.robust & _judge(lab, static.x_adv, lab.clean.robust)
    found = {"oblivious": left}
    encoder = lab.bench.encoder
    assert isinstance(encoder, Fronted)
    replay = Way("static replay", lambda plain, x: hold_nothing(plain.score(x)))
    for way in (replay, *encoder.ways()):
        draws = 0 if way is replay else effort.draws
        left = found[way.name] = _pursue(lab, way, plain, left, effort, draws)
    return AdaptiveResult(lab.clean.robust, static.robust, found["oblivious"], found)


def _judge(lab: Lab, x_adv: Tensor, only: Tensor) -> Tensor:
    """(n,) bool, the examples of `only` (n,) that the full defence has right at x_adv (n, *shape)."""
    rows, right = only.nonzero()[:, 0], torch.zeros_like(only)
    if len(rows):
        meter = lab.make_meter(len(rows))
        right[rows] = judge(meter, x_adv[rows], lab.x[rows], lab.y[rows], lab.ball).correct
    return right


def _pursue(lab: Lab, way: Way, plain: ZeroShot, left: Tensor, effort: Effort, draws: int) -> Tensor:
    """The examples (n,) of `left` (n,) that withstand a way's untargeted run and its duels.

    `draws` of the expectation; 0 for none.
    """
    left = _run(lab, way, plain, left, effort.steps, draws, None)
    for rank in range(min(effort.duels, lab.bench.n_classes - 1)):
        left = _run(lab, way, plain, left, effort.duel_steps, draws, rank)
    return left


def _run(lab: Lab, way: Way, plain: ZeroShot, left: Tensor, steps: int, draws: int, rank: int | None) -> Tensor:
    """The examples (n,) of `left` that withstand one run, against all classes or against the one of this rank."""
    rows = left.nonzero()[:, 0]
    if not len(rows):
        return left
    x, y = lab.x[rows], lab.y[rows]
    through, label = _Through(way, plain, y, lab.bench.batch_size), y
    seen: Classifier = _FreshDraws(through, draws, lab.bench.seed) if draws and lab.bench.randomised else through
    if rank is not None:
        others = _rank_others(seen, x, y)
        seen, label = _Duel(seen, y, others[:, rank]), torch.zeros_like(y)
    method = registry.make("attack", "apgd-ce", {"steps": steps})
    streams = lab.streams(f"adaptive {way.name} {rank}", rows)
    x_adv = lab.x.clone()
    x_adv[rows] = run_attack(method, seen, x, label, lab.ball, streams)
    return _judge(lab, x_adv, left)


def _rank_others(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """(B, C - 1) the other classes of each example, from the likeliest."""
    with torch.no_grad():
        logits = classifier(x).scatter(1, y[:, None], float("-inf"))
    return logits.argsort(dim=1, descending=True)[:, :-1]


def describe(found: AdaptiveResult) -> str:
    """The accuracies, in words."""
    parts: Sequence[tuple[str, Tensor]] = list(found.left.items())
    steps = ", ".join(f"{name} {100 * float(left.float().mean()):.1f}%" for name, left in parts)
    return f"{steps}; static encoder {100 * float(found.static.float().mean()):.1f}%"
