"""What a run costs: the passes of attacks on encoders that never or always break, the pilot's estimates, budgets."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from rlbench.cli.main import main
from rlbench.core import Adversarial, Box, Clean, Corrupted, Examples, Label, Suite, Threat
from rlbench.core.batch import BatchSize
from rlbench.core.errors import FieldError
from rlbench.engine import cells
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.evaluate import evaluate
from rlbench.engine.cells.groups import Group
from rlbench.engine.plan import planner
from rlbench.engine.plan.cost import Cost, Pace, Rates, bounds, largest_fitting, parse_budget
from rlbench.engine.plan.pilot import CHUNK, rehearse, shorten
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import execute, run
from rlbench.store.blocks import Block

BOX = Box(shape=(1, 4, 4))
ATTACKS = ("pgd", "apgd-ce", "apgd-t")
FLOOR = {"pgd": 20, "apgd-ce": 100, "apgd-t": 900}  # backward passes of a survivor
# Forward passes besides: the last point of every run, the judge's, and apgd-t's clean ones that rank the targets.
BESIDES = {"pgd": 2, "apgd-ce": 2, "apgd-t": 11}


@dataclass(frozen=True)
class Coded:
    """Ten classes, given by the first pixel; every pixel is a multiple of 1/255."""

    modality = "image"
    classes = tuple(Label(str(k), str(k)) for k in range(10))
    templates = ("{}",)

    def size(self, split: str) -> None:
        return None

    def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
        y = torch.arange(start, stop) % 10
        g = torch.Generator().manual_seed(0)
        x = torch.randint(100, 150, (stop, *box.shape), generator=g)[start:].float()
        x[:, 0, 0, 0] = 25.0 * y
        ids = tuple(map(str, range(start, stop)))
        return Examples(x / 255, y, ids, ids)

    def fingerprint(self) -> str:
        return hashlib.sha256(b"coded").hexdigest()


@dataclass
class Counting:
    """Logits whose order no small step changes, or (fragile) any step from a clean input."""

    fragile: bool
    encoder: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(traits=frozenset()))
    forwards: int = 0
    backwards: int = 0
    weights: Tensor = field(default_factory=lambda: torch.randn(16, 10, generator=torch.Generator().manual_seed(1)))

    def __call__(self, x: Tensor) -> Tensor:
        right = torch.nn.functional.one_hot((x.detach()[:, 0, 0, 0] * 10.2).round().long().clamp(0, 9), 10).float()
        clean = ((x.detach() * 255) - (x.detach() * 255).round()).abs().flatten(1).amax(1) < 1e-3
        z = (
            x.flatten(1) @ self.weights * 0.01
            + (~clean * -2.0 + 1.0 if self.fragile else 1.0 + 0.0 * clean)[:, None] * right
        )
        self.forwards += len(x)
        if z.requires_grad:
            z.register_hook(lambda gradient: self._back(len(x)))
        return z

    def _back(self, n: int) -> None:
        self.backwards += n


def bench(fragile: bool, attacks: tuple[str, ...] = ATTACKS, eps: tuple[int, ...] = (1,)) -> Bench:
    ladder = tuple(Fraction(e, 400) for e in eps)
    found = [Adversarial(a, Threat("linf", e), (), ladder[:i]) for a in attacks for i, e in enumerate(ladder)]
    suite = Suite(
        name="coded",
        version=1,
        summary="",
        modality="image",
        task_name="coded",
        task=Coded(),  # type: ignore[arg-type]
        perturbations=(Clean(), *found),
        examples=100,
        seed=0,
        path="",
    )
    return Bench(suite, Counting(fragile), BOX, "coded", "cpu", BatchSize(16))  # type: ignore[arg-type]


def computed(bench: Bench, n: int) -> dict[str, Block]:
    clean = evaluate(bench, [Group()], 0, n, None, lambda passes: None)[0]
    assert isinstance(clean, Block) and clean.correct.all()
    counted: Counting = bench.classifier  # type: ignore[assignment]
    counted.forwards = counted.backwards = 0  # those of the attacks alone: a clean block is classified again
    groups = cells.groups(bench.suite.perturbations)[1:]
    results = evaluate(bench, groups, 0, n, clean, lambda passes: None)
    members = [str(member) for group in groups for member in group.members]
    assert all(isinstance(result, Block) for result in results)
    return dict(zip(members, results, strict=True))  # type: ignore[arg-type]


def test_a_survivor_costs_the_protocol_and_no_pass_more() -> None:
    made = bench(fragile=False)
    blocks = computed(made, 20)
    for name, block in blocks.items():
        attack = name.split()[0]
        assert block.correct.all()
        assert set(block.backwards.tolist()) == {FLOOR[attack]}
        assert set(block.forwards.tolist()) == {FLOOR[attack] + BESIDES[attack]}
    counted: Counting = made.classifier  # type: ignore[assignment]
    assert counted.backwards == sum(int(block.backwards.sum()) for block in blocks.values())
    assert counted.forwards == sum(int(block.forwards.sum()) for block in blocks.values())


def test_examples_broken_at_once_cost_few_passes_and_none_at_larger_eps() -> None:
    made = bench(fragile=True, eps=(1, 2, 3))
    blocks = computed(made, 20)
    assert len(blocks) == 9 and not any(block.correct.any() for block in blocks.values())
    for attack in ATTACKS:
        first, *larger = [block for name, block in blocks.items() if name.split()[0] == attack]
        assert first.forwards.max() <= 4 and first.backwards.max() <= 3
        assert max(block.forwards.max() for block in larger) == 0
    counted: Counting = made.classifier  # type: ignore[assignment]
    assert counted.forwards + counted.backwards <= 20 * (1 + 3 * 7)


def test_survivors_cost_the_upper_bound() -> None:
    found = bounds(bench(fragile=False))[0].cells
    for attack in ATTACKS:
        cell = Adversarial(attack, Threat("linf", Fraction(1, 400)))
        assert found[cell] == Cost(FLOOR[attack] + BESIDES[attack], FLOOR[attack])


@pytest.mark.slow
@pytest.mark.parametrize("fragile", [False, True])
def test_the_pilot_estimates_the_passes(fragile: bool) -> None:
    made = bench(fragile, eps=(1, 2))
    most, _ = bounds(made)
    found = rehearse(made, cells.groups(made.suite.perturbations), most, n=100, seconds=60)
    assert found.piloted and found.cells[Clean()] == Cost(1, 0, 1.0)
    blocks = computed(bench(fragile, eps=(1, 2)), 40)
    for cell in made.suite.perturbations[1:]:
        real, cost = blocks[str(cell)], found.cells[cell]
        assert cost.forwards == pytest.approx(real.forwards.mean(), rel=0.1, abs=1)
        assert cost.backwards == pytest.approx(real.backwards.mean(), rel=0.1, abs=1)
        assert cost.correct == real.correct.mean()


def test_a_pilot_ends_when_it_is_steady_or_out_of_time() -> None:
    counts = []
    for allowed, n in ((60.0, 10 * CHUNK), (0.0, 10 * CHUNK), (60.0, 5)):
        made = bench(fragile=False, attacks=("pgd",))
        most, _ = bounds(made)
        counted: Counting = made.classifier  # type: ignore[assignment]
        counted.backwards = 0
        rehearse(made, cells.groups(made.suite.perturbations), most, n=n, seconds=allowed)
        counts.append(counted.backwards)
    assert counts == [10 * CHUNK, 10 * CHUNK, 50]  # all alike: one chunk is enough


def test_the_pilot_shortens_or_replaces_attacks() -> None:
    threat = Threat("linf", Fraction(1, 100))

    def cut(attack: str, **fields: int) -> tuple[str, dict[str, object]]:
        group = Group(Corrupted("snow", 1), (Adversarial(attack, threat, tuple(sorted(fields.items()))),))
        short = shorten(group, 10)
        assert short.corrupted == group.corrupted and short.attacks[0].threat == threat
        return short.attacks[0].attack, dict(short.attacks[0].fields)

    assert cut("pgd", steps=4) == ("pgd", {"restarts": 1, "steps": 4})
    assert cut("apgd-t") == ("apgd-t", {"restarts": 1, "steps": 10, "targets": 2})
    assert cut("square")[1]["queries"] == 50
    assert cut("aa-clip") == ("apgd-ce", {"steps": 10})


SUITE = """
suite: cost
version: 1
summary: An expensive attack and a cheap one.
modality: thermal
task: {name: thermal-world}
examples: 60
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 8/255]}
  - {attack: apgd-ce, norm: linf, eps: 4/255}
  - {corruption: netd, severity: [1, 5]}
  - worst
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "cost.yaml"
    path.write_text(SUITE)
    return str(path)


