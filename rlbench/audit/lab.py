"""What the checks of an audit share: examples, threat model, and attacks, each of which runs once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from rlbench.core import Adversarial, Ball, Classifier, Encoder, Examples, Field, Span, Threat, registry
from rlbench.core.errors import AttackError, DataError, SuiteError
from rlbench.core.knowledge import Knowledge
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.core.threat import scale_threat
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.attack.judge import attack_and_judge, judge, run_attack
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import Bench
from rlbench.engine.soundness.consistency import REPEATS
from rlbench.engine.soundness.watch import OUTSIDE, Part, Watch, total

Answer = Callable[[Tensor], Tensor]  # (B, *shape) -> (B, C) logits


MAIN: dict[Knowledge, tuple[str, dict[str, Field]]] = {  # the attack that most checks run
    "white-box": ("pgd", {}),
    "score": ("square", {"queries": 1000, "rescale": True}),
    "label": ("rays", {"queries": 1000}),
}


class Trace(Watch):
    """A watch that also records every margin; `spans` are those of a ball about several sensors."""

    def __init__(self, y: Tensor, spans: Sequence[Span] = ()) -> None:
        super().__init__(y)
        self.spans = [span for span in spans if span.radius > 0]
        self.seen: list[tuple[Tensor, Tensor]] = []

    def see(self, x: Tensor, logits: Tensor, rows: Tensor, parts: Sequence[Part] = ()) -> None:
        everywhere = torch.ones(len(x), dtype=torch.bool)
        super().see(x, logits, rows, [Part(span.start, span.stop, everywhere) for span in self.spans])
        self.seen.append((rows.cpu(), margin(logits.detach(), self.y[rows.to(self.y.device)]).float().cpu()))

    def margins(self, row: int) -> Tensor:
        """(K,) margins of an example's forward passes, in order."""
        return torch.cat([m[rows == row] for rows, m in self.seen])


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The result of an attack.

    Attributes:
        robust: (n,) bool; False for clean errors.
        x_adv: the points that the attack returned, one per attacked example.
        trace: the margins of its forward passes.
        error: why the attack crashed, or "".
        leaves_ball: whether its passes may lie outside the ball.
    """

    robust: Tensor
    x_adv: Tensor
    trace: Trace
    error: str = ""
    leaves_ball: bool = False

    @property
    def accuracy(self) -> float:
        """The share of robust examples."""
        return float(self.robust.float().mean())

    def sums(self, rows: Tensor) -> Mapping[str, int]:
        """The watch's sums over the attacked examples (R,)."""
        return self.trace.sums(self.robust[rows]) | (OUTSIDE if self.leaves_ball else {})


