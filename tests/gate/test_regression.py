"""The gate's statistics against scipy, statsmodels and published tables, and its behaviour by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from made import made
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm

from rlbench.core import Record
from rlbench.core.errors import FieldError
from rlbench.core.stats.metrics import cluster_interval, holm, mcnemar, wilson
from rlbench.core.stats.paired import Pairs, power, score_bound
from rlbench.gate import render
from rlbench.gate.regression import Policy, Report, gate
from rlbench.store.flags import flags_of

FACTS = {"protocol": "pr", "data": "da", "anchors": "an", "seed": 0, "torch": "2.9"}


def record(correct: np.ndarray, perturbation: str = "pgd linf 4/255", **changes: object) -> Record:
    told = ("protocol", "data", "anchors", "soundness", "torch")
    facts = {**FACTS, **{k: changes.pop(k) for k in told if k in changes}}
    return replace(made("mine:mini", perturbation, correct, suite="ci", **facts), **changes)  # type: ignore[arg-type]


def flips(g: np.random.Generator, n: int, drop: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Flags before and after: an example flips with probability `share`; the expected drop is `drop`, as a share."""
    u, before = g.random(n), g.random(n) < 0.5
    lost, gained = (share + drop) / 2, (share - drop) / 2
    return np.where(u < lost + gained, u < lost, before), np.where(u < lost + gained, u >= lost, before)


