"""Options that every method takes: the one-step adversary with its watch, and adversarial weight perturbation."""

import copy
from itertools import product

import pytest
import torch
import yaml
from accelerate import Accelerator
from torch import Tensor, nn

from rlbench.core import Ball
from rlbench.core.errors import FieldError
from rlbench.training.adversary import attack_once
from rlbench.training.awp import list_perturbed, perturb, scale_perturbation
from rlbench.training.collapse import SETTLED, CollapseWatch
from rlbench.training.loop import Trainer
from rlbench.training.losses import Rows
from rlbench.training.memory import Memory
from rlbench.training.prepare import prepare
from rlbench.training.recipe import describe, load_recipe
from rlbench.training.run import train

TINY = {"examples": 32, "epochs": 1, "batch": 16, "attack_steps": 2, "validation": 16, "init": "fare:mini"}


def _trainer(method: str, **overrides: object) -> Trainer:
    run = prepare(load_recipe(method, modality="thermal", overrides={**TINY, **overrides}), "thermal")
    trainer = Trainer(run, Accelerator(cpu=True), Memory())
    trainer.start(0)
    return trainer


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.tower.state_dict().items()}


def _distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_one_step_from_noise_goes_beyond_the_ball_but_not_the_box() -> None:
    """The gradient of |v - c|^2 is taken at the noisy start; x_adv is up to three radii from x."""
    g = torch.Generator().manual_seed(0)
    x, c, noise = (torch.rand(6, 1, 8, 8, generator=g, dtype=torch.float64) for _ in range(3))
    noise, ball, calls = 2 * noise - 1, Ball("linf", 0.1, 0.0, 1.0), []

    def loss(v: Tensor) -> Tensor:
        calls.append(v.detach())
        return (v - c).square().flatten(1).sum(1)

    found = attack_once(x, loss, ball, noise=noise)
    start = (x + 0.2 * noise).clamp(0, 1)
    assert len(calls) == 1 and torch.equal(calls[0], start)
    assert torch.allclose(found.gradient, 2 * (start - c))
    assert torch.allclose(found.x_adv, (start + 0.1 * (start - c).sign()).clamp(0, 1))
    assert not found.x_adv.requires_grad and 0.2 < (found.x_adv - x).abs().max() <= 0.3
    assert found.x_adv.min() == 0 and found.x_adv.max() == 1


OPTIONS = ({"adversary": "n-fgsm"}, {"awp": 0.01}, {"adversary": "n-fgsm", "awp": 0.01, "accumulate": 2})

VOLUME = {"awp": 0.01, "extras.gram-volume": 0.5}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *product(["rlbind"], OPTIONS),
        *product(["pmg-aft"], OPTIONS[1:]),
        ("tecoa", OPTIONS[1]),
        ("ucat", OPTIONS[2]),
        ("tecoa", VOLUME),
    ],
)
def test_the_counts_of_passes_are_those_of_a_step(method: str, options: dict, monkeypatch) -> None:
    trainer = _trainer(method, **options)
    own, forwards, backwards = trainer.losses.features, [0], [0]

    def features(model: nn.Module, x: Tensor) -> Tensor:
        f = own(model, x)
        forwards[0] += len(x)
        if f.requires_grad:
            f.register_hook(lambda gradient: backwards.__setitem__(0, backwards[0] + len(gradient)))
        return f

    monkeypatch.setattr(trainer.losses, "features", features)
    trainer.step(0)
    assert (forwards[0], backwards[0]) == tuple(16 * n for n in trainer.run.recipe.passes())


def test_the_volume_compares_with_the_features_before_the_perturbation(monkeypatch) -> None:
    trainer = _trainer("tecoa", **VOLUME)
    own, tower, seen = trainer.losses.of_rows, copy.deepcopy(trainer.tower), []

    def of_rows(rows: Rows) -> Tensor:
        seen.append((rows, trainer.tower(rows.x_adv).detach()))
        return own(rows)

    monkeypatch.setattr(trainer.losses, "of_rows", of_rows)
    trainer.step(0)
    (rows, perturbed) = seen[0]
    before = tower(rows.x_adv).detach()
    assert torch.allclose(rows.batch.f_adv_before, before, rtol=1e-4, atol=1e-5)
    assert (perturbed - before).abs().max() > 1e-3 * before.abs().max()


def test_a_method_without_an_adversary_counts_its_passes_too() -> None:
    recipe = load_recipe("languagebind", modality="thermal", overrides={"awp": 0.01})
    assert recipe.passes() == (3, 2) and load_recipe("languagebind", modality="thermal").passes() == (1, 1)


def test_a_perturbation_has_a_share_of_each_layers_norm_and_is_undone_bit_by_bit() -> None:
    weights = {"a": nn.Parameter(torch.tensor([[3.0, 4.0]])), "b": nn.Parameter(torch.tensor([[0.1, 0.7]]))}
    v = scale_perturbation(weights, {"a": torch.tensor([[0.0, -2.0]]), "b": torch.zeros(1, 2)}, 0.01)
    assert torch.allclose(v["a"], torch.tensor([[0.0, -0.05]])) and torch.equal(v["b"], torch.zeros(1, 2))
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with pytest.raises(KeyError), perturb(weights, {"a": torch.full((1, 2), 1e9)}):
        assert torch.equal(weights["a"], before["a"] + 1e9) and torch.equal(weights["b"], before["b"])
        raise KeyError
    assert all(torch.equal(weights[name], value) for name, value in before.items())