def test_the_estimate_is_close_to_the_run(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "SMALL", 0.5)
    made = plan(suite, "languagebind", store=tmp_path / "out", pilot=True, workers=1)
    records = execute(made)
    spent = sum(record.forwards + record.backwards for record in records)
    about = sum(cell.expected_forwards + cell.expected_backwards for cell in made.cells)
    most = sum(cell.forwards + cell.backwards for cell in made.cells)
    assert made.piloted and 0 < made.expected < made.seconds
    assert abs(about / spent - 1) < 0.25 and most > 1.5 * spent
    again = plan(suite, "languagebind", store=tmp_path / "out", pilot=True, workers=1)
    assert again.expected == again.seconds == 0 and not again.piloted


def _fixed(bench: Bench, groups: object, most: Rates, *, n: int, seconds: float) -> Rates:
    cheap = {member: replace(cost, forwards=10, backwards=0, correct=0.9) for member, cost in most.cells.items()}
    return replace(most, pace=Pace(0.01, 0.0), cells=cheap, rendering=0.0, piloted=True)


def test_a_budget_chooses_the_examples(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six cells of 10 passes of 10 ms make .6 s an example, the corruptions 5 ms each, and saving .09 s."""
    monkeypatch.setattr(planner, "rehearse", _fixed)
    monkeypatch.setattr(planner, "SMALL", 0.0)
    for budget, n in (("20s", 32), ("1m", 60), ("0.1m", 9), ("0.5s", None)):
        settings = {"store": tmp_path / "out", "budget": budget, "workers": 1}
        if n is None:
            with pytest.raises(FieldError, match=r"too small: 1 example takes about 0\.7 s"):
                plan(suite, "languagebind", **settings)  # type: ignore[arg-type]
            continue
        made = plan(suite, "languagebind", **settings)  # type: ignore[arg-type]
        assert {cell.n for cell in made.cells} == {n}
        assert made.expected <= parse_budget(budget) and f"room for {n} of 60 examples" in made.notes[-1]
    made = plan(suite, "languagebind", store=tmp_path / "out", budget="1h", examples=1000, workers=1)
    assert {cell.n for cell in made.cells} == {1000}
    with pytest.raises(FieldError, match="examples is 99,999,999; it must be at most 1,000,000"):
        plan(suite, "languagebind", store=tmp_path / "out", examples=99_999_999)


def test_blocks_of_a_longer_run_are_used_again(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "rehearse", _fixed)
    monkeypatch.setattr(planner, "SMALL", 0.0)
    text = SUITE.replace("[2/255, 8/255]", "8/255, steps: 1").replace("apgd-ce", "fgsm").replace("60", "256")
    Path(suite).write_text(text)
    run(suite, "languagebind", out=tmp_path / "out", workers=1)
    made = plan(suite, "languagebind", store=tmp_path / "out", examples=400, budget="40s", workers=1)
    assert made.pairs[0].n > 256 and {unit.start for unit in made.units} == {256}


@pytest.mark.parametrize("text", ["10", "0s", "-5m", "5 days", "", "m"])
def test_invalid_budgets_are_refused(text: str) -> None:
    with pytest.raises(FieldError, match="such as 30s, 10m or 2h"):
        parse_budget(text)


def test_budgets_and_the_largest_that_fits() -> None:
    assert [parse_budget(text) for text in ("30s", "1.5m", "2h")] == [30, 90, 7200]
    found = [largest_fitting(lambda n, k=k: n <= k, 500, 256) for k in (0, 1, 99, 255, 256, 347, 499, 500, 900)]
    assert found == [0, 1, 99, 250, 256, 340, 490, 500, 500]
    recorded = [largest_fitting(lambda n, k=k: n % 256 <= k, 500, 256) for k in (0, 1, 9, 99, 300)]
    assert recorded == [256, 257, 260, 350, 500]  # whole blocks of 256 cost nothing
    asked: list[int] = []

    def fits(n: int) -> bool:
        asked.append(n)
        return n <= 3333

    assert largest_fitting(fits, 10**6, 256) == 3329 and len(asked) < 40


def test_a_dry_run_tells_the_cost_of_every_cell(suite: str, tmp_path: Path) -> None:
    call = ["run", "--suite", suite, "--model", "languagebind", "--out", str(tmp_path / "out"), "--dry-run"]
    text = CliRunner().invoke(main, [*call, "--examples", "40"]).stdout
    assert "netd, 2 severities" in text and "worst linf 8/255" in text
    rows = json.loads(CliRunner().invoke(main, [*call, "--json"]).stdout)
    assert all(0 < row["half_width"] < 0.2 and row["expected_forwards"] <= row["forwards"] for row in rows)
    wrong = CliRunner().invoke(main, [*call, "--budget", "soon"])
    assert wrong.exit_code == 2 and "30s, 10m or 2h" in wrong.stderr


def test_the_bound_of_a_randomised_encoder_counts_its_draws() -> None:
    plain, drawn = bench(fragile=False), bench(fragile=False)
    drawn.classifier.encoder.traits = frozenset({"randomised"})  # type: ignore[misc]
    most, more = bounds(plain)[0].cells, bounds(drawn)[0].cells
    assert {p: (20 * c.forwards, 20 * c.backwards) for p, c in most.items()} == {
        p: (c.forwards, c.backwards) for p, c in more.items()
    }
