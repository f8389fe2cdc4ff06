"""Minimal-norm attacks: the closed form of affine classifiers, and one run for a whole ladder of eps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from affine_bench import bench, done
from torch import Tensor, nn

import rlbench
from rlbench.attacks.fmn import FMN
from rlbench.attacks.search.jobs import BROKEN
from rlbench.attacks.search.pool import SearchPool
from rlbench.attacks.sigma_zero import SigmaZero
from rlbench.core import Adversarial, Ball, Norm, Threat, Worst, registry
from rlbench.core.errors import FieldError, RLBenchError, SuiteError
from rlbench.core.positions import count_positions
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.encoders.linear import weights
from rlbench.engine.attack.judge import attack_and_judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import prepare

N = 100


def affine(
    n_classes: int, shape: tuple[int, ...], low: float, high: float, ahead: float = 0.0
) -> tuple[nn.Module, Tensor]:
    """An affine classifier of inputs of this shape, and N points of its box."""
    g = torch.Generator().manual_seed(n_classes)
    flat = int(torch.tensor(shape).prod())
    net = nn.Linear(flat, n_classes).requires_grad_(False)
    net.weight.copy_(torch.randn(n_classes, flat, generator=g))
    net.bias.copy_(torch.randn(n_classes, generator=g))
    net.bias -= net.weight.sum(1) * (low + high) / 2
    net.bias[0] += ahead
    return nn.Sequential(nn.Flatten(), net), low + (high - low) * torch.rand(N, *shape, generator=g)


def gaps(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The labels (N,), the margins (N, C) of every class and their gradients (N, C, F); float64."""
    linear = net[1]  # type: ignore[index]
    z = net(x).double()
    y = z.argmax(1)
    return y, z.gather(1, y[:, None]) - z, (linear.weight[y][:, None] - linear.weight[None]).double()


def nearest(attack: FMN | SigmaZero, net: nn.Module, x: Tensor, norm: Norm, low: float, high: float) -> Tensor:
    """(N,) the distances that a run finds in a ball so small that no run ends early."""
    streams = ExampleStreams(0, tuple(map(str, range(len(x)))), "test")
    ball = Ball(norm, 0.5 if norm == "l0" else 1e-9, low, high)
    search = attack.search(x, net(x).argmax(1), ball, streams, lambda: net(x))
    SearchPool(classifier=Meter(net, len(x)), searches=[search]).run()
    return search.distance


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_fmn_finds_the_least_distance_to_a_boundary(n_classes: int, norm: Norm, dual: int) -> None:
    net, x = affine(n_classes, (20,), -50.0, 50.0)
    x = x / 50
    y, margins, slopes = gaps(net, x)
    least = (margins / slopes.norm(p=dual, dim=2)).scatter(1, y[:, None], float("inf")).amin(1)
    found = nearest(FMN(alpha=0.01, targets=5), net, x, norm, -50.0, 50.0)
    assert (found >= (1 - 1e-4) * least).all()
    assert (found <= 1.02 * least + 1e-3).float().mean() > 0.97


def test_a_run_without_a_target_has_the_value_of_the_margin_and_the_slope_of_the_cross_entropy() -> None:
    net, x = affine(4, (20,), 0.0, 1.0)
    y, ball = net(x).argmax(1), Ball("linf", 1e-9, 0.0, 1.0)
    search = FMN(targets=1).search(x, y, ball, ExampleStreams(0, tuple(map(str, range(N))), "test"), lambda: net(x))
    search.admit(N, alongside=False)
    z = net(x).requires_grad_()
    loss = search.adversary_loss(z)
    others = z.scatter(1, y[:, None], float("-inf"))
    assert torch.allclose(loss, others.amax(1) - z.amax(1) - 2 * BROKEN * z.abs().amax(1), atol=1e-5)
    slope = torch.autograd.grad(loss.sum(), z)[0]
    assert torch.allclose(slope, others.softmax(1) - nn.functional.one_hot(y, 4), atol=1e-5)


