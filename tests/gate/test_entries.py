"""Submissions: a strict schema, subsets of a task's examples, and claims that are refuted when they are false."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from columns import column
from scipy.stats import binom, fisher_exact, hypergeom

import rlbench
from rlbench.cli.main import main
from rlbench.core import Box
from rlbench.core.errors import FieldError, RLBenchError, StoreError
from rlbench.core.registry import make
from rlbench.core.stats.acceptance_sampling import least_lost, least_share, p_few, p_lost
from rlbench.gate.submission import Claim, make_submission, read_submission, to_json
from rlbench.gate.verify import judge_subset, verify
from rlbench.tasks.subset import select_examples

BLOBS = """suite: blobs-claim
version: 1
summary: Blobs, which take no time.
modality: image
task: {name: blobs}
examples: 300
perturbations:
  - clean
  - {attack: fgsm, norm: linf, eps: 4/255}
  - {attack: pgd, norm: linf, eps: 4/255, steps: 3}
  - worst
"""
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("suites") / "blobs-claim.yaml"
    file.write_text(BLOBS)
    return file


@pytest.fixture(scope="module")
def records(suite: Path) -> list[Any]:
    return rlbench.run(str(suite), "linear", out=suite.parent / "store", workers=1)


@pytest.fixture
def entry(records: list[Any], suite: Path) -> Any:
    told = {"model": "linear:oracle", "source": "bundled", "summary": "The oracle."}
    made = make_submission(records, suite=str(suite), **told)  # by its file, since it is not installed
    assert made == replace(make_submission(records, suite="blobs-claim", **told), suite=str(suite))
    return made


# Statistics


def test_the_tests_are_scipys() -> None:
    """The hypergeometric test is Fisher's exact test of drawn by false claims; the binomial one is a binomial tail."""
    for lost, drawn, claimed, allowed in ((3, 80, 400, 5), (1, 50, 60, 2), (0, 10, 20, 3), (5, 100, 469, 5)):
        table = [[lost, drawn - lost], [allowed - lost, claimed - drawn - allowed + lost]]
        assert p_lost(lost, drawn, claimed, allowed) == pytest.approx(fisher_exact(table, "greater").pvalue)
    assert p_few(70, 100, 0.8) == pytest.approx(binom.cdf(70, 100, 0.8))


