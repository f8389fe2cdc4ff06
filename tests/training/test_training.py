"""Recipes, the loop and its adversary, on mini towers."""

from dataclasses import replace
from itertools import count

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Ball, Label
from rlbench.core.errors import FieldError, RLBenchError, UnknownName
from rlbench.core.threat import violation
from rlbench.encoders.models import load_encoder
from rlbench.training import losses as row_losses
from rlbench.training.adversary import attack_batch
from rlbench.training.loop import Trainer
from rlbench.training.means import ClassMeans
from rlbench.training.memory import Memory, Origin
from rlbench.training.optimiser import compute_lr_factor
from rlbench.training.peers import Peers
from rlbench.training.prepare import prepare
from rlbench.training.recipe import describe, list_methods, load_recipe
from rlbench.training.types import Batch

TINY = {"examples": 64, "epochs": 1, "batch": 32, "attack_steps": 1, "validation": 32}
MODALITIES = ("image", "thermal", "audio", "video")
STAGES = [(method, stage) for method, stages in list_methods().items() for stage in stages or (None,)]


def _trainer(method: str, stage: int | None = None, modality: str = "thermal", **overrides: object) -> Trainer:
    given = {**TINY, "init": "fare:mini", **overrides}
    if method == "languagebind":
        given["init"] = "random"
    run = prepare(load_recipe(method, stage, modality=modality, overrides=given), modality)
    trainer = Trainer(run, Accelerator(cpu=True), Memory())
    trainer.start(0)
    return trainer


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.tower.state_dict().items()}


@pytest.mark.parametrize(("method", "stage"), STAGES)
def test_every_recipe_loads_for_every_modality(method: str, stage: int | None) -> None:
    recipes = {m: load_recipe(method, stage, modality=m) for m in MODALITIES}
    assert all(recipe.objective_plugin.needs and recipe.backbone == "mini" for recipe in recipes.values())
    if "f_adv" in recipes["image"].objective_plugin.needs:
        assert (recipes["image"].eps, recipes["video"].eps) == ("4/255", "2/255")


def test_the_last_stage_is_the_default_and_all_methods_have_equal_length() -> None:
    assert list_methods()["rlbind"] == (1, 2) and list_methods()["fare"] == ()
    two, one = (load_recipe("rlbind", stage, modality="image") for stage in (2, 1))
    assert load_recipe("rlbind", modality="image") == two
    for method in ("fare", "tecoa", "pmg-aft", "agft", "advflyp", "ucat"):
        other = load_recipe(method, modality="image")
        assert (one.epochs + two.epochs, two.examples) == (other.epochs, other.examples)


def test_the_recipes_of_scenes_differ_from_those_of_mini_only_where_they_must() -> None:
    """The same lengths, one radius per sensor for all methods, and starts of the same world."""
    for method, stages in list_methods().items():
        for stage, m in [(stage, m) for stage in stages or (None,) for m in MODALITIES]:
            own, mini = (load_recipe(method, stage, modality=m, backbone=b) for b in ("mini-scenes", "mini"))
            assert own.world == "scenes" and own.objective_name == mini.objective_name
            if method != "languagebind":
                assert own.init == mini.init + "-scenes" and (own.epochs, own.batch) == (mini.epochs, mini.batch)
                assert own.eps == ("2/255" if m in ("thermal", "audio") else "1/255") and own.examples == 3000