def test_a_restart_begins_at_the_nearest_point_and_comes_nearer() -> None:
    net, x = affine(6, (20,), -50.0, 50.0)
    x = x / 50
    far, near = (nearest(FMN(targets=0, restarts=r), net, x, "linf", -50.0, 50.0) for r in (0, 1))
    assert (near <= far).all() and (near < 0.99 * far).any()
    streams = ExampleStreams(0, tuple(map(str, range(N))), "test")
    search = FMN(targets=2).search(x, net(x).argmax(1), Ball("linf", 1e-9, -50.0, 50.0), streams, lambda: net(x))
    search.nearest += 1
    rows = torch.tensor([3, 5])
    assert [torch.equal(search.draw_start(rows, turn), search.nearest[rows]) for turn in range(4)] == [False] * 3 + [
        True
    ]


CURVE = [Fraction(k, 255) for k in (1, 2, 4, 6, 8)]
HARD = slice(60, 69)  # of those that are correct clean: three here are hard for runs that follow the margin alone


@pytest.mark.slow
def test_one_run_gives_the_curve_of_apgd_within_an_example() -> None:
    """On a bundled encoder, against apgd-ce and then apgd-t at each eps."""
    bench = prepare(load_suite("thermal"), "languagebind", batch_size=128)
    examples = bench.inputs.load(0, 100)
    with torch.no_grad():
        rows = (bench.classifier(examples.x).argmax(1) == examples.y).nonzero()[HARD, 0]
    x, y, ids = examples.x[rows], examples.y[rows], tuple(examples.ids[i] for i in rows.tolist())
    left, apgd = torch.arange(len(y)), []
    for eps in CURVE:
        for name, fields in (("apgd-ce", {}), ("apgd-t", {"targets": 3})):
            if not len(left):
                break
            attack, streams = registry.make("attack", name, fields), ExampleStreams(0, ids, name).take(left.tolist())
            meter, ball = Meter(bench.classifier, len(left), batch_size=128), bench.ball(Threat("linf", eps))
            left = left[attack_and_judge(attack, meter, x[left], y[left], ball, streams).judgement.correct]
        apgd.append(len(left))
    found = nearest(FMN(), bench.classifier, x, "linf", 0.0, 1.0)
    assert all(abs(int((found > float(eps)).sum()) - n) <= 1 for eps, n in zip(CURVE, apgd, strict=True))
    assert apgd[0] > apgd[2] + 2


def least_count(net: nn.Module, x: Tensor, low: float, high: float) -> Tensor:
    """(N,) the fewest positions that break each example: those with the largest gains, at bounds of the box."""
    y, margins, slopes = gaps(net, x)
    point = x.flatten(1).double()[:, None]
    gain = torch.maximum(slopes * (point - low), slopes * (point - high))  # of each coordinate, to its better bound
    if x.dim() > 2:
        gain = gain.view(*gain.shape[:2], x.shape[1], -1).sum(2)
    total = gain.sort(dim=2, descending=True).values.cumsum(2)
    count = (total <= margins[:, :, None]).sum(2) + 1
    return count.scatter(1, y[:, None], 10**6).amin(1)


SHAPES = [((30,), 0.0, 1.0, 6.0), ((3, 5, 4), -1.3, 1.5, 25.0)]


@pytest.mark.parametrize(("shape", "low", "high", "ahead"), SHAPES)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_sigma_zero_finds_the_fewest_positions(
    n_classes: int, shape: tuple[int, ...], low: float, high: float, ahead: float
) -> None:
    net, x = affine(n_classes, shape, low, high, ahead)
    least = least_count(net, x, low, high)
    found = nearest(SigmaZero(), net, x, "l0", low, high)
    assert len(least.unique()) > 2 and int(least.max()) <= count_positions(shape)
    assert (found >= least).all()
    assert (found == least).float().mean() > (0.85 if n_classes == 2 else 0.75)
    assert (found <= least + 1).float().mean() > 0.95


