"""Chains of attack cells: which cell attacks an example next, and which point each cell reports in the end.

A chain is the cells that an example passes through, in order. An example skips a cell when another cell of the chain
has broken it in a ball inside the cell's ball. Each cell reports the point with the smallest margin of all judged
points that its chain has found in its ball.

- standalone: a chain is one attack in one norm with ascending eps, so that a column means that attack alone;
- cascade: all attacks of a suite in one chain, cheap ones first, which gives the exact worst case at the lowest cost;
- descending: one attack with descending eps; an example that survives a larger ball is not attacked in a smaller one.
  This assumes that the attack finds in a large ball what it finds in a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.attacks.adaptive import AdaptiveSearch
from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Adversarial, Attack, Ball, Mode, Streams, Threat
from rlbench.core.errors import AttackError
from rlbench.core.machine import search_float32
from rlbench.core.threat import contains, distance, per_row, project
from rlbench.engine.attack.elsewhere import Elsewhere
from rlbench.engine.attack.exact import begin_again, is_searched_again
from rlbench.engine.attack.judge import Judgement, judge, run_attack
from rlbench.engine.attack.one_sensor import OneSensor


@dataclass(frozen=True)
class Standing:
    """How far a cell is on some examples while its attacks run.

    Attributes:
        n: number of examples.
        decided: number of examples whose result is known; the attacks may still change that of the others.
        wrong: number of the decided examples that are misclassified; it does not fall.
    """

    n: int
    decided: int
    wrong: int


@dataclass(eq=False, kw_only=True)
class Stage:
    """A cell: an attack in a ball, on the examples (R,) that are opened to it.

    Attributes:
        attack: the perturbation.
        method: the attack itself.
        ball: the ball around each example.
        streams: the random streams of the examples.
        classifier: the classifier of the examples, which judges.
        searched: what the attack sees: the classifier, or it in low precision.
        found: (R, *shape) the points that the attack found.
        search: the attack as a search of the pool; None if the pool cannot run it.
        elsewhere: what the attack runs on, if not on the classifier and these examples; then there is no search.
        opened: (R,) bool, the examples to attack.
        ended: (R,) bool, the examples whose attack has ended.
        broken: (R,) bool, the broken examples: at first according to the attack's own passes, then to the judge.
        judged: (R,) bool, the examples whose `correct`, `prediction` and `margin` (R,) come from the judge.
        again: (R,) bool, the examples of the last search, after one in low precision.
    """

    attack: Adversarial
    method: Attack
    ball: Ball
    streams: Streams
    classifier: ClassifierView
    searched: ClassifierView
    found: Tensor
    search: Search | None
    elsewhere: Elsewhere | None = None

    def __post_init__(self) -> None:
        n = len(self.found)
        none = torch.zeros(n, dtype=torch.bool)
        self.opened, self.ended, self.broken, self.judged, self.again = (none.clone() for _ in range(5))
        self.correct, self.prediction = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
        self.margin = torch.full((n,), float("inf"))

    def extends(self, other: Stage) -> bool:
        """Whether this is the same attack as another one, in a larger ball of its norm."""
        same = (self.attack.attack, self.attack.fields) == (other.attack.attack, other.attack.fields)
        return same and self.ball.norm == other.ball.norm and self.ball.radius > other.ball.radius

    def open(self, rows: Tensor) -> None:
        """Opens the cell to these examples (K,)."""
        self.opened[rows] = True
        if self.search is not None:
            self.search.reopen(rows)

    def end(self, search: Search, rows: Tensor) -> None:
        """Marks examples (K,) as ended in the search."""
        self.ended[rows], self.broken[rows] = True, search.is_broken(rows)

    def find_waiting(self) -> Tensor:
        """(K,) the opened examples of an attack that the pool cannot run."""
        return (self.opened & ~self.ended).nonzero()[:, 0] if self.search is None else torch.empty(0)

    def run(self, rows: Tensor, x: Tensor, y: Tensor) -> None:
        """Runs and judges an attack that the pool cannot run. Raises: AttackError."""
        at = rows.to(x.device)
        view, streams = ClassifierView(self.searched, rows), self.streams.take(rows.tolist())
        method = OneSensor(self.method) if self.ball.spans and self.elsewhere is None else self.method
        with search_float32(self.attack.threat.precision):
            x_adv = run_attack(method, view, x[at], y[at], self.ball, streams)
        judgement = judge(ClassifierView(self.classifier, rows), x_adv, x[at], y[at], self.ball)
        self.found[at], self.ended[rows] = x_adv, True
        self._record(rows, judgement)

    def search_again(self, rows: Tensor, x: Tensor, y: Tensor) -> AdaptiveSearch:
        """The last search of examples (K,) that a search in low precision has not broken."""
        at, view = rows.to(x.device), ClassifierView(self.classifier, rows)
        search = begin_again(view, self.found[at], x[at], y[at], self.ball, self.streams.take(rows.tolist()))
        search.attach(self.classifier.examples[rows])
        search.reopen(torch.arange(len(rows)))
        return search

    def take(self, rows: Tensor, search: AdaptiveSearch, x: Tensor, y: Tensor) -> None:
        """Judges what the last search of examples (K,) found."""
        self.found[rows.to(x.device)] = search.best
        self.again[rows], self.judged[rows] = True, False
        self.judge(x, y)

    def judge(self, x: Tensor, y: Tensor) -> None:
        """Judges the examples that ended since the last call. Raises: AttackError where a point breaks the contract."""
        rows = (self.ended & ~self.judged).nonzero()[:, 0]
        if not len(rows):
            return
        at = rows.to(x.device)
        self._record(rows, judge(ClassifierView(self.classifier, rows), self.found[at], x[at], y[at], self.ball))

    def _record(self, rows: Tensor, new: Judgement) -> None:
        if self.ball.radius == 0 and not new.correct.all():
            raise AttackError("at eps 0 the prediction is not the clean one: the encoder does not repeat its outputs")
        self.correct[rows], self.prediction[rows], self.margin[rows] = new.correct, new.prediction, new.margin
        self.broken[rows], self.judged[rows] = ~new.correct, True


@dataclass(frozen=True)
class Chain:
    """The stages that an example passes through, in order."""

    stages: tuple[Stage, ...]
    mode: Mode

    def inside(self, ball: Ball) -> list[Stage]:
        """The stages whose balls lie in this ball."""
        size = self.stages[0].found[0].numel() if len(self.stages[0].found) else 1
        return [stage for stage in self.stages if contains(ball, stage.ball, size)]

    def send(self, rows: Tensor) -> bool:
        """Opens for each of these examples (K,) the first stage that it needs; returns whether any needs one."""
        todo = torch.zeros(len(self.stages[0].opened), dtype=torch.bool)
        todo[rows] = True
        sent = False
        for stage in self.stages:
            need = todo & ~stage.opened & ~self._can_skip(stage)
            if need.any():
                stage.open(need.nonzero()[:, 0])
                todo, sent = todo & ~need, True
        return sent

    def _can_skip(self, stage: Stage) -> Tensor:
        """(R,) bool, the examples whose result in this stage follows from other stages."""
        decided = torch.stack([other.broken for other in self.inside(stage.ball)]).any(0)
        return decided | self._find_survivors(stage)[0] if self.mode == "descending" else decided

    def _find_survivors(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """(R,) bool, the examples that survived a larger ball; (R, *shape), their points in the smallest such ball."""
        survived, points = torch.zeros_like(stage.broken), stage.found
        for other in self.stages:
            if other.ball.radius > stage.ball.radius:
                new = other.ended & ~other.broken
                survived, points = survived | new, points.where(~per_row(new, points).to(points.device), other.found)
        return survived, points

    def find_again(self, stage: Stage) -> Tensor:
        """(K,) the survivors of a stage in low precision that still need its last search."""
        last = [other for other in self.stages if other.attack.threat == stage.attack.threat][-1]
        if stage is not last or stage.ball.radius == 0 or stage.attack.threat.precision == "fp32":
            return torch.empty(0)
        if not any(is_searched_again(other.method, stage.ball.norm) for other in self.inside(stage.ball)):
            return torch.empty(0)
        decided = torch.stack([other.judged & ~other.correct for other in self.inside(stage.ball)]).any(0)
        return (stage.judged & ~stage.again & ~decided).nonzero()[:, 0]

    def settle(self, x: Tensor, y: Tensor) -> None:
        """In mode descending, projects the points of a larger ball for examples that were not attacked; judges them."""
        for stage in self.stages if self.mode == "descending" else ():
            survived, points = self._find_survivors(stage)
            rows = (survived & ~stage.opened).nonzero()[:, 0]
            if len(rows):
                at = rows.to(x.device)
                stage.found[at] = project(points[at], x[at], stage.ball)
                stage.opened[rows] = stage.ended[rows] = True
            stage.judge(x, y)

    def standing(self, threat: Threat) -> Standing:
        """How far the cells of this threat are, according to the attacks' own passes."""
        own = next(stage for stage in self.stages if stage.attack.threat == threat)
        inside = self.inside(own.ball)
        broken = torch.stack([stage.broken for stage in inside]).any(0)
        decided = broken | torch.stack([stage.ended for stage in inside]).all(0)
        if self.mode == "descending":
            larger = [stage for stage in self.stages if stage.ball.radius >= own.ball.radius]
            decided |= torch.stack([stage.ended & ~stage.broken for stage in larger]).any(0)
        return Standing(len(broken), int(decided.sum()), int(broken.sum()))

    def judgement(self, threat: Threat, x: Tensor) -> Judgement:
        """Per example, of the chain's judged points in the ball of this threat, the one with the smallest margin.

        Raises: AttackError for an example without such a point, which must not count as robust.
        """
        stages, best = self._nearest(threat)
        rows = torch.arange(len(best))
        far = torch.stack([distance(stage.found, x, threat.norm, stage.ball.spans).cpu() for stage in stages])
        return Judgement(
            torch.stack([stage.correct for stage in stages])[best, rows],
            torch.stack([stage.prediction for stage in stages])[best, rows],
            torch.stack([stage.margin for stage in stages])[best, rows],
            far[best, rows],
        )

    def points(self, threat: Threat) -> Tensor:
        """(R, *shape) the points that `judgement` is about."""
        stages, best = self._nearest(threat)
        points = stages[0].found
        for k, stage in enumerate(stages):
            points = points.where(~per_row(best == k, points).to(points.device), stage.found)
        return points

    def _nearest(self, threat: Threat) -> tuple[list[Stage], Tensor]:
        """The stages in the ball of this threat, and (R,) which of them has the point with the smallest margin."""
        stages = self.inside(next(stage.ball for stage in self.stages if stage.attack.threat == threat))
        if not torch.stack([stage.judged for stage in stages]).any(0).all():
            raise AttackError(f"{threat}: an example was neither attacked nor broken before; a defect of rlbench")
        margins = torch.stack([s.margin.nan_to_num(-torch.inf).where(s.judged, torch.inf) for s in stages])
        return stages, margins.argmin(0)
