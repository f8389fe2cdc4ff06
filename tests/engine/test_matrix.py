"""All attack cells of a block in one pool: the same flags as alone, and the modes that skip examples."""

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from rlbench.attacks.pgd import PGD
from rlbench.core import Adversarial, Box, Clean, Corrupted, Threat, Worst, registry
from rlbench.core.errors import AttackError
from rlbench.core.threat import Ball, contains, distance
from rlbench.engine.attack.block_attacks import Case, MemberOutcome, _Matrix
from rlbench.engine.attack.meter import Meter
from rlbench.engine.cells.bounds import describe_attack as told_of
from rlbench.engine.cells.groups import groups
from rlbench.engine.cells.modes import in_mode

BOX = Box(shape=(1, 4, 4))
LINF, L2 = ("0.02", "0.05", "0.1"), ("0.1", "0.3")
COLUMNS = (
    Clean(),
    *(
        Adversarial("pgd", Threat("linf", Fraction(e)), ladder=tuple(map(Fraction, LINF[:i])))
        for i, e in enumerate(LINF)
    ),
    *(Adversarial("apgd-ce", Threat("linf", Fraction(e)), (("steps", 20),)) for e in LINF[1:2]),
    *(Adversarial("apgd-t", Threat("linf", Fraction(e)), (("steps", 20),)) for e in LINF[1:2]),
    *(Adversarial("pgd", Threat("l2", Fraction(e)), ladder=tuple(map(Fraction, L2[:i]))) for i, e in enumerate(L2)),
    *(Worst(Threat("linf", Fraction(e))) for e in LINF),
    *(Worst(Threat("l2", Fraction(e))) for e in L2),
)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(16, 24), torch.nn.Tanh(), torch.nn.Linear(24, 6)
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)


def case(net, *, n: int = 48, batch_size: int = 64, watch=None) -> Case:
    x = torch.rand(n, *BOX.shape, generator=torch.Generator().manual_seed(1))
    ids = tuple(map(str, range(n)))
    meter = lambda size: Meter(net if watch is None else watch, size, batch_size=batch_size)  # noqa: E731
    return Case(x=x, y=net(x).argmax(1), ids=ids, box=BOX, seed=0, meter=meter)


def told(net, columns=COLUMNS, together: bool = True, **options) -> dict[str, MemberOutcome]:
    found = [g for g in groups(columns) if g.attacks]
    bundles = [found] if together else [[g] for g in found]
    names = [str(member) for g in found for member in g.members]
    made = case(net, **options)
    return dict(zip(names, (o for bundle in bundles for o in made.attack(bundle)), strict=True))


@pytest.mark.parametrize("options", [{"together": False}, {"batch_size": 1, "n": 12}, {"batch_size": 7}])
def test_other_cells_and_batch_size_change_no_flag(net, options) -> None:
    whole, other = told(net, n=options.get("n", 48)), told(net, **options)
    assert whole.keys() == other.keys()
    for name in whole:
        assert torch.equal(whole[name].judgement.correct, other[name].judgement.correct), name
        survivors = whole[name].judgement.correct
        assert torch.allclose(
            whole[name].judgement.margin[survivors], other[name].judgement.margin[survivors], atol=1e-5
        )
    broken = ~whole["pgd linf 0.1"].judgement.correct
    assert broken.any() and not broken.all()


def worst(outcomes: dict[str, MemberOutcome], norm: str, eps: str) -> torch.Tensor:
    """From single columns: correct under every attack of this norm with this eps or a smaller one."""
    parts = {name: name.split(f" {norm} ") for name in outcomes}
    inside = [outcomes[n].judgement.correct for n, p in parts.items() if len(p) == 2 and float(p[1]) <= float(eps)]
    return torch.stack(inside).all(0)


def test_a_cascade_is_the_exact_worst_case_for_fewer_passes(net) -> None:
    alone, cascade = told(net), told(net, in_mode(COLUMNS, "cascade", 6))
    assert list(cascade) == [f"worst linf {float(e):g}" for e in LINF] + [f"worst l2 {float(e):g}" for e in L2]
    for norm, every in (("linf", LINF), ("l2", L2)):
        for eps in every:
            found = cascade[f"worst {norm} {float(eps):g}"].judgement
            carried = cascade["worst linf 0.05"].judgement.correct if (norm, eps) == ("l2", "0.3") else True
            assert torch.equal(found.correct, worst(alone, norm, eps) & carried)  # .05 in 16 pixels: at most .2 in L2
            assert (found.distance <= float(eps) * (1 + 1e-6)).all()
            assert torch.equal(found.correct, found.margin > 0)
    spent = [sum(int(o.backwards.sum()) for o in outcomes.values()) for outcomes in (alone, cascade)]
    assert spent[1] < spent[0]


def test_descending_attacks_in_smaller_balls_only_broken_examples(net) -> None:
    alone, down = told(net), told(net, in_mode(COLUMNS, "descending", 6))
    top, low = (down[f"pgd linf {e} descending"] for e in ("0.1", "0.02"))
    survived = top.judgement.correct
    assert survived.any() and (low.backwards[survived] == 0).all() and low.judgement.correct[survived].all()
    assert (low.judgement.distance[survived] > 0.015).all()  # not the clean input: the larger ball's point, projected
    assert (low.judgement.distance <= 0.02 * (1 + 1e-6)).all()
    for name in down:
        assert torch.equal(down[name].judgement.correct, alone[name.removesuffix(" descending")].judgement.correct)
    spent = [sum(int(o[n].backwards.sum()) for n in o if n.startswith("pgd linf")) for o in (alone, down)]
    assert spent[1] < spent[0]


