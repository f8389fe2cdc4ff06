"""What the checks of an audit share: the examples, the threat model, and attacks that run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from rlbench.core import Adversarial, Ball, Classifier, Encoder, Examples, Field, Threat, registry
from rlbench.core.errors import AttackError, SuiteError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import ball_of
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.attack.eot import Expectation
from rlbench.engine.attack.judge import attack_and_judge, judge, run_attack
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import Bench
from rlbench.engine.soundness.consistency import REPEATS
from rlbench.engine.soundness.watch import Watch, total

Answer = Callable[[Tensor], Tensor]  # (B, *shape) -> (B, C) logits


class Trace(Watch):
    """Keeps every margin, too."""

    def __init__(self, y: Tensor) -> None:
        super().__init__(y)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def see(self, x: Tensor, logits: Tensor, rows: Tensor) -> None:
        super().see(x, logits, rows)
        self.seen.append((rows.cpu(), margin(logits.detach(), self.y[rows.to(self.y.device)]).float().cpu()))

    def margins(self, row: int) -> Tensor:
        """(K,) of an example's forward passes, in their order."""
        return torch.cat([m[rows == row] for rows, m in self.seen])


@dataclass(frozen=True, eq=False)
class Outcome:
    """An attack's result: robust (n,) bool, clean errors are not; x_adv of the attacked; why it crashed, or ""."""

    robust: Tensor
    x_adv: Tensor
    trace: Trace
    error: str = ""

    @property
    def accuracy(self) -> float:
        return float(self.robust.float().mean())