@dataclass(frozen=True, eq=False)
class RaisedLogit:
    """A classifier whose true logit is raised, so that an attack continues after the first error.

    The constant does not change the gradients of the losses.

    Attributes:
        classify: the classifier.
        y: (N,) the true classes of the attacked examples.
        batch_size: the most examples of a forward pass.
        by: the constant, added to the true logit.
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
    """A model on the first n examples of a suite, in the suite's main Linf threat model.

    Attributes:
        bench: the model on the suite's task.
        n: the number of examples.
        threat: the threat model of the attacks.
        sibling: the classifier without the defence or without adversarial training, or None.
        on_pass: called with the number of examples of every forward pass.
        outcomes: the attacks that have run.
    """

    bench: Bench
    n: int
    threat: Threat
    sibling: Answer | None = None
    on_pass: Callable[[int], None] = lambda passes: None
    outcomes: dict[str, AttackResult] = field(default_factory=dict)

    @cached_property
    def examples(self) -> Examples:
        """The clean examples."""
        return self.bench.inputs.load(0, self.n)

    @cached_property
    def x(self) -> Tensor:
        """(n, *shape) inputs, on the bench's device."""
        return self.examples.x.to(self.bench.device)

    @cached_property
    def y(self) -> Tensor:
        """(n,) labels, on the bench's device."""
        return self.examples.y.to(self.bench.device)

    @property
    def classifier(self) -> ZeroShot:
        """The model as a classifier."""
        return self.bench.classifier

    @property
    def ball(self) -> Ball:
        """The ball of the threat model in the encoder's box."""
        return self.bench.ball(self.threat)

    @property
    def declares_randomness(self) -> bool:
        """Whether the encoder declares that it is randomised; all checks then use its expectation, as a run does."""
        return self.bench.randomised

    @cached_property
    def is_repeatable(self) -> bool:
        """Whether the same input gives the same output."""
        return self.declares_randomness or self.spread <= REPEATS

    def _average(self, x: Tensor) -> Tensor:
        """The expected logits of a randomised encoder: (B, *shape) -> (B, C)."""
        meter = Meter(self.classifier, len(x), batch_size=self.bench.batch_size, on_pass=self.on_pass)
        return self.bench.expect(meter)(x)

    def make_meter(self, n: int, watch: Watch | None = None) -> Meter:
        """A meter, which counts the passes of n examples and splits calls of the model into batches.

        Args:
            n: the number of examples.
            watch: records the passes for soundness checks; None for none.
        """
        if self.declares_randomness:
            return Meter(self._average, n, batch_size=self.bench.batch_size, watch=watch)
        return Meter(self.classifier, n, batch_size=self.bench.batch_size, on_pass=self.on_pass, watch=watch)

    def logits(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, C), without a graph."""
        with torch.no_grad():
            return self.make_meter(len(x))(x)

    @cached_property
    def clean(self) -> AttackResult:
        """The result on the unperturbed examples."""
        trace = Trace(self.y)
        with torch.no_grad():
            logits = self.make_meter(self.n, trace)(self.x)
        return AttackResult((margin(logits, self.y) > 0).cpu(), self.x, trace)

    @cached_property
    def rows(self) -> Tensor:
        """(R,) indices of the clean-correct examples, which the attacks start from. DataError if none."""
        if not self.clean.robust.any():
            where = f"none of the first {self.n} examples of {self.bench.suite.name} is classified correctly"
            raise DataError(f"{where}; audit more examples, or check the model's input and the suite's classes")
        return self.clean.robust.nonzero()[:, 0]

    def attack(
        self, name: str, *, times: Fraction = Fraction(1), only: Tensor | None = None, **fields: Field
    ) -> AttackResult:
        """The result of an attack; the same attack runs only once.

        Args:
            name: of a registered attack.
            times: factor on eps.
            only: (K,) indices of the examples to attack (default: all clean-correct ones).
            fields: options of the attack.
        """
        key = f"{Adversarial(name, self.threat, tuple(sorted(fields.items())))} x {times}"
        key += "" if only is None else f" on {only.tolist()}"
        if key not in self.outcomes:
            self.outcomes[key] = self._attack(name, scale_threat(self.threat, times), only, fields)
        return self.outcomes[key]

    def _attack(self, name: str, threat: Threat, only: Tensor | None, fields: dict[str, Field]) -> AttackResult:
        rows = self.rows if only is None else only
        ball, x, y = self.bench.ball(threat), self.x[rows], self.y[rows]
        trace, robust = Trace(y, ball.spans), torch.zeros(self.n, dtype=torch.bool)
        meter = self.make_meter(len(rows), trace)
        try:
            method = registry.make("attack", name, fields)
            found, judgement = attack_and_judge(method, meter, x, y, ball, self.streams(name, rows))
            robust[rows] = judgement.correct
        except AttackError as error:
            robust[rows] = True
            return AttackResult(robust, x, trace, str(error))
        return AttackResult(robust, found, trace, leaves_ball=getattr(method, "leaves_ball", False))

    def main_attack(self, times: Fraction = Fraction(1)) -> AttackResult:
        """The result of pgd, or of the attack for what a black box gives, with eps multiplied by `times`."""
        name, fields = MAIN[self.knowledge]
        return self.attack(name, times=times, only=None, **fields)

    @property
    def knowledge(self) -> Knowledge:
        """What is known of the encoder."""
        return self.bench.knowledge

    @property
    def attacks_text(self) -> str:
        """What `gradient_attacks` ran."""
        return "the gradient attacks" if self.knowledge == "white-box" else MAIN[self.knowledge][0]

    def streams(self, name: str, rows: Tensor) -> ExampleStreams:
        """The random streams of an attack on these examples."""
        return ExampleStreams(self.bench.seed, self.examples.ids, f"audit {name}").take(rows.tolist())

    @cached_property
    def gradient_attacks(self) -> tuple[AttackResult, ...]:
        """The gradient attacks: fgsm, pgd of 20 steps, apgd-ce of 100; of a black box its main attack."""
        if self.knowledge != "white-box":
            return (self.main_attack(),)
        return self.attack("fgsm"), self.attack("pgd"), self.attack("apgd-ce")

    @cached_property
    def survivors(self) -> Tensor:
        """(n,) bool, the examples that withstand all gradient attacks."""
        return torch.stack([outcome.robust for outcome in self.gradient_attacks]).all(0)

    @cached_property
    def sums(self) -> dict[str, int]:
        """The watch's sums over the clean pass, fgsm and pgd, or the main attack of a black box."""
        runs = self.gradient_attacks[:2]
        sums = [self.clean.trace.sums(self.clean.robust)]
        return total(sums + [run.sums(self.rows) for run in runs if not run.error])

    @cached_property
    def spread(self) -> float:
        """The largest difference of five passes of one input, over the largest logit; 0 where one is not finite."""
        meter = Meter(self.classifier, self.n, batch_size=self.bench.batch_size, on_pass=self.on_pass)
        with torch.no_grad():
            passes = torch.stack([meter(self.x) for _ in range(5)])
        spread = (passes.amax(0) - passes.amin(0)).nan_to_num(0.0).amax()
        return float(spread / passes.nan_to_num(0.0, 0.0, 0.0).abs().amax().clamp_min(1e-12))

    def with_encoder(self, encoder: Encoder) -> Answer:
        """The classifier with another encoder and the same anchors."""
        return self.classifier.on(encoder)

    def attack_through(self, classify: Answer) -> Tensor:
        """(n,) bool, the examples that withstand transfer: pgd of 40 steps attacks another classifier."""
        rows, robust = self.rows, torch.zeros(self.n, dtype=torch.bool)
        x, y = self.x[rows], self.y[rows]
        raised: Classifier = RaisedLogit(classify, y, self.bench.batch_size)
        method = registry.make("attack", "pgd", {"steps": 40, "loss": "margin"})
        found = run_attack(method, raised, x, y, self.ball, self.streams("through", rows))
        robust[rows] = judge(self.make_meter(len(rows)), found, x, y, self.ball).correct
        return robust


def main_threat(attacks: list[Adversarial], suite: str) -> Threat:
    """The Linf threat model with the most attacks; of equals, the largest on the most sensors. Raises: SuiteError."""
    fitting = [one.threat for one in attacks if one.threat.norm == "linf" and one.threat.reach != "any 1"]
    counts = Counter(threat for threat in fitting if threat.eps > 0)
    if not counts:
        raise SuiteError(f"suite {suite} has no linf attack to audit; choose a suite that has one")
    return max(counts, key=lambda threat: (counts[threat], threat.eps, len(threat.sensors)))
