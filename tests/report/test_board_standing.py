"""Ranks, ties, differences and averages, compared with enumeration, closed forms and simulation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from columns import column

from rlbench.core import Record
from rlbench.core.errors import UnknownName
from rlbench.core.stats.metrics import bootstrap_means, mcnemar, sign_flip
from rlbench.report.boards.averages import families, macros
from rlbench.report.boards.ranks import baseline_row, check_baseline, differences, ranks
from rlbench.report.boards.scores import ModelRow, Score, Table
from rlbench.report.boards.tables import frame, tables
from rlbench.store.columns import Column


def record(
    model: str,
    perturbation: str,
    bits: Sequence[int] | None,
    *,
    suite: str = "thermal",
    modality: str = "thermal",
    **facts,
) -> Record:
    flags = None if bits is None else np.packbits(np.array(bits, dtype=bool)).tobytes().hex()
    return Record(
        key=f"{suite} {model} {perturbation} {facts}",
        suite=suite,
        suite_version=1,
        task="world",
        modality=modality,
        model=model,
        backbone="mini",
        perturbation=column(perturbation),
        n=100 if bits is None else len(bits),
        n_correct=None if bits is None else int(np.sum(bits)),
        error="crash" if bits is None else None,
        forwards=0,
        backwards=0,
        flags=flags,
        provenance={"protocol": perturbation, "data": suite, "anchors": "a", "seed": 0, **facts},
    )


def bits(ones: int, n: int = 100) -> list[int]:
    return [1] * ones + [0] * (n - ones)


def table(*records: Record) -> Table:
    [found] = tables(frame(records))
    return found


def test_the_paired_test_is_mcnemars_on_one_cell_and_enumeration_on_sums() -> None:
    for b, c in [(37, 18), (5, 15), (1, 0), (4, 4), (0, 0), (300, 250)]:
        assert sign_flip([1] * b + [-1] * c + [0] * 50) == pytest.approx(mcnemar(b, c), rel=1e-9)
    for seed in range(5):
        d = np.random.default_rng(seed).integers(-6, 7, size=11).tolist()
        sums = [
            abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((-1, 1), repeat=11)
        ]
        assert sign_flip(d) == pytest.approx(np.mean(np.array(sums) >= abs(sum(d))), abs=1e-12)


def test_ranks_follow_from_the_tests_of_pairs() -> None:
    """90, 60 and 58 of 100, nested: pairs of 30:0 and 32:0 are significant, 2:0 (p = .5) is a tie."""
    rows = [record(m, "worst linf 4/255", bits(k)) for m, k in (("a", 90), ("b", 60), ("c", 58))]
    assert ranks(table(*rows)) == [(1, 1), (2, 3), (2, 3)]
    failed = record("d", "worst linf 4/255", None)
    assert ranks(table(*rows, failed)) == [(1, 1), (2, 3), (2, 3), None]  # not on the scale of the others
    assert ranks(table(rows[0], failed)) is None
    assert ranks(table(rows[0])) is None


def test_ranks_over_several_worst_cases_use_the_sum_per_example() -> None:
    """Each column alone is 4:0, p = .125; both together differ by 2 on the same four examples, p is still .125."""
    rows = [record(m, f"worst linf {e}/255", bits(k)) for e in (2, 4) for m, k in (("a", 64), ("b", 60))]
    assert ranks(table(*rows)) == [(1, 2), (1, 2)]
    more = [record("a", "worst linf 8/255", [0] * 64 + [1] * 6 + [0] * 30), record("b", "worst linf 8/255", bits(0))]
    assert ranks(table(*rows, *more)) == [(1, 1), (2, 2)]  # now 10 examples to 0


def make_table(modality: str, **flags: np.ndarray) -> Table:
    """A table of one worst case, made directly and not from records, since simulations need hundreds."""
    facts = {"modality": modality, "suite": modality, "suite_version": 1, "task": ""}
    facts |= {"data": modality, "seed": 0, "n": len(next(iter(flags.values())))}
    worst = Column(column("worst linf 4/255"))
    rows = [ModelRow(m, len(f), {worst: Score(float(f.mean()), 0, 1, hits=f.astype(int))}) for m, f in flags.items()]
    return Table(facts, (worst,), tuple(rows), "")


def test_false_orders_are_rarer_than_one_in_twenty() -> None:
    """Four models of the same accuracy .7 on 80 examples: at most 5% of 300 tables rank one above another."""
    g, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        wrong += ranks(make_table("image", **{m: g.random(80) < 0.7 for m in "abcd"})) != [(1, 4)] * 4
    assert wrong / 300 <= 0.05


def test_shared_sources_make_the_tests_more_cautious() -> None:
    """Pairs of 20:0 are significant; with intervals three times as wide they count as 20 / 9, that is 2:0, p = .5."""
    clear = [record("a", "worst linf 4/255", bits(60)), record("b", "worst linf 4/255", bits(40))]
    assert ranks(table(*clear)) == [(1, 1), (2, 2)]
    from rlbench.core.stats.metrics import wilson

    def wide(model: str, k: int) -> Record:
        low, high = wilson(k, 100)
        middle, half = (low + high) / 2, 1.5 * (high - low)
        facts = {"clustered_low": middle - half, "clustered_high": middle + half, "sources": 9}
        return record(model, "worst linf 4/255", bits(k), **facts)

    found = table(wide("a", 60), wide("b", 40))
    assert ranks(found) == [(1, 2), (1, 2)]
    assert differences(found, "b")[0]["worst linf 4/255"].p == pytest.approx(0.5)


def test_differences_to_a_baseline_by_hand() -> None:
    """12 examples that only a gets right and 3 that only b does: +9 points, McNemar's p, Holm over two models."""
    a, b = [1] * 12 + [0] * 3 + [1] * 85, [0] * 12 + [1] * 3 + [1] * 85
    found = table(record("a:mini", "clean", a), record("b:mini", "clean", b), record("c:mini", "clean", b))
    minus = {found.rows[k].model: by["clean"] for k, by in differences(found, "b").items()}
    assert set(minus) == {"a:mini", "c:mini"}
    assert (minus["a:mini"].points, minus["a:mini"].only_own, minus["a:mini"].only_other) == (9.0, 12, 3)
    assert minus["a:mini"].p == pytest.approx(mcnemar(12, 3)) and minus["a:mini"].p_holm == pytest.approx(
        2 * mcnemar(12, 3)
    )
    assert str(minus["c:mini"]) == "+0.0 (0:0, p 1, Holm 1)"
    assert baseline_row(found, "b:mini") is baseline_row(found, "b") and differences(found, "zzz") == {}
    with pytest.raises(UnknownName, match="c:mini"):
        check_baseline([found], "zzz")


