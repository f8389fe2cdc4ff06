"""One work unit: clean errors stay errors, attacks are verified, and a broken contract fails the cell."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from affine_bench import Affine, Crash, N, Points, adversarial, bench, done
from torch import Tensor

from rlbench.core import Box, Composed, Corrupted, Examples, Worst, registry
from rlbench.core.errors import DataError, RLBenchError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.stats.metrics import margin
from rlbench.encoders.loading import check_frozen
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.evaluate import Failure, evaluate
from rlbench.engine.block.inputs import corrupt
from rlbench.engine.cells.groups import Group, groups
from rlbench.store.blocks import Block


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(registry.entries())
    for kind, name, attribute in (("attack", "crash", "Crash"), ("corruption", "shift", "Shift")):
        table[kind, name] = registry.PluginInfo(kind, name, Crash.__module__, attribute, "")
    monkeypatch.setattr(registry, "entries", lambda: table)


def test_clean_is_the_classifier_itself() -> None:
    b = bench(7)
    block = done(b)[0]
    examples = b.suite.task.load(b.box, 0, N)
    logits = b.classifier(examples.x)
    assert block.correct.sum() == N - N // 5
    np.testing.assert_array_equal(block.prediction, logits.argmax(1))
    np.testing.assert_array_equal(block.clean, block.prediction)
    np.testing.assert_allclose(block.margin, margin(logits, examples.y), rtol=1e-4, atol=1e-5)
    assert (block.forwards == 1).all() and (block.backwards == 0).all() and (block.distance == 0).all()


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd-ce", "apgd-t"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eps_zero_is_the_clean_accuracy(attack: str, norm: str) -> None:
    b = bench()
    clean, zero = done(b)[0], done(b, adversarial(attack, "0", norm=norm))[0]
    assert isinstance(zero, Block)
    np.testing.assert_array_equal(zero.correct, clean.correct)
    np.testing.assert_array_equal(zero.prediction, clean.prediction)
    assert (zero.distance == 0).all()


def test_clean_errors_are_not_attacked_and_never_correct() -> None:
    b = bench()
    clean, block = done(b)[0], done(b, adversarial("pgd", "0.1"))[0]
    wrong = ~clean.correct
    assert wrong.sum() == N // 5
    assert not block.correct[wrong].any() and (block.forwards[wrong] == 0).all() and (block.distance[wrong] == 0).all()
    np.testing.assert_array_equal(block.prediction[wrong], clean.prediction[wrong])
    assert (block.forwards[clean.correct] >= 2).all() and block.correct.sum() < clean.correct.sum()


def test_an_example_broken_at_a_smaller_eps_stays_broken_at_a_larger() -> None:
    b = bench()
    small, middle, large = done(b, adversarial("pgd", "0.2", ladder=("0.1", "0.05")))
    for one, other in ((small, middle), (middle, large)):
        broken = ~one.correct & (one.backwards > 0)
        assert broken.any() and not other.correct[~one.correct].any()
        assert (other.backwards[broken] == 0).all() and (other.forwards[broken] == 0).all()
        np.testing.assert_array_equal(other.distance[broken], one.distance[broken])
    alone = done(b, adversarial("pgd", "0.05"))[0]
    np.testing.assert_array_equal(alone.correct, small.correct)


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_change_a_flag(size: int) -> None:
    chain = adversarial("pgd", "0.1", ladder=("0.05",))
    for one in (chain, adversarial("apgd-t", "0.07", steps=10), Composed(Corrupted("shift", 2), chain)):
        for some, other in zip(done(bench(size), one), done(bench(64), one), strict=True):
            np.testing.assert_array_equal(some.correct, other.correct)


@pytest.mark.parametrize("how", ["raise", "far", "box", "nan", "shape", "one", "dtype", "none", "idle"])
def test_a_bad_attack_fails_its_rung_and_the_larger_ones(how: str) -> None:
    attack = adversarial("crash", "0.2", ladder=("0.05", "0.1"), how=how, above=0.07)
    small, middle, large = done(bench(), attack)
    assert isinstance(small, Block) and isinstance(middle, Failure) and isinstance(large, Failure)
    assert "linf 0.1" in middle.reason and large == middle and "\n" not in middle.reason


def test_an_attack_cannot_change_the_inputs_of_the_judge() -> None:
    clean, tries = done(bench())[0], done(bench(), adversarial("crash", "0.1", how="tries"))[0]
    np.testing.assert_array_equal(tries.correct, clean.correct)
    inputs = done(bench(), adversarial("crash", "0.1", how="inputs"))[0]
    assert isinstance(inputs, Failure)  # x + 1, clamped, is outside the ball about the true x


@pytest.mark.parametrize("how", ["raise", "box", "nan", "shape", "dtype"])
def test_a_bad_corruption_fails_its_cells(how: str) -> None:
    bad = Corrupted("shift", 1, (("how", how),))
    assert [type(r) for r in done(bench(), bad)] == [Failure]
    composed = Composed(bad, adversarial("pgd", "0.1", ladder=("0.05",)))
    assert [type(r) for r in done(bench(), composed)] == [Failure, Failure]


def test_a_corruption_works_in_the_unit_box() -> None:
    box, x = Box(shape=(1, 2, 2), low=-1.0, high=3.0), torch.full((2, 1, 2, 2), 1.0)
    out = corrupt(x, Corrupted("shift", 2), box, ExampleStreams(0, ("a", "b")))
    torch.testing.assert_close(out, torch.full_like(x, 1.8))
    assert corrupt(x + 2, Corrupted("shift", 2), box, ExampleStreams(0, ("a", "b"))).max() == 3


def test_a_corrupted_cell_is_the_classifier_on_the_corrupted_input() -> None:
    b = bench()
    block = done(b, Corrupted("shift", 3))[0]
    examples = b.suite.task.load(b.box, 0, N)
    predicted = b.classifier((examples.x + 0.3).clamp(0, 1)).argmax(1)
    np.testing.assert_array_equal(block.prediction, predicted)
    np.testing.assert_array_equal(block.correct, predicted == examples.y)
    np.testing.assert_array_equal(block.clean, done(b)[0].prediction)
    assert np.isnan(block.distance).all()


def test_a_composed_cell_attacks_the_examples_that_are_correct_when_corrupted() -> None:
    b = bench()
    corrupted = done(b, Corrupted("shift", 5))[0]
    zero, some = done(b, Composed(Corrupted("shift", 5), adversarial("pgd", "0.1", ladder=("0",))))
    np.testing.assert_array_equal(zero.correct, corrupted.correct)
    assert some.correct.sum() < corrupted.correct.sum() and not some.correct[~corrupted.correct].any()
    assert corrupted.correct[~done(b)[0].correct].any()  # also those that only the corruption makes correct


def test_a_wide_box_scales_eps() -> None:
    wide = Box(shape=(1, 2, 2), low=-1.0, high=3.0)
    narrow_block, wide_block = (done(bench(box=box), adversarial("pgd", "0.1"))[0] for box in (None, wide))
    np.testing.assert_array_equal(narrow_block.correct, wide_block.correct)
    assert 0.1 < wide_block.distance.max() <= 0.4 * (1 + 1e-6)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_inputs_outside_the_box_are_an_error(value: float) -> None:
    b = bench()

    class Outside(Points):
        def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
            examples = super().load(box, start, stop, split)
            examples.x[1] = value
            return examples

    b = replace(b, suite=replace(b.suite, task=Outside(b.classifier.encoder)))
    with pytest.raises(DataError, match="box"):
        done(b)


def test_an_encoder_must_be_frozen_and_in_evaluation_mode() -> None:
    net = torch.nn.Linear(2, 2)
    for encoder in (net, type("Holder", (), {})()):
        if encoder is not net:
            encoder.tower = net
        net.train().requires_grad_(False)
        with pytest.raises(RLBenchError, match="training mode"):
            check_frozen(encoder, "m")
        net.eval().requires_grad_(True)
        with pytest.raises(RLBenchError, match="not frozen"):
            check_frozen(encoder, "m")
        net.eval().requires_grad_(False)
        check_frozen(encoder, "m")


def test_a_block_without_correct_examples_does_not_divide_by_zero() -> None:
    b = bench()
    clean = evaluate(b, [Group()], 0, N, None, lambda rows: None)[0]
    none = replace(clean, correct=np.zeros(N, dtype=bool))
    block = evaluate(b, groups([adversarial("apgd-t", "0.1")])[-1:], 0, N, none, lambda rows: None)[0]
    assert isinstance(block, Block) and not block.correct.any() and block.forwards.sum() == 0


def test_groups_compute_a_rung_once() -> None:
    ladder = [adversarial("pgd", e, ladder=rungs) for e, rungs in (("2", ()), ("4", ("2",)), ("8", ("2", "4")))]
    alone, other = adversarial("pgd", "4", norm="l2"), adversarial("apgd-ce", "4")
    found = groups([*ladder, alone, Corrupted("shift", 1), other, Worst(other.threat)])
    assert found == [
        Group(),
        Group(None, tuple(ladder)),
        Group(None, (alone,)),
        Group(Corrupted("shift", 1)),
        Group(None, (other,)),
    ]
    assert [str(m) for m in groups([ladder[2]])[1].members] == ["pgd linf 2", "pgd linf 4", "pgd linf 8"]


class Noisy(Affine):
    """Adds noise from the global generator, and declares it."""

    traits = frozenset({"randomised"})

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return super().embed(x, modality) + 0.3 * torch.randn(len(x), 4)


@pytest.mark.slow
def test_a_randomised_encoder_is_attacked_and_judged_by_its_expectation() -> None:
    """So its numbers are reproducible in any batch, and every pass is counted."""
    whole, small = (replace_encoder(bench(batch_size=size), Noisy) for size in (64, 7))
    one, other = (done(b, adversarial("pgd", "0.1", steps=2))[0] for b in (whole, small))
    assert not isinstance(one, Failure) and (one.correct == other.correct).all()
    assert np.allclose(one.margin, other.margin, atol=1e-5) and 0 < one.correct.sum() < (one.backwards > 0).sum()
    clean = evaluate(whole, [Group()], 0, N, None, lambda rows: None)[0]
    assert (clean.forwards == 20).all()


def replace_encoder(b: Bench, kind) -> Bench:
    encoder = kind(b.box)
    return replace(b, classifier=replace(b.classifier, encoder=encoder))
