"""Search in low precision, judge in float32: what is confirmed, what is searched again, what records say."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from affine_bench import adversarial, bench, done
from torch import Tensor

import rlbench
from rlbench.core import Adversarial, Composed, Corrupted, Threat, Worst
from rlbench.core.errors import FieldError, SuiteError
from rlbench.core.machine import full_float32, search_float32
from rlbench.core.precision import Precision
from rlbench.core.suite import load_suite
from rlbench.core.threat import search_in
from rlbench.engine.attack.exact import AGAIN, BROKE, Confirmed, lower
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import prepare
from rlbench.engine.cells.keys import protocol
from rlbench.engine.cells.knowledge import restrict
from rlbench.report.boards.leaderboard import load
from rlbench.report.boards.tables import frame, tables
from rlbench.store.perturbations import from_columns, from_mapping, to_columns, to_mapping


def flags() -> tuple[object, ...]:
    """All settings of float32 arithmetic."""
    kinds = [
        getattr(getattr(torch.backends, p), k, None) for p in ("cuda", "cudnn", "mkldnn") for k in ("matmul", "conv")
    ]
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        *(getattr(kind, "fp32_precision", None) for kind in kinds),
    )


def low(attack: Adversarial, precision: Precision = "bf16") -> Adversarial:
    return replace(attack, threat=replace(attack.threat, precision=precision))


def test_full_float32_really_is_and_tf32_is_only_in_its_search() -> None:
    before = flags()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        allowed = flags()
        with full_float32():
            exact = flags()
            assert exact[:3] == ("highest", False, False)
            assert not {"tf32", "bf16"} & set(exact)
            with search_float32("tf32"):
                assert flags()[:3] == ("high", True, True)
                with full_float32():
                    assert flags() == exact
            assert flags() == exact
            with search_float32("bf16"):
                assert flags() == exact
        assert flags() == allowed
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_the_flags_are_restored_after_an_error() -> None:
    before = flags()
    with pytest.raises(ZeroDivisionError), search_float32("tf32"):
        raise ZeroDivisionError
    assert flags() == before


class Off:
    """A classifier of 2 classes by the mean of x, whose logits move by `shift` towards class 1 in bf16."""

    def __init__(self, shift: float) -> None:
        self.shift, self.calls = shift, list[bool]()

    def __call__(self, x: Tensor) -> Tensor:
        rough = torch.is_autocast_enabled(x.device.type)
        self.calls.append(rough)
        score = x.flatten(1).mean(1) - 0.5 + self.shift * rough
        return torch.stack((-score, score), 1)


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_hits_are_those_of_float32_and_keep_the_gradient_of_the_search(shift: float) -> None:
    x, y = (
        torch.tensor([0.1, 0.4, 0.6]).view(3, 1, 1, 1).expand(3, 1, 2, 2).contiguous(),
        torch.zeros(3, dtype=torch.int64),
    )
    classify = Off(shift)
    meter = Meter(classify, 3)
    found = Confirmed(meter.twin(lower(classify, "bf16")), meter, y)(x.requires_grad_())
    rough, exact = lower(classify, "bf16")(x), classify(x)
    claimed = rough.argmax(1) == 1
    assert torch.equal(found, torch.where(claimed[:, None], exact, rough))
    assert torch.equal(torch.autograd.grad(found[:, 1].sum(), x)[0], torch.full_like(x, 0.25))
    assert meter.forwards.tolist() == (1 + claimed.long()).tolist()


def test_an_unconfirmed_hit_goes_on_searching_from_its_point() -> None:
    """In bf16 every point beyond 0.3 looks like a hit; a search that stopped there would never reach 0.5."""
    x, y = torch.full((4, 1, 2, 2), 0.25), torch.zeros(4, dtype=torch.int64)
    found = rlbench.attack(Off(0.2), x, y, "pgd", eps=0.3, steps=10, precision="bf16")
    assert found.broken.all()
    assert (found.x_adv.flatten(1).mean(1) > 0.5).all()


def test_what_low_precision_never_sees_is_found_by_the_last_search_in_float32() -> None:
    """In bf16 no point looks like a hit, and the gradient leads away from all; two steps do not get far."""
    x, y = torch.full((4, 1, 2, 2), 0.25), torch.zeros(4, dtype=torch.int64)

    class Blind(Off):
        def __call__(self, x: Tensor) -> Tensor:
            logits = super().__call__(x)
            return torch.tensor([1.0, -1.0]) - 1e-3 * logits if self.calls[-1] else logits

    noise = {"eps": 0.3, "precision": "bf16"}
    assert rlbench.attack(Blind(0.0), x, y, "pgd", steps=2, **noise).broken.all()
    assert not rlbench.attack(Blind(0.0), x, y, "square", queries=2, **noise).broken.any()  # needs no gradient


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "mode", ["standalone", pytest.param("descending", marks=SLOW), pytest.param("cascade", marks=SLOW)]
)
def test_no_more_examples_survive_than_in_float32(mode: str) -> None:
    made, cells = bench(), [adversarial("pgd", "0.1", steps=5, ladder=("0.05",))]
    if mode == "cascade":
        both = adversarial("pgd", "0.05", steps=5), adversarial("apgd-t", "0.1", steps=5)
        cells = [Worst(Threat("linf", Fraction("0.1")), both, "cascade")]
    if mode == "descending":
        cells = [replace(adversarial("pgd", "0.05", steps=5, ladder=("0.1",)), descending=True)]
    for cell in cells:
        exact, rough = done(made, cell), done(made, search_in(cell, "bf16"))
        for one, other in zip(exact, rough, strict=True):
            assert not (other.correct & ~one.correct).any()
            assert (one.correct ^ other.correct).sum() <= 1
            assert AGAIN not in one.evidence
            assert mode == "descending" or other.evidence[AGAIN] >= other.correct.sum()
            assert other.evidence["lost"] == 0


def test_the_last_search_counts_what_it_breaks() -> None:
    """One step of PGD leaves survivors that the last search breaks; they stay broken in the larger ball."""
    cells = [
        adversarial("pgd", e, steps=1, rel_step=0.01, ladder=ladder) for e, ladder in (("0.1", ()), ("0.2", ("0.1",)))
    ]
    small, large = done(bench(), *map(low, cells))
    before = done(bench(), cells[0])[0]
    assert small.evidence[AGAIN] - small.evidence[BROKE] == small.correct.sum()
    assert small.evidence[BROKE] > 5
    assert small.correct.sum() <= before.correct.sum() - small.evidence[BROKE] + 1
    assert not (large.correct & ~small.correct).any()


def test_the_precision_is_part_of_text_key_and_record_and_float32_keeps_its_own() -> None:
    attack = adversarial("pgd", "4/255")
    suite, corrupted = load_suite("thermal"), Corrupted("fog", 3)
    for p in (attack, Composed(corrupted, attack), Worst(attack.threat)):
        rough = search_in(p, "bf16")
        assert str(rough) == f"{p} bf16"
        assert from_mapping(to_mapping(rough)) == rough
        assert from_columns(to_columns(rough)) == rough
        assert "precision" not in to_mapping(p)
        assert search_in(rough, "fp32") == p
    assert protocol(suite, low(attack)) != protocol(suite, attack) == protocol(suite, search_in(attack, "fp32"))
    assert search_in(corrupted, "bf16") == corrupted
    with pytest.raises(FieldError, match="precision is 'fp16'; it must be one of fp32, tf32, bf16"):
        from_mapping(to_mapping(attack) | {"precision": "fp16"})


def test_a_black_box_is_searched_as_it_answers() -> None:
    suite = load_suite("thermal")
    square = replace(suite, perturbations=(search_in(adversarial("square", "4/255"), "bf16"),))
    assert str(restrict(square, "score").suite.perturbations[0]).endswith("linf 4/255 score")


def test_run_and_suites_take_it_and_a_cpu_refuses_tf32(tmp_path: Path) -> None:
    text = Path(load_suite("thermal").path).read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("suite: thermal", "suite: own\nprecision: bf16", 1))
    loaded = load_suite(own)
    attacks = [p for p in loaded.perturbations if isinstance(p, Adversarial)]
    assert attacks
    assert all(p.threat.precision == "bf16" for p in attacks)
    few = replace(loaded, perturbations=(loaded.perturbations[0], attacks[0], Worst(attacks[0].threat)))
    records = rlbench.run(few, "rlbind", examples=8, out=tmp_path / "store", workers=1, device="cpu")
    assert [str(r.perturbation).endswith("bf16") for r in records] == [False, True, True]
    assert {"searched_again", "broke_again"} <= set(records[1].provenance)
    assert records[1].provenance["searched_again"] == records[1].n_correct + records[1].provenance["broke_again"]
    notes = [note for table in tables(frame(records)) for note in table.notes]
    assert any("attacks search in bf16; a last search in float32 broke" in note for note in notes)
    assert "bf16" in set(load(tmp_path / "store")["precision"])
    with pytest.raises(FieldError, match="precision is tf32, which cpu does not have: use fp32, bf16, or a GPU"):
        rlbench.run(few, "rlbind", out=tmp_path / "other", device="cpu", precision="tf32")
    with pytest.raises(FieldError, match="precision is tf32, which cpu"):
        rlbench.attack(Off(0), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), "pgd", precision="tf32")
    own.write_text(text.replace("suite: thermal", "suite: own\nprecision: half", 1))
    with pytest.raises(SuiteError, match=r"own.yaml:\d+: precision"):
        load_suite(own)


@pytest.mark.parametrize("suite", ["image", "audio", "video", "thermal"])
def test_embeddings_and_logits_are_float32_in_a_bf16_search(suite: str) -> None:
    made = prepare(load_suite(suite), "rlbind")
    x = made.inputs.load(0, 4).x.requires_grad_()
    head = lower(made.classifier, "bf16")
    rough, exact, features = head(x), made.classifier(x), head.embed(x)  # type: ignore[attr-defined]
    assert rough.dtype == features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(4), atol=1e-6)
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()
    mine, theirs = (torch.autograd.grad(z[:, 0].sum(), x)[0] for z in (rough, exact))
    assert mine.dtype == torch.float32
    assert (mine.sign() == theirs.sign()).float().mean() > 0.9