@dataclass(frozen=True, eq=False)
class Raised:
    """A core.Classifier whose true logit is raised, so that an attack goes on after the first error.

    The gradients of the losses are unchanged by that.
    """

    classify: Answer
    y: Tensor
    batch_size: int
    by: float = 1e4

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(B, *shape) -> (B, C)."""
        y = self.y if rows is None else self.y[rows.to(self.y.device)]
        parts = torch.split(x, self.batch_size)
        logits = torch.cat([self.classify(part).double() for part in parts])
        return logits + self.by * torch.nn.functional.one_hot(y, logits.shape[1])


@dataclass(eq=False)
class Lab:
    """A model on a suite's first n examples, in the suite's main Linf threat model.

    Attributes:
        sibling: the classifier without the defence or the training, or None.
        on_pass: told of every forward pass.
    """

    bench: Bench
    n: int
    threat: Threat
    sibling: Answer | None = None
    on_pass: Callable[[int], None] = lambda passes: None
    kept: dict[str, Outcome] = field(default_factory=dict)

    @cached_property
    def examples(self) -> Examples:
        return self.bench.inputs.load(0, self.n)

    @cached_property
    def x(self) -> Tensor:
        return self.examples.x.to(self.bench.device)

    @cached_property
    def y(self) -> Tensor:
        return self.examples.y.to(self.bench.device)

    @property
    def classifier(self) -> ZeroShot:
        return self.bench.classifier

    @property
    def ball(self) -> Ball:
        return ball_of(self.threat, self.bench.box)

    @property
    def declared(self) -> bool:
        """Whether the encoder says that it is randomised: then everything is about its expectation, as in a run."""
        return "randomised" in self.classifier.encoder.traits

    @cached_property
    def repeats(self) -> bool:
        """Whether the same input gives the same answer."""
        return self.declared or self.random <= REPEATS

    def _expected(self, x: Tensor) -> Tensor:
        meter = Meter(self.classifier, len(x), batch_size=self.bench.batch_size, on_pass=self.on_pass)
        return Expectation(classifier=meter, seed=self.bench.suite.seed)(x)

    def meter(self, n: int, watch: Watch | None = None) -> Meter:
        """Counts and splits calls of the model."""
        if self.declared:
            return Meter(self._expected, n, batch_size=self.bench.batch_size, watch=watch)
        return Meter(self.classifier, n, batch_size=self.bench.batch_size, on_pass=self.on_pass, watch=watch)

    def logits(self, x: Tensor) -> Tensor:
        """Without a graph."""
        with torch.no_grad():
            return self.meter(len(x))(x)

    @cached_property
    def clean(self) -> Outcome:
        """The unperturbed examples."""
        trace = Trace(self.y)
        with torch.no_grad():
            logits = self.meter(self.n, trace)(self.x)
        return Outcome((margin(logits, self.y) > 0).cpu(), self.x, trace)

    @cached_property
    def rows(self) -> Tensor:
        """(R,) the clean-correct examples, which are attacked."""
        return self.clean.robust.nonzero()[:, 0]

    def attacked(
        self, name: str, *, times: Fraction = Fraction(1), only: Tensor | None = None, **fields: Field
    ) -> Outcome:
        """The attack at `times` eps on the clean-correct examples, or on some of them; run once."""
        key = f"{Adversarial(name, self.threat, tuple(sorted(fields.items())))} x {times}"
        key += "" if only is None else f" on {only.tolist()}"
        if key not in self.kept:
            self.kept[key] = self._attack(name, replace(self.threat, eps=self.threat.eps * times), only, fields)
        return self.kept[key]

    def _attack(self, name: str, threat: Threat, only: Tensor | None, fields: dict[str, Field]) -> Outcome:
        rows = self.rows if only is None else only
        ball, x, y = ball_of(threat, self.bench.box), self.x[rows], self.y[rows]
        trace, robust = Trace(y), torch.zeros(self.n, dtype=torch.bool)
        meter = self.meter(len(rows), trace)
        try:
            method = registry.make("attack", name, fields)
            found, judgement = attack_and_judge(method, meter, x, y, ball, self.streams(name, rows))
            robust[rows] = judgement.correct
        except AttackError as error:
            robust[rows] = True
            return Outcome(robust, x, trace, str(error))
        return Outcome(robust, found, trace)

    def streams(self, name: str, rows: Tensor) -> ExampleStreams:
        """The random streams of an attack on some examples."""
        return ExampleStreams(self.bench.suite.seed, self.examples.ids, f"audit {name}").take(rows.tolist())

    @cached_property
    def white(self) -> tuple[Outcome, ...]:
        """The gradient attacks: fgsm, pgd of 20 steps, apgd-ce of 100."""
        return self.attacked("fgsm"), self.attacked("pgd"), self.attacked("apgd-ce")

    @cached_property
    def left(self) -> Tensor:
        """(n,) bool, what all the gradient attacks left."""
        return torch.stack([outcome.robust for outcome in self.white]).all(0)

    @cached_property
    def sums(self) -> dict[str, int]:
        """What was seen in the clean pass, fgsm and pgd."""
        runs = (self.clean, self.attacked("fgsm"), self.attacked("pgd"))
        sums = [self.clean.trace.sums(self.clean.robust)]
        return total(sums + [run.trace.sums(run.robust[self.rows]) for run in runs[1:] if not run.error])

    @cached_property
    def random(self) -> float:
        """How far five passes of the same input differ, over the largest logit; 0 where one is not finite."""
        meter = Meter(self.classifier, self.n, batch_size=self.bench.batch_size, on_pass=self.on_pass)
        with torch.no_grad():
            passes = torch.stack([meter(self.x) for _ in range(5)])
        spread = (passes.amax(0) - passes.amin(0)).nan_to_num(0.0).amax()
        return float(spread / passes.nan_to_num(0.0, 0.0, 0.0).abs().amax().clamp_min(1e-12))

    def behind(self, encoder: Encoder) -> Answer:
        """Another encoder with the same anchors."""
        return replace(self.classifier, encoder=encoder)

    def through(self, classify: Answer) -> Tensor:
        """(n,) bool, what is left by examples that pgd of 40 steps makes on another classifier."""
        rows, robust = self.rows, torch.zeros(self.n, dtype=torch.bool)
        x, y = self.x[rows], self.y[rows]
        attack: Classifier = Raised(classify, y, self.bench.batch_size)
        method = registry.make("attack", "pgd", {"steps": 40, "loss": "margin"})
        found = run_attack(method, attack, x, y, self.ball, self.streams("through", rows))
        robust[rows] = judge(self.meter(len(rows)), found, x, y, self.ball).correct
        return robust


def main_threat(attacks: list[Adversarial], suite: str) -> Threat:
    """The Linf threat model with the most attacks, of those the largest. Raises: SuiteError where there is none."""
    counts = Counter(attack.threat for attack in attacks if attack.threat.norm == "linf" and attack.threat.eps > 0)
    if not counts:
        raise SuiteError(f"suite {suite} has no linf attack to audit; choose another suite")
    return max(counts, key=lambda threat: (counts[threat], threat.eps))