def test_a_detectable_overstatement_is_refuted_with_probability_95() -> None:
    least = least_lost(90, 450, 5, 0.05)
    g = np.random.default_rng(0)
    for unfounded, holds in ((least, True), (least // 2, False)):
        lost = g.hypergeometric(unfounded, 450 - unfounded, 90, 600)
        refuted = np.mean([p_lost(int(k), 90, 450, 5) < 0.05 for k in lost])
        assert (refuted > 0.92) == holds
    share = least_share(200, 0.8, 0.05)
    assert np.mean([p_few(int(k), 200, 0.8) < 0.05 for k in g.binomial(200, share, 600)]) > 0.92
    assert hypergeom.sf(-1, 450, least, 90) == 1 and least_lost(2, 10, 5, 0.01) == 11 and least_share(2, 0.1, 0.05) == 0


def test_a_claim_of_nothing_is_not_refuted() -> None:
    assert p_lost(0, 0, 0, 0) == 1.0 and least_lost(0, 0, 0, 0.01) == 1


# Rows


SOUND = Box(shape=(1, 64, 64), unit="log-mel")


@pytest.mark.parametrize(("task", "box"), [("blobs", Box(shape=(1, 8, 8))), ("audio-world", SOUND)])
def test_a_subset_has_the_examples_of_its_task(task: str, box: Box) -> None:
    whole, rows = make("task", task), (2, 3, 11)
    part, every = select_examples(whole, rows), whole.load(box, 0, 12)
    found = part.load(box, 0, 3)
    assert torch.equal(found.x, every.x[list(rows)]) and found.y.tolist() == every.y[list(rows)].tolist()
    assert found.ids == tuple(every.ids[r] for r in rows) and part.size("test") == 3
    assert part.load(box, 1, 2).ids == (every.ids[3],)
    assert part.fingerprint() not in (whole.fingerprint(), select_examples(whole, (2, 3, 10)).fingerprint())
    if hasattr(part, "hear"):
        assert torch.equal(part.hear(part.waves(box, 0, 3), box), found.x)
    assert torch.equal(part.load(box, 0, 2, "val").x, whole.load(box, 0, 2, "val").x)
    assert part.size("val") == whole.size("val")


# Verification


def test_a_true_submission_holds(entry: Any) -> None:
    found = verify(entry, examples=60, seed=5, workers=1)
    assert found.holds and len(found.rows) == 60 and found.rows != tuple(range(60))
    assert all((f.lost, f.gained, f.test) == (0, 0, "hypergeometric") for f in found.results)
    assert verify(entry, examples=60, seed=6, workers=1).rows != found.rows
    assert 0 < found.detectable < 25


FUSED = """suite: fused-claim
version: 1
summary: Two fusions.
sensors: [image, thermal]
fusion: [sum, mean]
task: {name: scenes, domain: sensor, subset: seen}
perturbations: [clean]
"""


def test_an_entry_names_the_one_fusion_that_it_claims(records: list[Any], tmp_path: Path) -> None:
    (file := tmp_path / "fused.yaml").write_text(FUSED)
    place = {"suite": "fused-claim", "modality": "image+thermal"}
    clean = next(one for one in records if str(one.perturbation) == "clean")
    found = [replace(clean, **place, task=f"scenes:image+thermal:{name}") for name in ("sum", "mean")]
    told = {"model": "linear:oracle", "source": "bundled", "summary": "The oracle."}
    with pytest.raises(StoreError, match=f"such as {file}:scenes:image\\+thermal:mean"):
        make_submission(found, suite=str(file), **told)
    part = f"{file}:scenes:image+thermal:mean"
    entry = make_submission(found, suite=part, **told)
    assert entry == make_submission(found[1:], suite=str(file), **told) and entry.suite == part
    with pytest.raises(StoreError, match="several tasks with these columns: scenes:image"):
        verify(replace(entry, suite=str(file)), workers=1)


def test_claims_under_a_surrogate_and_a_universal_attack_are_verified(tmp_path: Path) -> None:
    attacks = "  - {attack: fgsm, norm: linf, eps: 4/255, from: linear}\n"
    attacks += "  - {attack: uap, norm: linf, eps: 12/255, examples: 40, steps: 5}\n"
    file = tmp_path / "blobs-claim.yaml"
    file.write_text(BLOBS.partition("  - {attack")[0] + attacks)
    records = rlbench.run(str(file), "linear", examples=80, out=tmp_path / "store", workers=1)
    told = {"model": "linear:oracle", "suite": "blobs-claim", "source": "bundled", "summary": "The oracle."}
    found = verify(replace(make_submission(records, **told), suite=str(file)), examples=30, workers=1)
    assert found.holds and all((f.lost, f.gained) == (0, 0) for f in found.results) and len(found.results) == 3


def test_inflated_claims_are_refuted(entry: Any) -> None:
    """With flags, thirty wrong examples are claimed to be correct; without flags, 98% of all."""

    def inflated(claim: Claim, *, flags: bool) -> Claim:
        if not flags:
            return replace(claim, n_correct=295, flags=None)
        correct = claim.correct()
        correct[np.flatnonzero(~correct)[:30]] = True
        return replace(claim, n_correct=claim.n_correct + 30, flags=np.packbits(correct).tobytes().hex())

    for flags in (True, False):
        claims = tuple(inflated(c, flags=flags) if "pgd" in str(c.perturbation) else c for c in entry.claims)
        found = verify(replace(entry, claims=claims), examples=120, seed=1, workers=1)
        refuted = [f.perturbation for f in found.results if f.refuted]
        assert refuted == ["pgd(steps=3) linf 4/255"] and not found.holds


def test_a_single_flip_does_not_refute_a_claim_but_a_crash_does(entry: Any, records: list[Any]) -> None:
    claim = entry.claims[0]
    correct = claim.correct()
    own = replace(records[0], flags=np.packbits(correct ^ (np.arange(300) == 7)).tobytes().hex())
    [result] = judge_subset([claim], range(300), [own], margin=1, alpha=0.05)
    assert result.p == 1.0
    failed = replace(own, flags=None, n_correct=None, error="it crashed")
    assert judge_subset([claim], range(300), [failed], margin=1, alpha=0.05)[0].p == 0.0
    assert judge_subset([claim], [0], [failed], margin=1, alpha=0.05)[
        0
    ].refuted  # one example alone could not refute it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoint": "other"}, "claimed with checkpoint other"),
        ({"protocol": "other"}, "claimed under protocol other"),
        ({"data": "other"}, "claimed with data other"),
        ({"perturbation": column("pgd linf 8/255")}, "does not have all claimed columns"),
    ],
)
def test_a_submission_of_another_model_or_protocol_is_an_error(entry: Any, change: dict[str, Any], words: str) -> None:
    if "checkpoint" not in change:
        change = {"claims": (replace(entry.claims[0], **change), *entry.claims[1:])}  # type: ignore[dict-item]
    with pytest.raises(RLBenchError, match=words):
        verify(replace(entry, **change), examples=10, workers=1)  # type: ignore[arg-type]


