"""Test-time defences: closed forms, randomness that a batch shares, gradients of every way, and bad input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan, cos
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import normalize

from rlbench.core import Box, registry
from rlbench.core.errors import DataError, RLBenchError
from rlbench.core.seeds import seed_globals
from rlbench.core.suite import load_suite
from rlbench.encoders.contract import check_fields
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Fronted
from rlbench.encoders.defences.clipure_cos import Clipure
from rlbench.encoders.defences.et3 import EnergyDescent
from rlbench.encoders.defences.hedge import Hedge
from rlbench.encoders.defences.ttc import Counterattack
from rlbench.encoders.defences.views import draw_views, take_surest
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.linear import BOX, Linear
from rlbench.encoders.models import load_encoder
from rlbench.encoders.retrieval import retriever
from rlbench.engine.attack.eot import Expectation
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import prepare

CPU = torch.device("cpu")
MADE = {name: registry.make("defence", name) for name in registry.names("defence")}
NAMES = sorted(name for name, defence in MADE.items() if isinstance(defence, ClassifierDefence))
BY_VIEWS = ("dbd", "r-tpt", "view-mean")


class Oracle(Linear):
    """The linear encoder, with an embedding of a prompt without a class."""

    def embed_text(self, prompts):
        return normalize(torch.ones(len(prompts), 5), dim=1)


PLAIN = ZeroShot(Oracle(), "image", torch.eye(5)[:4])  # type: ignore[arg-type]


def light(name: str) -> ClassifierDefence:
    """The defence with few views and, for ttp, a gate that all inputs fail."""
    fields = {"views": 6} if hasattr(MADE[name], "views") else {}
    more = {"dbd": {"lowest": 3}, "ttp": {"threshold": 1.0}}
    return replace(MADE[name], **fields, **more.get(name, {}))  # type: ignore[arg-type]


def pictures(n: int = 5) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(n, *BOX.shape, generator=torch.Generator().manual_seed(1))


def answer(defence: ClassifierDefence, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with torch.no_grad(), seed_globals(seed, CPU):
        return defence.predict(PLAIN, x)


def test_there_are_nine() -> None:
    assert len(NAMES) >= 9 and {"ttc", "ttp", "dbd", "et3", "hedge", "clipure-cos", *BY_VIEWS} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_batch_and_only_declared_ones_are_random(name) -> None:
    defence, x = light(name), pictures()
    whole = answer(defence, x)
    assert whole.shape == (5, 4) and whole.isfinite().all()
    assert torch.allclose(answer(defence, x[2:4]), whole[2:4], atol=1e-4)
    changed = float((answer(defence, x, seed=1) - whole).abs().max())
    assert (changed > 1e-3) == ("randomised" in defence.traits)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"clipure-cos"}))
def test_every_way_has_a_gradient_and_the_first_is_the_pipeline(name) -> None:
    ways = light(name).ways()
    assert ways[0].name == "pipeline"
    for way in ways:
        x = pictures().requires_grad_()
        with seed_globals(0, CPU):
            held = way.run(PLAIN, x)
        assert held.logits.shape == (5, 4) and held.slack.shape == (5,) and (held.slack >= 0).all()
        (gradient,) = torch.autograd.grad(held.logits[:, 0].sum(), x)
        assert (gradient.flatten(1) != 0).any(1).all(), way.name


@pytest.mark.parametrize("name", BY_VIEWS)
def test_all_views_of_a_constant_picture_are_equal(name) -> None:
    x = torch.linspace(0.2, 0.8, 3).view(3, 1, 1, 1).expand(3, *BOX.shape)
    assert torch.allclose(answer(light(name), x), PLAIN(x), atol=1e-4)


def test_views_are_the_input_and_crops_and_the_surest_have_the_least_entropy() -> None:
    x = pictures(2)
    first, *others = draw_views(x, 4)
    assert torch.equal(first, x) and len(others) == 3
    assert all(one.shape == x.shape and one.min() >= x.min() and one.max() <= x.max() for one in others)
    embedded = torch.stack([normalize(torch.tensor([[1.0, share, 0, 0, 0]]), dim=1) for share in (0.9, 0.1, 0.5)])
    kept = take_surest(PLAIN, embedded, 2)
    assert torch.equal(kept, embedded[[1, 2]])


def test_frozen_weights_of_views_change_the_gradient_and_not_the_values() -> None:
    x, runs = pictures().requires_grad_(), []
    for frozen in (False, True):
        with seed_globals(0, CPU):
            z = replace(light("r-tpt"), frozen=frozen).predict(PLAIN, x)
        runs.append((z, torch.autograd.grad(z[:, 0].sum(), x)[0]))
    assert torch.equal(runs[0][0], runs[1][0]) and not torch.allclose(runs[0][1], runs[1][1], rtol=1e-3)


def _angle(steps: int, half: bool = False) -> float:
    """The angle at the prompt's, after these steps from an embedding that is 80 degrees off."""
    t, start = torch.tensor([1.0, 0, 0]), torch.tensor([[cos(1.4), (1 - cos(1.4) ** 2) ** 0.5, 0.0]])

    class Fixed:
        boxes: ClassVar = {"image": Box(shape=(1, 1, 3))}
        traits: ClassVar = frozenset()
        logit_scale = 1.0

        def embed(self, x, modality):
            return start + 0 * x.flatten(1)

        def embed_text(self, prompts):
            return t.expand(len(prompts), 3)

    plain = ZeroShot(Fixed(), "image", torch.eye(3))  # type: ignore[arg-type]
    u = Clipure(steps=steps, half=half).embed(plain, torch.zeros(1, 1, 1, 3))[0]
    return float(torch.atan2(u[1], u[0]))


