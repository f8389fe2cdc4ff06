"""Chains of attack cells: where an example goes next, and what every cell says of it in the end.

A chain is the cells that an example passes through, in order. An example skips a cell when another cell of the chain
has broken it in a ball inside the cell's ball. What a cell says of an example comes from the judge: of all judged
points in its ball that its chain has found, the one with the smallest margin.

- standalone: a chain is one attack in one norm with ascending eps, so that a column means that attack alone;
- cascade: all attacks of a suite in one chain, cheap ones first: the exact worst case at the lowest cost;
- descending: one attack with descending eps; an example that survives a larger ball is not attacked in a smaller one.
  This assumes that the attack does not miss in a large ball what it finds in a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.core import Adversarial, Attack, Ball, Mode, Streams, Threat
from rlbench.core.errors import AttackError
from rlbench.core.threat import contains, distance, per_row, project, violation
from rlbench.engine.attack.judge import Part, Verdict, judge, run_attack


@dataclass(eq=False, kw_only=True)
class Stage:
    """A cell: an attack in a ball, on the examples (R,) that are opened to it.

    Attributes:
        search: None for an attack that the pool can't run.
        found: (R, *shape) the attack's points.
        opened, ended: (R,) bool, the examples that shall be attacked, and those that are through.
        broken: (R,) bool, as the attack says, then as the judge says.
        judged: (R,) bool, the examples that the judge has spoken of: correct, prediction, margin.
    """

    attack: Adversarial
    method: Attack
    ball: Ball
    streams: Streams
    classifier: Part
    found: Tensor
    search: Search | None

    def __post_init__(self) -> None:
        n = len(self.found)
        self.opened, self.ended, self.broken, self.judged = (torch.zeros(n, dtype=torch.bool) for _ in range(4))
        self.correct, self.prediction = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
        self.margin = torch.full((n,), float("inf"))

    def open(self, rows: Tensor) -> None:
        """Examples that shall be attacked here."""
        self.opened[rows] = True
        if self.search is not None:
            self.search.reopen(rows)

    def end(self, search: Search, rows: Tensor) -> None:
        """Examples that the search is through with."""
        self.ended[rows], self.broken[rows] = True, ~search.alive[rows]

    def waits(self) -> Tensor:
        """(K,) the examples that an attack which the pool can't run has to run on."""
        return (self.opened & ~self.ended).nonzero()[:, 0] if self.search is None else torch.empty(0)

    def run(self, rows: Tensor, x: Tensor, y: Tensor) -> None:
        """An attack that the pool can't run. Raises: AttackError."""
        at = rows.to(x.device)
        part, streams = Part(self.classifier, rows), self.streams.take(rows.tolist())
        found = run_attack(self.method, part, x[at], y[at], self.ball, streams)
        wrong = violation(found, x[at], self.ball)
        if wrong is not None:
            raise AttackError(wrong)
        self.found[at] = found
        self.ended[rows] = True
        self.judge(x, y)

    def judge(self, x: Tensor, y: Tensor) -> None:
        """Judges what has ended since. Raises: AttackError where a point breaks the contract."""
        rows = (self.ended & ~self.judged).nonzero()[:, 0]
        if not len(rows):
            return
        at = rows.to(x.device)
        said = judge(Part(self.classifier, rows), self.found[at], x[at], y[at], self.ball)
        if self.ball.radius == 0 and not said.correct.all():
            raise AttackError("at eps 0 the answer is not the clean one: the encoder does not repeat itself")
        self.correct[rows], self.prediction[rows], self.margin[rows] = said.correct, said.prediction, said.margin
        self.broken[rows], self.judged[rows] = ~said.correct, True


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
        """Opens for each of these examples the first stage that it needs; whether there was one."""
        todo = torch.zeros(len(self.stages[0].opened), dtype=torch.bool)
        todo[rows] = True
        sent = False
        for stage in self.stages:
            need = todo & ~stage.opened & ~self._known(stage)
            if need.any():
                stage.open(need.nonzero()[:, 0])
                todo, sent = todo & ~need, True
        return sent

    def _known(self, stage: Stage) -> Tensor:
        """(R,) bool: other stages tell how the example fares here."""
        known = torch.stack([other.broken for other in self.inside(stage.ball)]).any(0)
        return known | self._survived(stage)[0] if self.mode == "descending" else known

    def _survived(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """(R,) bool, examples that survived a larger ball, and (R, *shape) the points of the smallest such ball."""
        survived, points = torch.zeros_like(stage.broken), stage.found
        for other in self.stages:
            if other.ball.radius > stage.ball.radius:
                new = other.ended & ~other.broken
                survived, points = survived | new, points.where(~per_row(new, points).to(points.device), other.found)
        return survived, points

    def settle(self, x: Tensor, y: Tensor) -> None:
        """The examples that descending did not attack get the larger ball's points, projected, and the judge's word."""
        for stage in self.stages if self.mode == "descending" else ():
            survived, points = self._survived(stage)
            rows = (survived & ~stage.opened).nonzero()[:, 0]
            if len(rows):
                at = rows.to(x.device)
                stage.found[at] = project(points[at], x[at], stage.ball)
                stage.opened[rows] = stage.ended[rows] = True
                stage.judge(x, y)

    def said(self, threat: Threat, x: Tensor) -> Verdict:
        """Of the chain's judged points in the ball of this threat, per example the one with the smallest margin.

        Raises: AttackError for an example without one: it must not pass for robust.
        """
        stages, best = self._nearest(threat)
        rows = torch.arange(len(best))
        far = torch.stack([distance(stage.found, x, threat.norm).cpu() for stage in stages])
        return Verdict(
            torch.stack([stage.correct for stage in stages])[best, rows],
            torch.stack([stage.prediction for stage in stages])[best, rows],
            torch.stack([stage.margin for stage in stages])[best, rows],
            far[best, rows],
        )

    def points(self, threat: Threat) -> Tensor:
        """(R, *shape) what `said` speaks of."""
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