def halves(n: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Flags before and after with exactly these flips; the other examples are correct on both sides."""
    before, after = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    after[:lost] = False
    before[lost : lost + gained] = False
    return before, after


def one(lost: int, gained: int, n: int = 500, policy: Policy | None = None, **changes: object) -> Report:
    before, after = halves(n, lost, gained)
    return gate([record(before)], [record(after, **changes)], policy)


# Statistics


def test_wilson_mcnemar_and_holm_are_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar as peer
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    g = np.random.default_rng(0)
    for _ in range(200):
        n = int(g.integers(1, 2000))
        k = int(g.integers(0, n + 1))
        assert wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
        b, c = (int(v) for v in g.integers(0, 40, 2))
        if b + c:
            assert mcnemar(b, c) == pytest.approx(peer([[5, b], [c, 5]], exact=True).pvalue, abs=1e-12)
            assert Pairs(100, b, c).p_drop == pytest.approx(
                binomtest(b, b + c, alternative="greater").pvalue, abs=1e-12
            )
    for _ in range(12):  # the peer collects garbage at every call
        ps = g.random(int(g.integers(1, 12))) ** 3
        assert holm(ps.tolist()) == pytest.approx(multipletests(ps, method="holm")[1], abs=1e-12)


def test_the_interval_is_tangos() -> None:
    """Fagerland et al., 2014, table IV: (-0.517, -0.026) for the table (1, 1, 7, 12) of Bentur et al."""
    low, high = Pairs(21, 1, 7).interval()
    assert (round(low / 100, 3), round(high / 100, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("lost", "gained", "n"), [(40, 20, 160), (0, 7, 30), (12, 0, 500), (3, 3, 96), (80, 20, 110)])
def test_the_bound_inverts_the_score_test(lost: int, gained: int, n: int) -> None:
    """Solved numerically from the definition, with the likelihood of (lost, gained) maximised for each drop."""

    def score(delta: float) -> float:
        def minus(q: float) -> float:
            rest = max(1e-300, 1 - 2 * q - delta)
            return -(lost * np.log(q + delta) + gained * np.log(q) + (n - lost - gained) * np.log(rest))

        low = max(0.0, -delta)
        q = minimize_scalar(minus, bounds=(low + 1e-13, (1 - delta) / 2 - 1e-13), options={"xatol": 1e-13}).x
        return float((lost - gained - n * delta) / np.sqrt(n * (2 * q + delta - delta**2)) + norm.ppf(0.95))

    start = (lost - gained) / n
    assert score_bound(lost, gained, n, 0.95) == pytest.approx(brentq(score, start + 1e-9, 0.9999), abs=2e-5)


def test_the_bound_without_flips() -> None:
    """It has a closed form: z^2 / (n + z^2)."""
    z = norm.ppf(0.95) ** 2
    for n in (96, 500, 1000):
        assert Pairs(n, 0, 0).upper() == pytest.approx(100 * z / (n + z), abs=1e-6)


def test_intervals_cover() -> None:
    """The score interval of a drop and the bootstrap over clusters cover 95%, within the simulations' errors."""
    g = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        low, high = Pairs.of(*flips(g, 400, 0.03, 0.12)).interval()
        hits += low <= 3 <= high
    assert 0.93 <= hits / 1000 <= 0.97
    hits = 0
    for _ in range(600):
        shares = g.beta(6, 2, 80)
        correct = (g.random((80, 5)) < shares[:, None]).ravel()
        low, high = cluster_interval(correct.tolist(), np.repeat(np.arange(80).astype(str), 5).tolist(), draws=400)
        hits += low <= 0.75 <= high
    assert 0.93 <= hits / 600 <= 0.97


def test_the_detectable_drop() -> None:
    """2.486 sqrt(discordant) / n for a one-sided 5% and 80% power; without flips, the fewest significant losses."""
    assert Pairs(500, 40, 30).detectable() == pytest.approx(100 * 2.486475 * 70**0.5 / 500, rel=1e-5)
    assert Pairs(500, 0, 0).detectable() == 100 * 5 / 500  # 1/2^5 < 0.05 < 1/2^4


# Simulation


def test_false_alarms_are_rarer_than_alpha() -> None:
    """Nothing changed in three cells, but a tenth of the examples flips in both directions; the margin is 0."""
    g, alarms = np.random.default_rng(2), 0
    for _ in range(600):
        pairs = [flips(g, 500, 0.0, 0.1) for _ in range(3)]
        sides = zip(*[(record(a, f"fog {i}"), record(b, f"fog {i}")) for i, (a, b) in enumerate(pairs, 1)], strict=True)
        alarms += gate(*map(list, sides), Policy(margin=0)).exit_code == 1
    assert alarms / 600 <= 0.05


@pytest.mark.parametrize(("share", "cells"), [(0.08, 1), (0.15, 3)])
def test_the_power_agrees_with_simulation(share: float, cells: int) -> None:
    """One cell of n = 500 drops by 5 points; it fails as often as `power` says, within 5 points."""
    g, found = np.random.default_rng(3), 0
    for _ in range(800):
        pairs = [flips(g, 500, 0.05 if i == 0 else 0.0, share) for i in range(cells)]
        sides = zip(*[(record(a, f"fog {i}"), record(b, f"fog {i}")) for i, (a, b) in enumerate(pairs, 1)], strict=True)
        found += gate(*map(list, sides)).verdicts[0].status == "FAIL"
    stated = power(500, 5, 100 * share, cells=cells, margin=2)
    assert found / 800 == pytest.approx(stated, abs=0.05) and 0.7 < stated < 1


def test_the_power_is_binomial_if_all_flips_are_losses() -> None:
    """The gate fails iff there are at least 5 losses and more than the margin's 10."""
    from scipy.stats import binom

    assert power(500, 3, 3, margin=2) == pytest.approx(binom.sf(10, 500, 0.03), abs=1e-9)
    assert power(500, 3, 3) == pytest.approx(binom.sf(4, 500, 0.03), abs=1e-9)


# Verdicts


def test_a_real_drop_fails_and_names_its_examples() -> None:
    [verdict] = one(30, 2).verdicts
    assert verdict.status == "FAIL" and "dropped by 5.6 points" in verdict.reason
    assert (verdict.before, verdict.after) == (498, 470)
    assert verdict.lost == tuple(f"#{i}" for i in range(30)) and verdict.gained == ("#30", "#31")
    assert one(30, 2).exit_code == 1


def test_a_drop_within_the_margin_passes_or_is_inconclusive() -> None:
    assert one(0, 0).verdicts[0].status == "PASS"
    assert one(4, 1).verdicts[0].status == "PASS"
    shown = one(9, 0).verdicts[0]  # p is .002, and 1.8 points are within the margin; its bound is not
    assert shown.p < 0.05 and shown.status == "INCONCLUSIVE" and "may be up to" in shown.reason
    assert one(9, 0).exit_code == 0 and one(9, 0, policy=Policy(strict=True)).exit_code == 1
    assert one(9, 0, policy=Policy(margin=1)).exit_code == 1
    assert one(10, 0).verdicts[0].status == "INCONCLUSIVE"  # 2 points are not over a margin of 2


def test_few_examples_are_inconclusive_even_without_a_flip() -> None:
    assert one(0, 0, n=96).verdicts[0].status == "INCONCLUSIVE"
    assert one(0, 0, n=140).verdicts[0].status == "PASS"


def test_rounding_on_another_machine_passes() -> None:
    """A few flips in both directions are not significant, even with a margin of 0."""
    for lost, gained in ((3, 2), (2, 3), (4, 1)):
        assert one(lost, gained, policy=Policy(margin=0)).exit_code == 0
    assert one(3, 2).verdicts[0].status == "PASS"


def test_a_gain_is_flagged() -> None:
    [verdict] = one(2, 60).verdicts
    assert verdict.gain and verdict.status == "PASS" and "did an attack get weaker?" in verdict.reason
    assert one(2, 60).exit_code == 0 and one(2, 60, policy=Policy(strict=True)).exit_code == 1
    assert not one(5, 9).verdicts[0].gain


@pytest.mark.parametrize("fact", ["protocol", "data", "anchors"])
def test_another_protocol_data_or_anchors_are_an_error_that_names_them(fact: str) -> None:
    report = one(0, 0, **{fact: "other"})
    assert report.exit_code == 2 and report.verdicts[0].status == "MISSING"
    assert f"{fact} other, not {FACTS[fact]}" in report.verdicts[0].reason


def test_missing_cells_are_errors_on_both_sides() -> None:
    flags = np.ones(500, dtype=bool)
    gone = gate([record(flags), record(flags, "clean")], [record(flags)])
    assert gone.exit_code == 2 and "this run does not" in gone.verdicts[1].reason
    new = gate([record(flags)], [record(flags), record(flags, "clean")])
    assert new.exit_code == 2 and "has no reference" in new.verdicts[1].reason
    assert gate([record(flags)], [], required=[("ci", "thermal", "mine:mini")]).exit_code == 2
    assert gate([], []).exit_code == 2


def test_other_suites_and_models_are_ignored() -> None:
    flags = np.ones(500, dtype=bool)
    others = [record(flags, suite="thermal"), record(flags, model="other:mini")]
    assert gate([record(flags), *others], [record(flags)]).exit_code == 0


def test_the_parts_of_a_suite_are_compared_separately() -> None:
    """The parts of a suite of several modalities have columns of the same name."""
    flags, none = np.ones(500, dtype=bool), np.zeros(500, dtype=bool)
    both = [record(flags, "clean"), record(flags, "clean", modality="image", data="other")]
    worse = [both[0], record(none, "clean", modality="image", data="other")]
    found = {v.suite: v.status for v in gate(both, worse).verdicts}
    assert found == {"ci:thermal": "PASS", "ci:image": "FAIL"}
    assert gate(both, both[:1]).exit_code == 0  # rlbench check --suite ci:thermal
    assert gate(both, both[:1], required=[("ci", "image", "mine:mini")]).exit_code == 2


def test_a_crash_fails() -> None:
    report = one(0, 0, n_correct=None, flags=None, error="Pgd crashed")
    assert report.exit_code == 1 and "Pgd crashed" in report.verdicts[0].reason


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [("sound", "warn", 1), ("warn", "needs adaptive", 1), ("warn", "sound", 0), (None, "unreliable", 0)],
)
def test_a_soundness_downgrade_fails(before: str | None, after: str, code: int) -> None:
    flags = np.ones(500, dtype=bool)
    report = gate([record(flags, soundness=before)], [record(flags, soundness=after)])
    assert report.exit_code == code