def test_clipure_rotates_by_atan_30_and_back() -> None:
    assert _angle(1) == pytest.approx(1.4 - atan(30), abs=1e-5)
    assert _angle(2) == pytest.approx(1.4, abs=1e-5) and _angle(10) == pytest.approx(1.4, abs=1e-4)


def test_clipure_as_released_has_no_gradient_and_in_float32_it_is_tiny() -> None:
    sizes = []
    for half in (True, False):
        x = pictures().requires_grad_()
        (gradient,) = torch.autograd.grad(Clipure(half=half).predict(PLAIN, x)[:, 0].sum(), x)
        sizes.append(float(gradient.abs().max()))
    (own,) = torch.autograd.grad(PLAIN(x)[:, 0].sum(), x)
    assert sizes[0] == 0 and 0 < sizes[1] < 1e-11 * float(own.abs().max())
    assert torch.allclose(answer(Clipure(half=False), x), PLAIN(x), atol=1e-2)


def test_energy_descent_stays_in_its_ball_lowers_the_energy_and_unrolls_to_the_same_values() -> None:
    x, defence = pictures(), EnergyDescent(radius=300.0)
    assert (answer(defence, x).logsumexp(1) > PLAIN(x).logsumexp(1)).all()
    grown = x.clone().requires_grad_()
    rolled = replace(defence, unroll=True).predict(PLAIN, grown)
    assert torch.allclose(rolled, answer(defence, x), atol=1e-3)
    (one,) = torch.autograd.grad(rolled[:, 0].sum(), grown)
    (other,) = torch.autograd.grad(defence.predict(PLAIN, grown)[:, 0].sum(), grown)
    assert not torch.allclose(one, other, rtol=1e-3)
    assert torch.allclose(answer(EnergyDescent(radius=1e-9), x), PLAIN(x), atol=1e-3)


def test_the_gate_of_ttc_leaves_noise_or_the_weighted_counterattack() -> None:
    x = pictures()
    still = Counterattack(threshold=0.0)
    with torch.no_grad(), seed_globals(0, CPU):
        noise, change = still._probe(PLAIN, x)
    assert (noise.abs() <= 4 / 255).all() and (change > 0).all()
    assert torch.allclose(answer(still, x), PLAIN(x + noise), atol=1e-4)
    moved = answer(Counterattack(threshold=9.0), x)
    assert (moved - PLAIN(x + noise)).abs().max() > 1e-2
    assert torch.allclose(answer(Counterattack(threshold=9.0, steps=0), x), PLAIN(x + noise), atol=1e-4)
    with torch.no_grad(), seed_globals(0, CPU):
        slacks = [way.run(PLAIN, x).slack for way in Counterattack(threshold=0.5).ways()[1:]]
    assert torch.allclose(slacks[0], 0.5 - change) and not slacks[1].any()


def test_the_gate_of_ttp_lets_an_input_pass_whose_embedding_hardly_moves() -> None:
    x, gated = pictures(), light("ttp")
    assert torch.allclose(answer(replace(gated, threshold=-1.0), x), PLAIN(x))
    assert (answer(gated, x) - PLAIN(x)).abs().max() > 1e-2
    with seed_globals(0, CPU):
        held = replace(gated, threshold=-1.0).ways()[1].run(PLAIN, x)
    assert torch.allclose(held.logits, PLAIN(x)) and not held.slack.any()