# The files


def test_json_of_a_submission_round_trips(entry: Any, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(to_json(entry))
    assert read_submission(tmp_path / "e.json") == entry
    assert "seconds" not in to_json(entry) and set(entry.provenance) >= {"torch", "device"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(entry=3), "reads version 2"),
        (lambda raw: raw.update(entry=1), "`rlbench entry` writes version 2"),
        (lambda raw: raw["claims"][1].update(perturbation="clean"), "claim 2: perturbation is 'clean'"),
        (lambda raw: raw["claims"][1]["perturbation"].update(eps="4/0"), "claim 2: perturbation: eps is '4/0'"),
        (lambda raw: raw.pop("source"), "needs the field 'source'"),
        (lambda raw: raw.update(sorce="x"), "did you mean 'source'"),
        (lambda raw: raw.update(source="a disk"), "must be the URL"),
        (lambda raw: raw.update(summary="ask me@example.org"), "looks like a contact"),
        (lambda raw: raw.update(suite_version="1"), "suite_version is '1'"),
        (lambda raw: raw.update(claims={}), "claims must be a list"),
        (lambda raw: raw.update(claims=[]), "claims is empty"),
        (lambda raw: raw["claims"].append(raw["claims"][0]), "'clean' twice"),
        (lambda raw: raw["claims"][0].update(n_correct=301), "n_correct is 301 of n = 300"),
        (lambda raw: raw["claims"][0].update(n_correct=1), "n_correct says 1"),
        (lambda raw: raw["claims"][0].update(flags="xy"), "must be hexadecimal"),
        (lambda raw: raw["claims"][0].update(flags="ff"), "8 bits; it must have n = 300"),
        (lambda raw: raw["claims"][0].pop("data"), "claim 1 needs the field 'data'"),
    ],
)
def test_a_mistake_in_a_submission_names_the_file_and_the_field(
    entry: Any, tmp_path: Path, change: Change, words: str
) -> None:
    raw = json.loads(to_json(entry))
    change(raw)
    file = tmp_path / "e.json"
    file.write_text(json.dumps(raw))
    with pytest.raises(FieldError, match=words) as error:
        read_submission(file)
    assert str(error.value).startswith(f"{file}: ")


def test_bundled_submissions_can_be_read() -> None:
    found = sorted((Path(str(files("rlbench.leaderboards"))) / "entries").glob("*.json"))
    assert found and all(read_submission(path).claims for path in found)


# The commands


def test_a_submission_is_written_and_verified(records: list[Any], suite: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    file, store = tmp_path / "e.json", suite.parent / "store"
    told = ("--records", store, "--source", "bundled", "--summary", "The oracle.", "--out", file)
    made = call("entry", "blobs-claim", "linear", *told)
    assert made.exit_code == 0 and "4 claims" in made.stdout
    unknown = call("verify", file)
    assert unknown.exit_code == 2 and "no suite" in unknown.stderr  # it is not installed
    file.write_text(file.read_text().replace('"blobs-claim"', json.dumps(str(suite))))
    result = call("verify", file, "--examples", 50, "--seed", 3, "--quiet")
    assert result.exit_code == 0 and "50 of 300 examples run again (seed 3). The claims hold" in result.stdout
    assert call("entry", "blobs-claim", "rlbind", *told).exit_code == 2
