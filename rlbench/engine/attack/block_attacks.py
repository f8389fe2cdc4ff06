"""The attack cells of a block, run together in one pool, or one by one where one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from rlbench.attacks.search.jobs import Search
from rlbench.attacks.search.pool import SearchPool, clean_logits
from rlbench.attacks.search.view import ClassifierView
from rlbench.core import Adversarial, Box, Classifier, Composed, Perturbation, Threat, Worst, registry
from rlbench.core.errors import AttackError
from rlbench.core.machine import search_float32
from rlbench.core.precision import Precision
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import ball_of
from rlbench.engine.attack.elsewhere import Elsewhere, count_elsewhere, moves_jointly, passes_elsewhere
from rlbench.engine.attack.exact import AGAIN, BROKE, Confirmed
from rlbench.engine.attack.judge import Judgement, check_effort
from rlbench.engine.attack.meter import Meter
from rlbench.engine.attack.schedule import Chain, Stage, Standing
from rlbench.engine.cells.groups import Group
from rlbench.engine.soundness.watch import total


@dataclass(frozen=True)
class MemberOutcome:
    """The result of a member of a group on R examples.

    Attributes:
        judgement: the verdicts on the examples.
        forwards: (R,) int64 forward passes.
        backwards: (R,) int64 backward passes.
        evidence: the counts of `watch.SUMS` over the member's passes.
        points: computes the points (R, *shape) that were judged.
    """

    judgement: Judgement
    forwards: Tensor
    backwards: Tensor
    evidence: Mapping[str, int]
    points: Callable[[], Tensor]

    @property
    def cost(self) -> float:
        """All passes in forward passes, of which a backward pass is worth two."""
        return float((self.forwards + 2 * self.backwards).sum()) + passes_elsewhere(self.evidence).cost


OnStanding = Callable[[Mapping[Perturbation, Standing]], None]


def ignore(standings: Mapping[Perturbation, Standing]) -> None:
    """Reports no standings."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Examples to attack: those that are classified correctly without an attack.

    Attributes:
        x: (R, *shape) examples in the box.
        y: (R,) int64 labels.
        ids: the R ids of the examples.
        box: the encoder's box.
        seed: the seed of the attacks' random streams.
        meter: makes a classifier that counts the passes of this many examples.
        wrap: makes the classifier that attacks and the judge use from such a meter.
        lower: makes a meter in lower precision from such a meter, which counts together with it.
        on_standing: called with the standings of the cells each time that examples leave an attack.
        elsewhere: what an attack runs on, if not on the examples and their classifier.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    box: Box
    seed: int
    meter: Callable[[int], Meter]
    wrap: Callable[[Classifier], Classifier] = lambda meter: meter
    lower: Callable[[Meter, Precision], Meter] = lambda meter, precision: meter
    on_standing: OnStanding = ignore
    elsewhere: Callable[[Adversarial], Elsewhere | None] = lambda attack: None

    def attack(self, groups: Sequence[Group]) -> Iterator[MemberOutcome | str]:
        """Attacks, and yields the outcome of every member of the groups, in order, or why it failed.

        The attacks of all groups search in the same precision.

        All groups run together. If that fails, each group runs again by itself, one stage at a time, so that a failure
        affects only its own cell and those after it.
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

    def _one_by_one(self, group: Group) -> Iterator[MemberOutcome | str]:
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


def _threat(member: Perturbation) -> Threat:
    """The threat model of a member that attacks."""
    of = member if isinstance(member, Worst) else _attack(member)
    assert of is not None
    return of.threat


def _needs(member: Perturbation, attack: Adversarial, stage: Stage, chain: Chain) -> bool:
    """Whether the member's result needs this stage: its own, or in a cascade any in its ball."""
    if isinstance(member, Worst):
        own = next(other.ball for other in chain.stages if other.attack.threat == member.threat)
        return stage in chain.inside(own)
    return attack == _attack(member)


def _run(pool: SearchPool, precision: Precision = "fp32") -> None:
    """Raises: AttackError, whatever a search or the classifier raised."""
    try:
        with search_float32(precision):
            pool.run()
    except AttackError:
        raise
    except (Exception, SystemExit) as error:
        raise AttackError(f"crashed: {type(error).__name__}: {error}") from error