def test_fewer_examples_are_paired_with_the_first_of_the_reference() -> None:
    flags = np.random.default_rng(4).random(500) < 0.7
    report = gate([record(flags)], [record(flags[:203])])
    assert report.n == 203 and report.verdicts[0].pairs == Pairs(203, 0, 0)
    assert (flags_of(record(flags[:203])) == flags[:203]).all()


def test_a_gate_that_nothing_could_fail_is_an_error() -> None:
    """The loss of 4 of 4 examples has p = 1/16; that of 5 has p = 1/32, which is not significant in two cells."""
    on = {n: np.ones(n, dtype=bool) for n in (4, 5)}
    four, five = (gate([record(on[n])], [record(~on[n])]) for n in (4, 5))
    assert four.blind and four.exit_code == 2 and render.describe_power(four).startswith("No drop can fail: n = 4 ")
    assert not five.blind and five.exit_code == 1
    sides = [[record(flags), record(flags, "clean")] for flags in (on[5], ~on[5])]
    assert gate(*sides).blind and gate(*sides).exit_code == 2
    assert gate(sides[0], [replace(sides[1][0], n_correct=None, flags=None, error="crash"), sides[0][1]]).exit_code == 1


def test_notes_name_what_a_pass_does_not_say() -> None:
    """Fewer examples than the reference's, and a model whose accuracies may be too high on both sides."""
    flags = np.ones(500, dtype=bool)
    report = gate([record(flags, soundness="unreliable")], [record(flags[:203], soundness="unreliable")])
    assert report.exit_code == 0 and report.notes == (
        "mine:mini is unreliable on ci: its accuracies may be too high",
        "the references of ci have 500 examples, this run 203; only the first 203 are compared",
    )


def test_the_reference_of_the_same_protocol_is_used() -> None:
    old = record(np.zeros(500, dtype=bool), protocol="old")
    flags = np.ones(500, dtype=bool)
    assert gate([old, record(flags)], [record(flags)]).exit_code == 0


def test_notes_name_what_the_machines_differ_in() -> None:
    assert "torch 2.9, this run with 3.0" in one(0, 0, torch="3.0").notes[0]


@pytest.mark.parametrize("wrong", [{"margin": -1}, {"margin": 100}, {"alpha": 0}, {"alpha": 0.5}])
def test_a_policy_checks_its_values(wrong: dict[str, float]) -> None:
    with pytest.raises(FieldError, match="it must be"):
        Policy(**wrong)  # type: ignore[arg-type]