def test_overrides_reach_the_recipe_and_its_objective() -> None:
    recipe = load_recipe("rlbind", 2, modality="audio", overrides={"lr": 1, "objective.tau": 3, "objective.clean": 0})
    assert recipe.lr == 1 and (recipe.objective_plugin.tau, recipe.objective_plugin.clean) == (3, 0)
    assert load_recipe("tecoa", modality="audio", overrides={"objective.scale": 7}).objective_plugin.scale == 7
    assert load_recipe("tecoa", modality="audio", overrides={"objective": "infonce"}).objective_plugin.needs == {"f"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lrr": 1.0}, "did you mean 'lr'"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": 0.0}, "above 0"),
        ({"lr": float("nan")}, "must be a finite number"),
        ({"epochs": 0}, "at least 1"),
        ({"warmup": 2.0}, "share"),
        ({"ema": 1.0}, "below 1"),
        ({"eps": "4/0"}, "eps"),
        ({"lora": -1}, "negative"),
        ({"accumulate": 7}, "equal parts"),
        ({"precision": "fp16"}, "one of fp32, bf16"),
        ({"objective.tua": 1}, "did you mean 'tau'"),
        ({"objective.tau": -1}, "tau is -1"),
        ({"optimiser.lr": 1}, "only `objective` and `extras` have fields"),
        ({"original": None}, "needs `original`"),
    ],
)
def test_recipe_fields_are_checked(values: dict, text: str) -> None:
    with pytest.raises(FieldError, match=text):
        load_recipe("rlbind", modality="thermal", overrides=values)


def test_unknown_methods_stages_modalities_and_objectives() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tecoa'"):
        load_recipe("tecao", modality="thermal")
    with pytest.raises(FieldError, match="no stage 3"):
        load_recipe("rlbind", 3, modality="thermal")
    with pytest.raises(FieldError, match="for tiny"):
        load_recipe("rlbind", backbone="tiny", modality="thermal")
    with pytest.raises(UnknownName, match="modality"):
        load_recipe("rlbind", modality="thermic")
    with pytest.raises(UnknownName, match="did you mean 'fare'"):
        load_recipe("rlbind", modality="thermal", overrides={"objective": "fares"})


def test_a_run_announces_its_starting_weights() -> None:
    start = {"init": "fare:mini", "epochs": 2, "attack_steps": 3}
    text = describe(load_recipe("rlbind", 2, modality="video", overrides=start))
    assert text == "from fare:mini (the bundled one), 2 epochs of up to 6000 examples, Linf 2/255 by PGD-3"
    assert "bundled" not in describe(load_recipe("rlbind", 2, modality="video", overrides={"init": "runs/fare"}))
    text = describe(load_recipe("languagebind", modality="video", overrides={"steps": 7}))
    assert text == "from random weights, 7 steps"