class _Matrix:
    """The chains of some groups. The meter has R examples for each stage, so that it counts every stage by itself."""

    def __init__(self, case: Case, groups: Sequence[Group]) -> None:
        self.case, n, self.inputs = case, len(case.x), list[Tensor]()
        self.stages = sum(len(group.attacks) for group in groups)
        self.meter = case.meter(n * self.stages)
        self.precision: Precision = next((a.threat.precision for group in groups for a in group.attacks), "fp32")
        self.classifier = self.searched = case.wrap(self.meter)
        if self.precision != "fp32":
            low = case.wrap(case.lower(self.meter, self.precision))
            self.searched = Confirmed(low, self.classifier, case.y.repeat(self.stages))
        rows = iter([torch.arange(k * n, (k + 1) * n) for k in range(self.stages)])
        self.chains = [self._chain(group, [next(rows) for _ in group.attacks]) for group in groups]
        self.groups = groups

    def _chain(self, group: Group, examples: Sequence[Tensor]) -> Chain:
        x, y, cached = self.case.x.clone(), self.case.y.clone(), dict[str, Tensor]()
        self.inputs += [x, y]

        def stage(attack: Adversarial, rows: Tensor) -> Stage:
            view = ClassifierView(self.classifier, rows)

            def logits() -> Tensor:
                if "clean" not in cached:
                    cached["clean"] = clean_logits(view, x)
                return cached["clean"]

            plain = replace(attack, descending=False, threat=replace(attack.threat, precision="fp32"), surrogate=None)
            name = str(Composed(group.corrupted, plain) if group.corrupted else plain)
            streams = ExampleStreams(self.case.seed, self.case.ids, name)
            method, ball = registry.make("attack", attack.attack, attack.fields), ball_of(attack.threat, self.case.box)
            other, search = self.case.elsewhere(attack), cast("Search | None", None)
            self.meter.fix(view.examples, x, ball)
            if other is None and moves_jointly(method, ball):
                search = method.search(x, y, ball, streams, logits)
                search.attach(view.examples)
            return Stage(
                attack=attack,
                method=other.method if other else method,
                ball=ball,
                streams=streams,
                classifier=view,
                searched=other.seen if other else ClassifierView(self.searched, rows),
                found=x.clone() if search is None else search.best,
                search=search,
                elsewhere=other,
            )

        stages = tuple(map(stage, group.attacks, examples))
        for i, one in enumerate(stages):
            for other in stages[:i]:
                if one.search and other.search and one.extends(other):
                    one.search.follow(other.search)
        return Chain(stages, group.mode)

    def run(self, chains: Sequence[Chain]) -> None:
        """Runs until every example has passed through every chain.

        Raises: AttackError, also where an attack wrote into its inputs, which its whole group shares.
        """
        x, y = self.case.x, self.case.y
        stages = [(chain, stage) for chain in chains for stage in chain.stages]
        searches = {id(stage.search): (chain, stage) for chain, stage in stages if stage.search is not None}

        def onward(search: Search, rows: Tensor) -> None:
            chain, stage = searches[id(search)]
            stage.end(search, rows)
            chain.send(rows)
            self._report(chains)

        found = [stage.search for _, stage in stages if stage.search is not None]
        attempt = self.meter.attempt
        pool = SearchPool(classifier=self.searched, searches=found, onward=onward, attempt=attempt)
        everyone = torch.arange(len(x))
        while any([chain.send(everyone) for chain in chains]):
            _run(pool, self.precision)
            while waiting := [(chain, stage, rows) for chain, stage in stages if len(rows := stage.find_waiting())]:
                chain, stage, rows = waiting[0]
                attempt(partial(stage.run, rows, x, y))
                if stage.elsewhere is None:
                    passes = (self.meter.forwards[stage.classifier.examples[rows]] - 1).clamp_min(0)  # 1 of the judge
                    at = rows.to(x.device)
                    check_effort(stage.method, stage.found[at], x[at], stage.ball, passes)
                chain.send(rows)
                self._report(chains)
                _run(pool, self.precision)
            for _, stage in stages:
                attempt(partial(stage.judge, x, y))
            self._search_again(chains)
        if any(one._version for one in self.inputs):
            raise AttackError("an attack wrote into its inputs; it must clone what it changes")
        for chain in chains:
            attempt(partial(chain.settle, x, y))

    def _search_again(self, chains: Sequence[Chain]) -> None:
        """Searches in float32 what survived a search in low precision, in the order of the chains."""
        if self.precision == "fp32":
            return
        x, y = self.case.x, self.case.y
        for k in range(max(len(chain.stages) for chain in chains)):
            stages = [(chain, chain.stages[k]) for chain in chains if k < len(chain.stages)]
            found = [(stage, rows) for chain, stage in stages if len(rows := chain.find_again(stage))]
            searches = [self.meter.attempt(partial(stage.search_again, rows, x, y)) for stage, rows in found]
            _run(SearchPool(classifier=self.classifier, searches=searches, attempt=self.meter.attempt))
            for (stage, rows), search in zip(found, searches, strict=True):
                self.meter.attempt(partial(stage.take, rows, search, x, y))
        self._report(chains)

    def _report(self, chains: Sequence[Chain]) -> None:
        """Reports the standings of the members whose attacks are all in these chains."""
        self.case.on_standing(
            {
                member: chain.standing(_threat(member))
                for group, chain in zip(self.groups, chains, strict=True)
                if len(chain.stages) == len(group.attacks)
                for member in group.members
            }
        )

    def outcome(self, member: Perturbation, chain: Chain) -> MemberOutcome:
        threat = _threat(member)
        stages = [stage for stage in chain.stages if stage.attack.threat == threat]
        own = [stage.classifier.examples for stage in stages]
        judgement, watch = chain.judgement(threat, self.case.x), self.meter.watch
        each = [watch.sums_of(s.method, judgement.correct, s.classifier.examples) for s in stages] if watch else []
        sums = total(each) if watch else {}
        return MemberOutcome(
            judgement,
            torch.stack([self.meter.forwards[rows] for rows in own]).sum(0),
            torch.stack([self.meter.backwards[rows] for rows in own]).sum(0),
            sums | self._count_again(stages) | count_elsewhere(stage.elsewhere for stage in stages),
            partial(chain.points, threat),
        )

    def _count_again(self, stages: Sequence[Stage]) -> dict[str, int]:
        """The examples of the last searches, and those that these broke; nothing after a search in float32."""
        if self.precision == "fp32":
            return {}
        again = sum(int(stage.again.sum()) for stage in stages)
        return {AGAIN: again, BROKE: sum(int((stage.again & ~stage.correct).sum()) for stage in stages)}
