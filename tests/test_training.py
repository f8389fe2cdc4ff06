"""Losses against values worked out by hand, the inner attack, recipes, and run folders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlbench import registry
from rlbench.checkpoints import load_encoder, resolve
from rlbench.core import Ball
from rlbench.errors import CheckpointError, FieldError, ModalityError, RLBenchError, UnknownName
from rlbench.threat import violation
from rlbench.training.adversary import adversarial
from rlbench.training.loop import Step, batch_of, loss_of, prepared, rate
from rlbench.training.objectives import Batch, fare, infonce, kept, rlbind, rlbind_adversarial, tecoa
from rlbench.training.recipe import Recipe, described, load_recipe, methods
from rlbench.training.run import train

TINY = {"examples": 64, "epochs": 1, "batch": 32, "attack_steps": 1, "validation": 32}
F = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)  # n(F) = (.6, .8), (0, 1)
A = torch.eye(2, dtype=torch.float64)
Y = torch.tensor([0, 1])


def gradient(loss, f: Tensor) -> Tensor:
    f = f.clone().requires_grad_()
    return torch.autograd.grad(loss(f).sum(), f)[0]


def test_fare_by_hand() -> None:
    """|(3,4) - (1,1)|^2 = 13 and |(0,2) - (0,0)|^2 = 4: sums over dimensions of features that are not normalised."""
    f0 = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert fare(F, f0).tolist() == [13.0, 4.0]
    assert gradient(lambda f: fare(f, f0), F).tolist() == [[4.0, 6.0], [0.0, 4.0]]


def test_tecoa_by_hand() -> None:
    """Logits 10 (.6, .8) and 10 (0, 1): the losses are log(1 + e^2) and log(1 + e^-10).

    The gradient by the chain rule, with p = softmax: s/|f| (I - n n^T) (p - e_y).
    """
    expected = [math.log1p(math.exp(2)), math.log1p(math.exp(-10))]
    assert torch.allclose(tecoa(F, A, Y, 10.0), torch.tensor(expected, dtype=torch.float64))
    p = 1 / (1 + math.exp(-2))
    first = 10 / 5 * p * (torch.eye(2) - torch.tensor([[0.36, 0.48], [0.48, 0.64]])) @ torch.tensor([-1.0, 1.0])
    q = 1 / (1 + math.exp(10))
    second = 10 / 2 * q * (torch.eye(2) - torch.tensor([[0.0, 0.0], [0.0, 1.0]])) @ torch.tensor([1.0, -1.0])
    assert torch.allclose(gradient(lambda f: tecoa(f, A, Y, 10.0), F).float(), torch.stack([first, second]), atol=1e-6)


def test_infonce_by_hand() -> None:
    """Captions (1,0), (0,1); the two directions of logits 10 [[.6, .8], [0, 1]]."""
    there = (math.log1p(math.exp(2)) + math.log1p(math.exp(-10))) / 2
    back = (math.log1p(math.exp(-6)) + math.log1p(math.exp(-2))) / 2
    assert infonce(F, A, Y, 10.0).item() == pytest.approx((there + back) / 2)
    same = infonce(F, A, torch.tensor([1, 1]), 10.0)  # both captions are positives of both
    z = 10 * torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    rows, columns = -z.log_softmax(1).mean(1), -z.log_softmax(0).mean(0)
    assert same.item() == pytest.approx(float((rows.mean() + columns.mean()) / 2))


def test_rlbind_by_hand() -> None:
    """Three anchors, so that the classes other than y have a distribution; every term from its definition."""
    anchors = torch.eye(3, dtype=torch.float64)
    f = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    f_adv = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.float64)
    f0 = torch.tensor([[0.0, 0.0, 5.0]], dtype=torch.float64)
    recipe = Recipe(
        objective="rlbind", original="x", logit_scale=2.0, tau=1.0, adversarial=3.0, consistency=5.0, distil=7.0
    )
    batch = Batch(torch.tensor([0]), anchors, anchors[:1], f0)
    p = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64).softmax(0)
    p_adv = torch.tensor([1.2, 1.6, 0.0], dtype=torch.float64).softmax(0)
    q0 = torch.tensor([0.0, 1.0], dtype=torch.float64).softmax(0)
    q, q_adv = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.8, 0.0], dtype=torch.float64).softmax(0)
    kl = lambda a, b: float((a * (a / b).log()).sum())  # noqa: E731
    above = 3 * -math.log(p_adv[0]) + 5 * kl(p, p_adv) + 7 * kl(q0, q_adv)
    assert rlbind_adversarial(f_adv, f, batch, recipe).item() == pytest.approx(above)
    assert kept(f, batch, recipe).item() == pytest.approx(kl(q0, q))
    assert rlbind(f, f_adv, batch, recipe).item() == pytest.approx(-math.log(p[0]) + 7 * kl(q0, q) + above)


def test_the_rate_warms_up_and_ends_near_0() -> None:
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001
    assert rates[55] == pytest.approx(0.5)


def test_the_adversary_ascends_within_the_ball() -> None:
    g = torch.Generator().manual_seed(0)
    x, centre = torch.rand(8, 1, 8, 8, generator=g), torch.rand(8, 1, 8, 8, generator=g)
    ball = Ball("linf", 8 / 255, 0.0, 1.0)

    def loss(v: Tensor) -> Tensor:
        return (v - centre).square().flatten(1).sum(1)

    near, far = (adversarial(x, loss, ball, steps=k, step=0.5, g=torch.Generator().manual_seed(1)) for k in (1, 6))
    assert violation(far, x, ball) is None and not far.requires_grad
    assert (loss(far) > loss(near)).all() and (loss(near) > loss(x)).all()
    best = loss((x + 8 / 255 * (x - centre).sign()).clamp(0, 1))
    assert torch.allclose(loss(far), best, rtol=1e-3)


@pytest.mark.parametrize(("method", "stage"), [("fare", None), ("tecoa", None), ("rlbind", 2)])
def test_the_inner_attack_ascends_the_methods_own_loss(method: str, stage: int | None) -> None:
    """Loss after > loss before, for the bundled starting points; step by step on the same batch."""
    recipe = load_recipe(method, stage, modality="thermal", overrides={"examples": 64, "batch": 32})
    run = prepared(recipe, "thermal")
    x, y = run.data.unit(run.data.x[:32]), run.data.y[:32]
    batch = batch_of(run, x, y, torch.Generator().manual_seed(0))
    f = run.encoder.features(x, "thermal").detach()

    def loss(v: Tensor) -> Tensor:
        return run.objective.ascended(run.encoder.features(v, "thermal"), f, batch)

    means = []
    for steps in (0, 1, 2, 3):
        g = torch.Generator().manual_seed(0)
        x_adv = adversarial(x, loss, run.ball, steps=steps, step=0.5, g=g)
        assert violation(x_adv, x, run.ball) is None
        means.append(loss(x_adv).mean().item())
    assert means == sorted(means) and means[-1] > 1.2 * means[0]
    assert loss_of(run, x, y, torch.Generator().manual_seed(0)).requires_grad


def test_every_method_has_recipes_for_every_modality() -> None:
    assert {"languagebind": (), "fare": (), "tecoa": (), "rlbind": (1, 2)}.items() <= methods().items()
    for method, stages in methods().items():
        for stage in stages or (None,):
            for modality in ("image", "thermal", "audio", "video"):
                load_recipe(method, stage, modality=modality)
    assert load_recipe("rlbind", 1, modality="audio") == load_recipe("fare", modality="audio")
    assert load_recipe("rlbind", modality="audio") == load_recipe("rlbind", 2, modality="audio")
    assert load_recipe("fare", modality="video").eps == "2/255"
    two, one = load_recipe("rlbind", 2, modality="image"), load_recipe("rlbind", 1, modality="image")
    assert one.epochs + two.epochs == load_recipe("tecoa", modality="image").epochs


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lrr": 1.0}, "did you mean 'lr'"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": 0.0}, "above 0"),
        ({"lr": float("nan")}, "above 0"),
        ({"epochs": 0}, "at least 1"),
        ({"warmup": 2.0}, "share"),
        ({"eps": "4/0"}, "eps"),
        ({"objective": "far"}, "one of infonce"),
        ({"original": None}, "needs `original`"),
        ({"tau": -1.0}, "tau"),
    ],
)
def test_recipe_fields_are_checked(values: dict, text: str) -> None:
    with pytest.raises(FieldError, match=text):
        load_recipe("rlbind", modality="thermal", overrides=values)


def test_unknown_methods_and_stages() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tecoa'"):
        load_recipe("tecao", modality="thermal")
    with pytest.raises(FieldError, match="no stage 3"):
        load_recipe("rlbind", 3, modality="thermal")
    with pytest.raises(UnknownName, match="modality"):
        load_recipe("rlbind", modality="thermic")


def test_a_run_is_reproducible_and_its_folder_is_a_model(tmp_path: Path) -> None:
    steps: list[Step] = []
    lines: list[str] = []
    common = {"modalities": ["thermal"], "overrides": TINY}
    first = train("languagebind", out=tmp_path / "a", report=steps.append, announce=lines.append, **common)
    assert lines == ["languagebind, thermal: from random weights, 1 epochs of up to 64 examples"]
    second = train("languagebind", modalities=["thermal"], out=tmp_path / "b", overrides=TINY)
    other = train("languagebind", modalities=["thermal"], out=tmp_path / "c", overrides={**TINY, "seed": 1})
    models = [resolve(str(path)) for path in (first, second, other)]
    assert models[0].sha256 == models[1].sha256 != models[2].sha256
    shown = [(s.what, s.step, s.steps) for s in steps]
    assert shown == [("example", 64, 64), ("step", 1, 2), ("step", 2, 2)]
    assert set(steps[-1].val) == {"clean", "robust", "unseen"}
    assert [json.loads(line)["step"] for line in (first / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    encoder = load_encoder(str(first), "thermal")
    x = torch.rand(2, 1, 32, 32)
    assert torch.allclose(encoder.embed(x, "thermal").norm(dim=1), torch.ones(2), atol=1e-5)
    tuned = train(
        "fare",
        modalities=["thermal"],
        out=tmp_path / "d",
        overrides={**TINY, "init": str(first), "original": str(first)},
    )
    assert resolve(str(tuned)).sha256 != models[0].sha256
    with pytest.raises(RLBenchError, match="exists"):
        train("fare", modalities=["thermal"], out=first, overrides=TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RLBenchError, match="loss is nan at step"):
        train("languagebind", modalities=["thermal"], out=tmp_path / "a", overrides={**TINY, "lr": 1e30, "epochs": 8})
    with pytest.raises(UnknownName):
        train("fare", modalities=["thermal"], out=tmp_path / "a", overrides={**TINY, "init": "nothing"})
    with pytest.raises(CheckpointError, match="not a mini encoder"):
        train("languagebind", modalities=["image"], out=tmp_path / "a", overrides={**TINY, "init": "linear"})
    with pytest.raises(ModalityError, match="no depth"):
        train("languagebind", modalities=["depth"], out=tmp_path / "a", overrides=TINY)
    assert not list(tmp_path.iterdir())


def test_a_suites_own_data_trains_a_backbone(tmp_path: Path) -> None:
    """A task with a fixed train split of 40 and no unseen classes: epochs of 64 go round it."""
    from rlbench.core import Suite

    world = registry.make("task", "thermal-world", {})

    class Small(type(world)):
        def size(self, split):
            return {"train": 40, "val": 16, "test": 0}[split]

    suite = Suite(
        name="small",
        version=1,
        summary="",
        modality="thermal",
        task_name="small",
        task=Small(),
        perturbations=(),
        examples=1,
        seed=0,
        path="",
    )
    steps: list[Step] = []
    out = train("languagebind", suite=suite, out=tmp_path / "a", overrides={**TINY, "epochs": 2}, report=steps.append)
    assert steps[-1].steps == 4 and set(steps[-1].val) == {"clean", "robust"}
    assert resolve(str(out)).data == "the train split of suite small"
    with pytest.raises(ModalityError, match="can't train audio"):
        train("languagebind", suite=suite, modalities=["audio"], out=tmp_path / "b", overrides=TINY)


def test_a_run_says_where_it_starts() -> None:
    """Stage 2 takes the bundled stage 1 unless it is told otherwise."""
    text = described(load_recipe("rlbind", 2, modality="video"))
    assert text == "from fare:mini (the bundled one), 3 epochs of up to 6000 examples, Linf 2/255 by PGD-3"
    assert "bundled" not in described(load_recipe("rlbind", 2, modality="video", overrides={"init": "runs/fare"}))