def test_the_rate_warms_up_and_ends_near_0() -> None:
    rates = [compute_lr_factor(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001
    assert rates[55] == pytest.approx(0.5)


def test_the_adversary_ascends_within_the_ball_to_its_corner() -> None:
    g = torch.Generator().manual_seed(0)
    x, centre, noise = (torch.rand(8, 1, 8, 8, generator=g) for _ in range(3))
    ball = Ball("linf", 8 / 255, 0.0, 1.0)

    def loss(v: Tensor) -> Tensor:
        return (v - centre).square().flatten(1).sum(1)

    near, far = (attack_batch(x, loss, ball, noise=2 * noise - 1, steps=k, step=0.5) for k in (1, 6))
    assert violation(far, x, ball) is None and not far.requires_grad
    assert (loss(far) > loss(near)).all() and (loss(near) > loss(x)).all()
    assert torch.allclose(loss(far), loss((x + 8 / 255 * (x - centre).sign()).clamp(0, 1)), rtol=1e-3)


ASCENTS = [(*pair, "thermal") for pair in STAGES if pair[0] != "languagebind"]
ASCENTS += [("rlbind", 2, modality) for modality in ("image", "audio", "video")]


@pytest.mark.parametrize(("method", "stage", "modality"), ASCENTS)
def test_the_inner_attack_ascends_its_own_loss_at_every_step(method, stage, modality, monkeypatch) -> None:
    """In the loop itself, from the bundled towers: the loss after each step, with PGD-3 and the recipe's attack."""
    means: list[float] = []

    def watched(x: Tensor, raised, ball: Ball, *, steps: int, **rest) -> Tensor:
        for k in range(steps + 1):
            x_adv = attack_batch(x, raised, ball, steps=k, **rest)
            assert violation(x_adv, x, ball) is None and (x_adv - x).abs().max() > 0.4 * ball.radius
            means.append(raised(x_adv).mean().item())
        return x_adv

    monkeypatch.setattr(row_losses, "attack_batch", watched)
    own = load_recipe(method, stage, modality=modality)
    for steps, length in ((3, 0.5), (own.attack_steps, own.attack_step)):
        means.clear()
        _trainer(method, stage, modality, attack_steps=steps, attack_step=length).step(0)
        assert len(means) == steps + 1 and means == sorted(means) and means[-1] > 1.1 * means[0] > 0


def test_the_average_equals_one_worked_out_by_hand() -> None:
    trainer = _trainer("fare", ema=0.8, epochs=2)
    own = []
    for k in range(4):
        trainer.step(k)
        own.append(_weights(trainer))
    with trainer.result_weights():
        result = _weights(trainer)
    for name, last in trainer.tower.state_dict().items():
        by_hand = own[0][name]
        for after in own[1:]:
            by_hand = 0.8 * by_hand + 0.2 * after[name]
        assert torch.allclose(result[name], by_hand, atol=1e-6) and torch.equal(last, own[-1][name])
    assert any(not torch.allclose(result[name], own[-1][name], atol=1e-4) for name in result)


@pytest.mark.parametrize("method", ["fare", "tecoa"])
def test_accumulated_parts_give_the_weights_of_the_whole(method: str) -> None:
    """A mean over examples is the mean of its halves. With SGD, since AdamW would turn rounding errors into signs."""
    found = []
    for parts in (1, 2):
        trainer = _trainer(method, accumulate=parts, optimiser="sgd", lr=0.01)
        losses = [trainer.step(k) for k in range(2)]
        found.append((losses, _weights(trainer)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    before = load_encoder("fare:mini", "thermal").tower("thermal").state_dict()
    moved = max(float((found[0][1][name] - before[name]).abs().max()) for name in before)
    apart = max(float((found[0][1][name] - found[1][1][name]).abs().max()) for name in before)
    assert apart < 1e-3 * moved


@pytest.mark.parametrize("method", ["fare", "tecoa"])
def test_a_step_that_runs_out_of_memory_takes_smaller_parts_of_the_same_batch(method: str, monkeypatch, caplog) -> None:
    found, before = [], load_encoder("fare:mini", "thermal").tower("thermal").state_dict()
    for most in (100, 9):
        trainer = _trainer(method, optimiser="sgd", lr=0.01)
        own = trainer.losses.features
        calls = count(1)

        def features(model, x, own=own, most=most, calls=calls):
            if len(x) > most and next(calls) % 3 == 0:  # in the middle of a step
                raise torch.OutOfMemoryError("planned")
            return own(model, x)

        monkeypatch.setattr(trainer.losses, "features", features)
        losses = [trainer.step(k) for k in range(2)]
        found.append((losses, _weights(trainer), trainer.pieces))
    assert (found[0][2], found[1][2]) == (1, 4)
    assert "each micro-batch is taken in 4 parts from now on" in caplog.text
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    moved = max(float((found[0][1][name] - before[name]).abs().max()) for name in before)
    apart = max(float((found[0][1][name] - found[1][1][name]).abs().max()) for name in before)
    assert apart < 1e-3 * moved


def test_a_row_that_does_not_fit_says_what_to_do(monkeypatch) -> None:
    trainer = _trainer("fare")

    def features(model, x):
        raise torch.OutOfMemoryError("planned")

    monkeypatch.setattr(trainer.losses, "features", features)
    with pytest.raises(RLBenchError, match="memory ran out with 1 rows at a time; give a larger accumulate"):
        trainer.step(0)


def test_replayed_examples_have_no_labels_and_their_own_weight() -> None:
    """A quarter of the batch is from the clean domain, from all classes, and keeps the original's distribution."""
    trainer = _trainer("tecoa", replay=0.25, replay_weight=5.0, original="languagebind:mini", prompts="subset")
    own, replayed = trainer.run.streams
    assert (own.size, replayed.size, len(own.classes), len(replayed.classes)) == (24, 8, 10, 16)
    assert replayed.data.task.domain == "web" and replayed.data.y.max() > own.data.y.max()
    parts = [next(loader)[0] for loader in trainer.loaders]
    ready = list(trainer.losses.craft(parts))
    losses = [trainer.losses.of_rows(rows) for rows in ready]
    assert [len(values) for values in losses] == [24, 8]
    expected = (losses[0].sum() + 5 * losses[1].sum()) / 32
    assert trainer.losses.mean(ready).item() == pytest.approx(expected.item(), rel=1e-5)
    other = replace(parts[1], y=(parts[1].y + 3) % 16)
    assert torch.equal(trainer.losses.of_rows(trainer.losses.craft_rows(replayed, other)), losses[1])
    with pytest.raises(FieldError, match="leaves a part of them empty"):
        _trainer("tecoa", replay=0.01, original="languagebind:mini")


def test_peers_are_the_other_modalities_of_the_same_examples() -> None:
    peers, at = Peers(), torch.tensor
    peers.update("image", at([2, 0]), at([[3.0, 4.0], [0.0, 2.0]]), 3)
    assert peers.look_up("image", at([0, 2]), torch.ones(2, 2)).shape == (0, 2, 2)
    peers.update("audio", at([2]), at([[5.0, 0.0]]), 3)
    found = peers.look_up("thermal", at([1, 2]), torch.ones(2, 2))
    assert torch.allclose(found, at([[[0.0, 0.0], [0.6, 0.8]], [[0.0, 0.0], [1.0, 0.0]]]))
    peers.update("audio", at([2]), at([[0.0, -1.0]]), 3)
    assert torch.allclose(peers.look_up("image", at([2]), torch.ones(1, 2)), at([[[0.0, -1.0]]]))


def test_the_memory_gives_what_an_objective_needs() -> None:
    """Clean features reach the same step, adversarial ones the next; an objective gets only what it needs."""
    memory, at = Memory(), torch.tensor
    classes = (Label("dog", "dog"), Label("cat", "cat"))
    rows = {m: Origin(m, classes, at([0, 1]), 2) for m in ("image", "audio")}
    batch = Batch(y=at([0, 1]), anchors=torch.eye(2), captions=torch.eye(2))
    clean, adversarial = at([[2.0, 0.0], [0.0, 3.0]]), at([[0.0, 4.0], [1.0, 0.0]])
    every = {"means", "peers", "means_adv", "peers_adv"}
    first = memory.exchange(clean, rows["image"], batch, every)
    assert torch.equal(first.means, torch.eye(2)) and torch.equal(first.peers, torch.zeros(2, 2))
    assert torch.equal(first.means_adv, torch.eye(2)) and first.peers_adv.shape == (0, 2, 2)
    memory.remember(adversarial, rows["image"], batch, every)
    second = memory.exchange(clean, rows["audio"], batch, every)
    assert torch.equal(second.peers, torch.eye(2))
    assert torch.equal(second.means_adv, torch.eye(2).flip(0))
    assert torch.equal(second.peers_adv, torch.eye(2).flip(0)[None])
    restored = Memory()
    restored.restore(memory.state(), torch.device("cpu"))
    third = restored.exchange(clean, rows["audio"], batch, {"peers_adv"})
    assert torch.equal(third.peers_adv, second.peers_adv)
    assert third.means is third.peers is third.means_adv is None


def test_means_join_classes_by_name() -> None:
    """Two modalities share a class; a class without examples keeps its anchor."""
    means, anchors = ClassMeans(), torch.eye(3)
    dog, cat, owl = (Label(name, name) for name in ("dog", "cat", "owl"))
    means.update("image", [dog, cat], torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([0, 1]))
    means.update("audio", [owl, dog], torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([1]))
    expected = normalize(torch.tensor([[0.3, 0.9, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), dim=1)
    assert torch.allclose(means.look_up([dog, cat, owl], anchors), expected)
    means.update("image", [dog], torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0]))
    assert torch.allclose(means.rows["dog"]["image"], torch.tensor([0.54, 0.72, 0.1]))