def test_modes_name_their_columns() -> None:
    assert in_mode(COLUMNS, "standalone", 6) == COLUMNS
    names = [str(p) for p in in_mode((*COLUMNS, Corrupted("fog", 3)), "cascade", 6)]
    assert names[:2] == ["clean", "fog 3"] and all(name.startswith("worst ") for name in names[2:]) and len(names) == 7
    names = [str(p) for p in in_mode(COLUMNS, "descending", 6)]
    assert names[0] == "clean" and all(name.endswith(" descending") for name in names[1:])
    chain = next(p for p in in_mode(COLUMNS, "cascade", 6) if isinstance(p, Worst)).attacks
    assert [str(a) for a in chain[:3]] == ["pgd linf 0.02", "pgd linf 0.05", "apgd-ce(steps=20) linf 0.05"]


class Flicker(torch.nn.Module):
    """A network that, in passes without a gradient as the judge's, alternates between its logits and class 0."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net, self.kind = net, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.net(x)
        if x.requires_grad:
            return logits
        self.kind += 1
        return logits if self.kind % 2 else torch.nn.functional.one_hot(logits.argmax(1) * 0, 6).float() + logits * 0


def test_an_example_that_the_judge_finds_correct_is_attacked_at_the_next_eps(net) -> None:
    columns = [p for p in COLUMNS if isinstance(p, Adversarial) and p.attack == "pgd" and p.threat.norm == "linf"]
    made = case(net, watch=Flicker(net))
    made = replace(made, y=torch.zeros_like(made.y))
    outcomes = [o for o in made.attack(groups(columns)[1:]) if isinstance(o, MemberOutcome)]
    assert len(outcomes) == 3
    for smaller, larger in pairwise(outcomes):
        back = smaller.judgement.correct
        assert back.any() and (larger.forwards[back] > 1).all(), "what the judge calls correct skipped a larger ball"


@dataclass(frozen=True, kw_only=True)
class Broken(PGD):
    """A gradient attack that fails in larger balls."""

    def advance(self, state, loss, gradient, ball) -> None:
        if ball.radius > 0.03:
            raise ZeroDivisionError("planned")
        super().advance(state, loss, gradient, ball)


def test_a_failure_in_the_pool_fails_only_its_own_cell(net, monkeypatch) -> None:
    table = dict(registry.entries())
    table["attack", "broken"] = registry.PluginInfo("attack", "broken", __name__, "Broken", "")
    monkeypatch.setattr(registry, "entries", lambda: table)
    rungs = [
        Adversarial("broken", Threat("linf", Fraction(e)), (), tuple(map(Fraction, LINF[:i])))
        for i, e in enumerate(LINF)
    ]
    found = told(net, [*COLUMNS[:4], *rungs])
    alone = told(net, COLUMNS[:4])
    for name in alone:
        assert torch.equal(found[name].judgement.correct, alone[name].judgement.correct)
    assert isinstance(found["broken linf 0.02"], MemberOutcome)
    assert found["broken linf 0.05"] == found["broken linf 0.1"] and "planned" in found["broken linf 0.05"]
    assert found["broken linf 0.05"].startswith("broken linf 0.05: ")


def test_an_example_that_nobody_judged_is_an_error_and_never_robust(net) -> None:
    made, [group] = case(net), [g for g in groups(COLUMNS[:2]) if g.attacks]
    idle = _Matrix(made, [group])
    with pytest.raises(AttackError, match="neither attacked nor broken"):
        idle.outcome(group.members[0], idle.chains[0])
    idle.run(idle.chains)
    assert idle.outcome(group.members[0], idle.chains[0]).judgement.correct.any()


def test_which_balls_contain_others() -> None:
    def ball(norm, radius):
        return Ball(norm, radius, 0.0, 1.0)

    assert contains(ball("l2", 0.4), ball("linf", 0.1), 16) and not contains(ball("l2", 0.39), ball("linf", 0.1), 16)
    assert contains(ball("linf", 0.1), ball("l2", 0.1), 16) and not contains(ball("linf", 0.1), ball("l2", 0.11), 16)
    x = torch.full((1, 16), 0.5)
    corner = x + 0.1
    assert distance(corner, x, "l2").item() == pytest.approx(0.4)


def test_the_record_has_the_loss_and_label_of_its_attack() -> None:
    def attack(name: str, **fields) -> Adversarial:
        return Adversarial(name, Threat("linf", Fraction(1, 50)), tuple(fields.items()))

    assert told_of(attack("autoattack"), 10)["label"] == "aa-standard"
    assert told_of(attack("autoattack", queries=100), 10)["label"].startswith("custom:")
    assert told_of(attack("autoattack"), 3)["label"].startswith("custom:")
    assert told_of(attack("apgd-t"), 3) == {"loss": "margin-targeted"} and told_of(Clean(), 3) == {}