LADDERS: list[tuple[str, Norm, tuple[str, ...]]] = [
    ("fmn", "linf", ("1/20", "1/10", "1/5")),
    ("fmn", "l2", ("1/10", "1/5", "2/5")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm", "eps"), LADDERS)
def test_a_ladder_costs_one_run_and_gives_the_flags_of_single_cells(
    name: str, norm: Norm, eps: tuple[str, ...]
) -> None:
    levels = [Fraction(each) for each in eps]
    cells = [Adversarial(name, Threat(norm, e), ladder=tuple(levels[:i])) for i, e in enumerate(levels)]
    alone = [Adversarial(name, Threat(norm, e)) for e in levels]
    ladder = done(bench(), *cells)
    single = [done(bench(), cell)[0] for cell in alone]
    correct = [found.correct.tolist() for found in ladder]
    assert correct == [found.correct.tolist() for found in single]
    assert sum(correct[0]) > sum(correct[1]) > sum(correct[2])
    assert max(single[1].backwards) > 50
    assert [int(found.backwards.sum()) for found in ladder[1:]] == [0, 0]
    assert ladder[1].forwards.tolist() == [1 if right else 0 for right in correct[0]]  # the judge's


SUITE = """
suite: pixels
version: 1
summary: L0 balls.
modality: image
task: {name: blobs}
examples: 60
perturbations:
  - clean
  - {attack: sigma-zero, norm: l0, eps: EPS}
  - worst
"""


def write_suite(folder: Path, eps: str) -> Path:
    (folder / "pixels.yaml").write_text(SUITE.replace("EPS", eps))
    return folder / "pixels.yaml"


def test_a_suite_in_l0_gives_the_closed_form_of_the_linear_oracle(tmp_path: Path) -> None:
    suite = rlbench.load_suite(write_suite(tmp_path, "[1, 2]"))
    records = rlbench.run(suite, "linear", out=tmp_path / "store", workers=1)
    box = rlbench.load_encoder("linear").boxes["image"]
    part = suite.task.load(box, 0, suite.examples)
    w = weights()
    net = nn.Sequential(nn.Flatten(), nn.Linear(w.shape[1], w.shape[0]).requires_grad_(False))
    net[1].weight.copy_(w)
    net[1].bias.copy_(-0.5 * w.sum(1))
    right = net(part.x).argmax(1) == part.y
    least = least_count(net, part.x, box.low, box.high)
    cells = [r for r in records if isinstance(r.perturbation, Adversarial)]
    assert [str(r.perturbation.threat) for r in cells] == ["l0 1", "l0 2"]
    for record, eps in zip(cells, (1, 2), strict=True):
        exact = int((right & (least > eps)).sum())
        assert exact <= record.n_correct <= exact + 3
    worst = [r.n_correct for r in records if isinstance(r.perturbation, Worst)]
    assert worst == [r.n_correct for r in cells]


@pytest.mark.parametrize(
    ("eps", "message"), [("2.5", "whole number of pixels or bins"), ("4/255", "whole number"), ("-1", "negative")]
)
def test_an_l0_budget_that_is_no_count_is_refused(tmp_path: Path, eps: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        rlbench.load_suite(write_suite(tmp_path, eps))


def test_an_l0_budget_above_the_box_and_an_attack_of_another_norm_are_refused() -> None:
    x, y = torch.rand(2, 3, 4, 5), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(FieldError, match="of which the box has 20"):
        rlbench.attack(lambda x: x.flatten(1)[:, :3], x, y, "sigma-zero", norm="l0", eps=21)
    with pytest.raises(RLBenchError, match="attack 'pgd' is for l2, linf"):
        rlbench.attack(lambda x: x.flatten(1)[:, :3], x, y, "pgd", norm="l0", eps=3)