MODALITIES = ("audio", "image", "thermal")


def world(model: str, shares: Sequence[int], suite: str = "{}", measure: str = "worst linf 4/255") -> list[Record]:
    return [
        record(model, measure, bits(k), suite=suite.format(m), modality=m)
        for m, k in zip(MODALITIES, shares, strict=False)
    ]


def test_the_macro_average_weighs_modalities_alike() -> None:
    """audio has two suites with 80% and 60%, so 70%; image has 40%: the mean is 55%, whatever the sizes."""
    rows = [
        record("a", "worst linf 4/255", bits(80), suite="pack-audio-x", modality="audio"),
        record("a", "worst linf 4/255", bits(600, 1000), suite="pack-audio-y", modality="audio"),
        record("a", "worst linf 4/255", bits(40), suite="pack-image-z", modality="image"),
    ]
    [one] = macros(tables(frame(rows)))
    assert (one.family, one.modalities) == ("pack-*", ("audio", "image"))
    assert one.rows["a"]["robust"].share == pytest.approx(0.55)


def test_suites_of_seen_and_unseen_classes_are_different_families() -> None:
    rows = [*world("a", (80, 60, 40), "claim-{}"), *world("a", (30, 20, 10), "claim-{}-unseen")]
    found = families(tables(frame([*rows, record("a", "clean", bits(9), suite="alone")])))
    assert {name: len(those) for name, those in found.items()} == {"claim-*": 3, "claim-*-unseen": 3}


def test_a_model_that_lacks_a_suite_or_failed_has_no_macro_average() -> None:
    rows = [*world("a", (80, 60, 40)), *world("b", (90, 90)), *world("c", (90, 90)), *world("d", (70, 70, 70))]
    rows.append(record("c", "worst linf 4/255", None, suite="thermal"))
    for m in MODALITIES:
        rows += [record(model, "clean", bits(90), suite=m, modality=m) for model in "ac"]
    [one] = macros(tables(frame(rows)), baseline="c")
    assert list(one.rows) == ["d", "a", "c"] and one.partial == ("b",)
    assert set(one.rows["c"]) == {"clean"} and set(one.rows["a"]) == {"clean", "robust"}
    assert set(one.minus["a"]) == {"clean"} and "d" not in one.minus  # nothing is compared with a failure


def test_the_stratified_bootstrap_covers() -> None:
    """Tasks with accuracies .9, .5 and .2 on 60 to 200 examples: 93 to 97% of 400 intervals contain the true mean."""
    g, held = np.random.default_rng(3), 0
    truth = np.array([0.9, 0.5, 0.2])
    for _ in range(400):
        sizes = zip(MODALITIES, (60, 120, 200), truth, strict=True)
        [one] = macros([make_table(m, a=g.random(n) < p) for m, n, p in sizes])
        score = one.rows["a"]["robust"]
        held += score.low <= truth.mean() <= score.high
    assert 0.93 <= held / 400 <= 0.97


def test_known_sources_are_resampled_whole() -> None:
    """Sources of ten equal examples: the standard deviation of the bootstrap is that of a tenth of the examples."""
    values = np.repeat([1.0] * 14 + [0.0] * 6, 10)
    whole = bootstrap_means(values.tolist(), np.repeat(np.arange(20), 10).astype(str).tolist(), draws=4000)
    alone = bootstrap_means(values.tolist(), draws=4000)
    assert whole.std() / alone.std() == pytest.approx(np.sqrt(10), rel=0.06)
    assert alone.std() == pytest.approx(np.sqrt(0.7 * 0.3 / 200), rel=0.06)
    rows = [record("a", "clean", values.astype(int).tolist(), suite=m, modality=m) for m in MODALITIES[:2]]
    shared = {m: [str(k // 10) for k in range(200)] for m in MODALITIES[:2]}
    plain, clustered = (macros(tables(frame(rows)), sources=s)[0].rows["a"]["clean"] for s in (None, shared))
    assert (clustered.high - clustered.low) / (plain.high - plain.low) == pytest.approx(np.sqrt(10), rel=0.1)
