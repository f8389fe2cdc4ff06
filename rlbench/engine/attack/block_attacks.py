"""The attack cells of a block, run together in one pool, or one by one where one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.pool import Pool, clean_logits
from rlbench.core import Adversarial, Box, Classifier, Composed, Perturbation, Worst
from rlbench.core.errors import AttackError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import ball_of
from rlbench.engine.attack.judge import Part, Verdict
from rlbench.engine.attack.meter import Meter
from rlbench.engine.attack.schedule import Chain, Stage
from rlbench.engine.cells.groups import Group
from rlbench.engine.cells.keys import plugin
from rlbench.engine.soundness.watch import total


@dataclass(frozen=True)
class Outcome:
    """What a member of a group says of the examples (R,), and the passes that it took: (R,) int64.

    `evidence`: what its attack's passes showed, sums of `soundness.SUMS`. `points`: makes what the verdict speaks of.
    """

    verdict: Verdict
    forwards: Tensor
    backwards: Tensor
    evidence: Mapping[str, int]
    points: Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Examples to attack: those that are classified correctly without an attack.

    Attributes:
        x, y, ids: (R, *shape) and (R,).
        seed: of the attacks' random streams.
        meter: makes the classifier, which counts the passes of so many examples.
        seen: what attacks and the judge see of it.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    box: Box
    seed: int
    meter: Callable[[int], Meter]
    seen: Callable[[Classifier], Classifier] = lambda meter: meter

    def attacked(self, groups: Sequence[Group]) -> Iterator[Outcome | str]:
        """The outcome of every member of the groups, in order, or why it failed.

        All run together. Where that fails, each group runs anew by itself, a stage at a time, so that a failure is a
        cell's own and leaves the cells before it as they are.
        """
        try:
            whole = _Matrix(self, groups)
            whole.run(whole.chains)
        except AttackError as error:
            alone = sum(len(group.attacks) for group in groups) == 1
            for group in groups:
                yield from [f"{group.members[0]}: {error}"] if alone else self._one_by_one(group)
            return
        for group, chain in zip(groups, whole.chains, strict=True):
            for member in group.members:
                yield whole.outcome(member, chain)

    def _one_by_one(self, group: Group) -> Iterator[Outcome | str]:
        matrix, done, failed = _Matrix(self, [group]), 0, ""
        stages = matrix.chains[0].stages
        try:
            for stop in range(1, len(stages) + 1):
                matrix.run([Chain(stages[:stop], group.mode)])
                done = stop
        except AttackError as error:
            failed = str(error)
        for member in group.members:
            need = [i for i, stage in enumerate(stages) if _needs(member, group.attacks[i], stage, matrix.chains[0])]
            if done > max(need):
                yield matrix.outcome(member, Chain(stages[:done], group.mode))
            else:
                at = group.attacks[done] if group.mode == "cascade" else group.members[done]
                yield f"{at}: {failed}"


def _attack(member: Perturbation) -> Adversarial | None:
    return member.adversarial if isinstance(member, Composed) else member if isinstance(member, Adversarial) else None


def _needs(member: Perturbation, attack: Adversarial, stage: Stage, chain: Chain) -> bool:
    """Whether the member can't be told without this stage: its own, or in a cascade any in its ball."""
    if isinstance(member, Worst):
        own = next(other.ball for other in chain.stages if other.attack.threat == member.threat)
        return stage in chain.inside(own)
    return attack == _attack(member)


def _run(pool: Pool) -> None:
    """Raises: AttackError, whatever a search or the classifier raised."""
    try:
        pool.run()
    except AttackError:
        raise
    except Exception as error:
        raise AttackError(f"crashed: {type(error).__name__}: {error}") from error


class _Matrix:
    """Chains for groups, whose stages have a range of the meter's examples each."""

    def __init__(self, case: Case, groups: Sequence[Group]) -> None:
        self.case, n, self.handed = case, len(case.x), list[Tensor]()
        self.stages = sum(len(group.attacks) for group in groups)
        self.meter = case.meter(n * self.stages)
        self.classifier = case.seen(self.meter)
        parts = iter([Part(self.classifier, torch.arange(k * n, (k + 1) * n)) for k in range(self.stages)])
        self.chains = [self._chain(group, [next(parts) for _ in group.attacks]) for group in groups]

    def _chain(self, group: Group, parts: Sequence[Part]) -> Chain:
        x, y, asked = self.case.x.clone(), self.case.y.clone(), dict[str, Tensor]()
        self.handed += [x, y]

        def stage(attack: Adversarial, part: Part) -> Stage:
            def logits() -> Tensor:
                if "clean" not in asked:
                    asked["clean"] = clean_logits(part, x)
                return asked["clean"]

            plain = replace(attack, descending=False)
            name = str(Composed(group.corrupted, plain) if group.corrupted else plain)
            streams = ExampleStreams(self.case.seed, self.case.ids, name)
            method, ball = plugin("attack", attack.attack, attack.fields), ball_of(attack.threat, self.case.box)
            search: Search | None = None
            if hasattr(method, "search"):
                search = method.search(x, y, ball, streams, logits)
                search.rows = part.examples
                search.close()
            found = x.clone() if search is None else search.best
            return Stage(
                attack=attack,
                method=method,
                ball=ball,
                streams=streams,
                classifier=part,
                found=found,
                search=search,
            )

        return Chain(tuple(map(stage, group.attacks, parts)), group.mode)

    def run(self, chains: Sequence[Chain]) -> None:
        """Until every example has been through every chain.

        Raises: AttackError, also where an attack wrote into its inputs, which are those of its whole group.
        """
        x, y = self.case.x, self.case.y
        stages = [(chain, stage) for chain in chains for stage in chain.stages]
        searches = {id(stage.search): (chain, stage) for chain, stage in stages if stage.search is not None}

        def onward(search: Search, rows: Tensor) -> None:
            chain, stage = searches[id(search)]
            stage.end(search, rows)
            chain.send(rows)

        found = [stage.search for _, stage in stages if stage.search is not None]
        pool = Pool(classifier=self.classifier, searches=found, onward=onward)
        everyone = torch.arange(len(x))
        while any([chain.send(everyone) for chain in chains]):
            _run(pool)
            while waiting := [(chain, stage, rows) for chain, stage in stages if len(rows := stage.waits())]:
                chain, stage, rows = waiting[0]
                stage.run(rows, x, y)
                chain.send(rows)
                _run(pool)
            for _, stage in stages:
                stage.judge(x, y)
        if any(one._version for one in self.handed):
            raise AttackError("an attack wrote into its inputs; it must clone what it changes")
        for chain in chains:
            chain.settle(x, y)

    def outcome(self, member: Perturbation, chain: Chain) -> Outcome:
        attack = _attack(member)
        threat = member.threat if isinstance(member, Worst) else attack.threat  # type: ignore[union-attr]
        own = [stage.classifier.examples for stage in chain.stages if stage.attack.threat == threat]
        verdict, watch = chain.said(threat, self.case.x), self.meter.watch
        return Outcome(
            verdict,
            torch.stack([self.meter.forwards[rows] for rows in own]).sum(0),
            torch.stack([self.meter.backwards[rows] for rows in own]).sum(0),
            total(watch.sums(verdict.correct, rows) for rows in own) if watch else {},
            partial(chain.points, threat),
        )