def test_awp_takes_the_gradient_at_weights_that_raise_the_loss() -> None:
    """A step of SGD, against the same step worked out by hand with a second trainer."""
    given = {"optimiser": "sgd", "lr": 0.1, "warmup": 0.0, "weight_decay": 0.1}
    trainer, other = _trainer("rlbind", awp=0.02, **given), _trainer("rlbind", **given)
    (part,) = next(other.loaders[0])
    ready = list(other.losses.craft([part]))
    weights, before = list_perturbed(other.tower), _weights(other)
    f_adv = other.tower(ready[0].x_adv)
    raised = ready[0].stream.objective.adversary_loss(f_adv, ready[0].f.detach(), ready[0].batch).mean()
    gradients = torch.autograd.grad(raised, list(weights.values()))
    assert len(weights) < len(list(other.tower.parameters()))
    with torch.no_grad():
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight += 0.02 * weight.norm() / gradient.norm() * gradient
    f, f_adv = other.tower(ready[0].x), other.tower(ready[0].x_adv)
    objective, batch = ready[0].stream.objective, ready[0].batch
    loss = objective.loss(f, f_adv, batch).mean()
    assert objective.adversary_loss(f_adv, ready[0].f.detach(), batch).mean() > 1.01 * raised
    named = dict(other.tower.named_parameters())
    slopes = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    expected = {name: value - 0.1 * (slopes[name] + 0.1 * value) for name, value in before.items()}
    assert trainer.step(0) == pytest.approx(loss.item(), rel=1e-5)
    assert _distance(_weights(trainer), expected) < 1e-3 * _distance(before, expected)


@pytest.mark.parametrize("method", ["tecoa", "rlbind"])
def test_accumulated_parts_are_perturbed_as_the_whole(method: str) -> None:
    found = []
    for parts in (1, 2):
        trainer = _trainer(method, accumulate=parts, optimiser="sgd", lr=0.01, awp=0.01, adversary="n-fgsm")
        found.append(([trainer.step(0)], [trainer.cosine], _weights(trainer)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5) and found[0][1] == pytest.approx(found[1][1], rel=1e-4)
    before = _weights(_trainer(method))
    assert _distance(found[0][2], found[1][2]) < 1e-3 * _distance(found[0][2], before)


@pytest.mark.slow
def test_of_low_rank_updates_only_the_factors_are_perturbed() -> None:
    trainer = _trainer("tecoa", lora=2, awp=0.05, lr=0.01, epochs=2)
    before = _weights(trainer)
    assert all(".lora_" in name for name in list_perturbed(trainer.tower))
    losses = [trainer.step(k) for k in range(3)]
    plain = _trainer("tecoa", lora=2, lr=0.01, epochs=2)
    assert losses[0] == pytest.approx(plain.step(0), rel=1e-6)  # one factor of each update is 0 at first
    assert [plain.step(k) for k in (1, 2)] != losses[1:]
    moved = [name for name, value in _weights(trainer).items() if not torch.equal(value, before[name])]
    assert moved and all(".lora_" in name for name in moved)


def test_the_watch_measures_the_cosine_of_both_gradients() -> None:
    watch = CollapseWatch()
    assert watch.measure() is None
    end = watch.add(torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]]]), torch.zeros(2, 1, 2))
    (end * torch.tensor([[[4.0, 3.0]], [[0.0, -1.0]]])).sum().backward()
    assert watch.measure() == pytest.approx((0.96 - 1) / 2) and watch.measure() is None


def test_a_collapse_is_announced_once(caplog) -> None:
    watch = CollapseWatch()
    for k in range(60):
        watch.follow(0.6, k + 1, "thermal")
    assert not caplog.text
    for k in range(60, 200):
        watch.follow(0.0, k + 1, "thermal")
    assert caplog.text.count("may have collapsed") == 1
    assert "thermal: training with one adversarial step may have collapsed at step 88" in caplog.text
    steady = CollapseWatch()
    for k in range(SETTLED * 4):
        steady.follow(0.05, k + 1, "audio")
    assert caplog.text.count("may have collapsed") == 1


def test_the_log_has_the_cosine_of_the_one_step_adversary(tmp_path, metrics, no_curves) -> None:
    """Also, a finished run of a release that had fewer fields is still this recipe's."""
    given = {"modalities": ["thermal"], "overrides": {**TINY, "adversary": "n-fgsm"}}
    lines = metrics(train("tecoa", out=tmp_path / "a", **given))
    assert len(lines) == 2 and all(0 < line["cosine"] < 1 for line in lines)
    older = {"modalities": ["thermal"], "overrides": {**TINY, "attack_steps": 1}}
    out = train("tecoa", out=tmp_path / "b", **older)
    assert all("cosine" not in line for line in metrics(out))
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    for name in ("adversary", "awp"):
        del recipe["recipes"]["thermal"][name]
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    said: list[str] = []
    train("tecoa", out=out, announce=said.append, **older)
    assert said == [f"{out} is finished: nothing is left to train"]


@pytest.mark.parametrize(
    ("method", "values", "text"),
    [
        ("tecoa", {"adversary": "fgsm"}, "one of pgd, n-fgsm"),
        ("tecoa", {"awp": -0.1}, "awp is -0.1; it must be a share"),
        ("languagebind", {"adversary": "n-fgsm"}, "infonce trains without an adversary; leave `adversary` out"),
    ],
)
def test_the_fields_of_options_are_checked(method: str, values: dict, text: str) -> None:
    with pytest.raises(FieldError, match=text):
        load_recipe(method, modality="thermal", overrides=values)


def test_a_run_announces_its_options() -> None:
    text = describe(load_recipe("tecoa", modality="thermal", overrides={"adversary": "n-fgsm", "awp": 0.005}))
    assert text.endswith(", Linf 4/255 by N-FGSM, AWP 0.005")