def test_hedge_lowers_no_logit_by_more_than_its_radius_allows() -> None:
    x = pictures()
    weights = Linear()._weights.abs().sum(1)
    far = 100 * 8 / 255 * float(weights.max())
    moved = (answer(Hedge(), x) - PLAIN(x)).abs().max()
    assert 0 < moved <= far * (1 + 1e-4)


@pytest.mark.parametrize("name", ["view-mean", "ttc"])
def test_an_expectation_in_batches_is_that_of_single_calls(name) -> None:
    fronted = Fronted(Linear(), light(name))  # type: ignore[arg-type]
    head, x = replace(PLAIN, encoder=fronted), pictures()
    with torch.no_grad():
        means = [
            Expectation(classifier=Meter(head, 5, batch_size=3), draws=4, together=together)(x)
            for together in (True, False)
        ]
    assert torch.allclose(*means, atol=1e-4) and fronted.shared_draws == 5


def test_a_bench_attacks_and_judges_the_expectation_of_five_shared_draws() -> None:
    bench = prepare(load_suite("smoke"), "linear+ttc")
    mean = bench.expect(Meter(bench.classifier, 2))
    assert isinstance(mean, Expectation) and mean.draws == 5 and mean.together
    assert prepare(load_suite("smoke"), "linear+et3").draws == 20


class Scores:
    """An encoder that gives scores only."""

    knowledge = "score"
    traits: frozenset = frozenset()


class Hard:
    """An encoder that declares that it has no gradient."""

    traits = frozenset({"non_differentiable"})


@pytest.mark.parametrize("encoder", [Scores(), Hard()])
def test_a_defence_that_takes_gradients_refuses_an_encoder_without_any(encoder) -> None:
    with pytest.raises(RLBenchError, match=r"box\+ttc takes gradient steps .* such as \+view-mean"):
        MADE["ttc"].around(encoder, "box+ttc")
    assert MADE["view-mean"].around(encoder, "box+view-mean").sibling is encoder


@dataclass(frozen=True, kw_only=True)
class Memory(ClassifierDefence):
    """Adds up the inputs that it has seen."""

    traits = frozenset({"stateful"})
    seen: tuple[list[torch.Tensor], ...] = ()

    def predict(self, plain, x):
        self.seen[0].extend(x)
        return plain.score(torch.stack([sum(self.seen[0]) / 9 for _ in x]))


@dataclass(frozen=True, kw_only=True)
class Forgetful(Memory):
    """A memory that can be reset."""

    def reset(self):
        self.seen[0].clear()


def test_a_stateful_defence_is_refused_unless_it_can_be_reset() -> None:
    with pytest.raises(RLBenchError, match=r"keeps state between inputs.*only a defence with reset\(\)"):
        Memory(seen=([],)).around(Linear(), "linear+memory")  # type: ignore[arg-type]
    fronted, x = Forgetful(seen=([],)).around(Linear(), "linear+forgetful"), pictures()  # type: ignore[arg-type]
    assert torch.allclose(fronted.predict(replace(PLAIN, encoder=fronted), x), PLAIN(x / 9), atol=1e-4)


class Counting(Oracle):
    """An encoder that adds up its inputs."""

    traits: ClassVar = frozenset({"stateful"})  # type: ignore[assignment]
    total: float | torch.Tensor = 0.0

    def embed(self, x, modality):
        self.total = self.total + x.sum(0, keepdim=True) / 9
        return super().embed(self.total.expand_as(x), modality)


class Resetting(Counting):
    """A counting encoder that can be reset."""

    def reset(self):
        self.total = 0.0


def test_a_stateful_encoder_is_refused_unless_it_can_be_reset() -> None:
    with pytest.raises(RLBenchError, match=r"own keeps state between inputs.*needs reset\(\)"):
        check_fields(Counting(), "own")  # type: ignore[arg-type]
    check_fields(Resetting(), "own")  # type: ignore[arg-type]
    head, x = replace(PLAIN, encoder=Resetting()), pictures()
    assert torch.allclose(head(x), PLAIN(x / 9), atol=1e-4)


def test_a_defence_of_classes_does_no_retrieval() -> None:
    @dataclass
    class Gallery:
        captions = (("top left",), ("top right",))

    from rlbench.encoders.retrieval import head_of

    with pytest.raises(DataError, match="acts on a task's classes"):
        head_of(load_encoder("linear+et3"), "image", Gallery())  # type: ignore[arg-type]
    assert retriever(load_encoder("linear+view-mean"), "image", Gallery.captions)(pictures(1)).shape == (1, 2)
