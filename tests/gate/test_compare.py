"""`rlbench compare`: two models or two stores, paired; p-values and intervals against scipy."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made import made
from scipy.stats import binomtest

from rlbench.cli.main import main
from rlbench.core import Record
from rlbench.core.errors import FieldError, StoreError
from rlbench.core.stats.paired import Pairs
from rlbench.gate.check import renew_references
from rlbench.gate.compare import compare, list_missing
from rlbench.gate.regression import doubts, gate
from rlbench.gate.render import contrasts
from rlbench.gate.submission import make_submission
from rlbench.report.figures.model_report import report
from rlbench.store.flags import flags_of


def record(model: str, perturbation: str, correct: np.ndarray, **facts: object) -> Record:
    return made(f"{model}:mini", perturbation, correct, **facts)


def side(model: str, seed: int, share: float, **facts: object) -> list[Record]:
    g = np.random.default_rng(seed)
    return [record(model, name, g.random(400) < share, **facts) for name in ("clean", "pgd linf 4/255")]


def test_pairs_p_and_direction() -> None:
    """Only A is right on 30 examples, only B on 8; in the other column 5 and 5. Holm doubles the smaller p."""

    def flags(lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
        a, b = np.zeros(400, dtype=bool), np.zeros(400, dtype=bool)
        a[:lost], b[lost : lost + gained] = True, True
        return a, b

    first, second = flags(30, 8), flags(5, 5)
    a = [record("a", "clean", first[0]), record("a", "pgd linf 4/255", second[0])]
    b = [record("b", "clean", first[1]), record("b", "pgd linf 4/255", second[1])]
    clean, pgd = compare(a, b)
    assert clean.pairs == Pairs(400, 30, 8) and clean.pairs.drop == 5.5
    assert clean.p == pytest.approx(2 * binomtest(8, 38).pvalue) and pgd.p == 1.0
    assert clean.verdict() == "B below" and pgd.verdict() == "level"
    low, high = clean.pairs.interval()
    assert 0 < low < 5.5 < high < 9
    assert [one.verdict() for one in compare(b, a)] == ["B above", "level"]


def test_several_models_are_paired_by_name() -> None:
    a = [*side("x", 1, 0.5), *side("y", 2, 0.6)]
    b = [*side("y", 3, 0.7), *side("x", 4, 0.5)]
    assert {one.models for one in compare(a, b)} == {("x:mini", "x:mini"), ("y:mini", "y:mini")}


def test_records_of_other_data_are_not_compared() -> None:
    [clean, pgd] = compare(
        side("a", 1, 0.5), [replace(r, provenance={**r.provenance, "data": "o"}) for r in side("b", 2, 0.5)]
    )
    assert clean.pairs is None and clean.apart == "data o, not d" and pgd.verdict() == "not comparable"


def test_anchors_may_differ_only_between_models() -> None:
    assert all(one.pairs for one in compare(side("a", 1, 0.5), side("b", 2, 0.5, anchors="own")))
    assert not any(one.pairs for one in compare(side("a", 1, 0.5), side("a", 2, 0.5, anchors="own")))


def test_a_failed_cell_is_not_compared() -> None:
    failed = [replace(r, n_correct=None, flags=None, error="it left the ball") for r in side("b", 2, 0.5)]
    assert compare(side("a", 1, 0.5), failed)[0].apart == "b:mini failed: it left the ball"


def test_cells_of_one_side_are_named() -> None:
    """A model that was not attacked must not look as good as one that was."""
    a, b = side("a", 1, 0.5), side("b", 2, 0.5)[:1]
    assert list_missing(a, b, ("a", "b")) == ["1 cells of a are not in b and not compared: thermal pgd linf 4/255"]
    assert list_missing(b, a, ("b", "a")) == list_missing(a, b, ("a", "b")) and list_missing(a, a, ("a", "b")) == []
    [line] = list_missing([*a, *b], a, ("new", "old"))  # two stores, of which one lacks a model
    assert line == "1 cells of new are not in old and not compared: thermal b:mini clean"


def test_two_sides_without_a_shared_cell_are_an_error() -> None:
    with pytest.raises(StoreError, match="share no cell"):
        compare(side("a", 1, 0.5), [replace(r, suite="audio") for r in side("b", 2, 0.5)])


@pytest.mark.parametrize(
    "use",
    [
        lambda records: compare(records, records),
        lambda records: gate(records, records[:2]),
        lambda records: gate(records[:2], records),
        lambda records: renew_references(Path("x.jsonl"), records),
        lambda records: make_submission(records, model="a:mini", suite="thermal", source="bundled", summary="A."),
        lambda records: report(records, "a:mini", "a.png"),
    ],
)
def test_two_models_of_one_name_are_refused(use: Callable[[list[Record]], object]) -> None:
    """Otherwise some cells would be of one and some of the other, in the order of the file or of the keys."""
    one, other = side("a", 1, 0.7, checkpoint="1111"), side("a", 2, 0.4, checkpoint="2222")
    with pytest.raises(StoreError, match="a:mini on thermal are of two checkpoints, 1111 and 2222"):
        use([*one, *(replace(r, key=r.key[::-1]) for r in other)])
    other = [replace(r, key=r.key[::-1]) for r in side("a", 2, 0.4, checkpoint="1111")]
    with pytest.raises(StoreError, match="two results of clean, such as of other code"):
        use([*one, *other])
    fewer = [record("a", str(r.perturbation), flags_of(r)[:99], checkpoint="1111") for r in one]
    with suppress(FieldError):  # a submission has one claim of each cell
        use([*one, *fewer])


# The command


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in a folder with a store of two models and a later file of one of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rlbench-results").mkdir()
    both, later = [*side("fare", 1, 0.5), *side("rlbind", 2, 0.7)], side("rlbind", 3, 0.6, sources=40)
    for file, records in ((tmp_path / "rlbench-results" / "records.jsonl", both), (tmp_path / "later.jsonl", later)):
        (text,) = renew_references(tmp_path / "x.jsonl", records)[0].values()
        file.write_text(text)
    return lambda *arguments: CliRunner().invoke(main, ["compare", *map(str, arguments)], catch_exceptions=False)


def test_two_models(call: Callable[..., Result]) -> None:
    result = call("fare", "rlbind")
    assert result.exit_code == 0
    header, _, clean, pgd, note = result.stdout.splitlines()
    assert note.startswith("note: p is Holm-adjusted over 2 cells; intervals are not")
    assert header.split() == [
        "verdict",
        "suite",
        "cell",
        "n",
        "fare",
        "rlbind",
        "difference",
        "only",
        "one",
        "right",
        "p",
    ]
    assert clean.startswith("rlbind above") and "<.001" in clean and "pgd linf 4/255" in pgd
    before, after = (r.n_correct or 0 for r in (side("fare", 1, 0.5)[0], side("rlbind", 2, 0.7)[0]))
    assert f"+{(after - before) / 4:.1f} [" in clean


def test_two_stores_and_a_note_on_sources(call: Callable[..., Result]) -> None:
    result = call("later.jsonl", "later.jsonl", "--format", "markdown", "--suite", "thermal")
    assert result.exit_code == 0 and "| level" in result.stdout and "| A " in result.stdout
    assert "share 40 sources" in result.stdout


def test_a_suite_may_be_given_by_its_file(call: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes((files("rlbench.suites") / "thermal.yaml").read_bytes())
    assert call("fare", "rlbind", "--suite", "mine.yaml").stdout == call("fare", "rlbind").stdout
    assert call("fare", "rlbind", "--suite", "mine.yaml:thermal").stdout == call("fare", "rlbind").stdout
    none = call("fare", "rlbind", "--suite", "audio")
    assert none.exit_code == 2 and "have no records of audio; suites there: thermal" in none.stderr


@pytest.mark.parametrize("name", ["tecoa", "nowhere.jsonl"])
def test_an_unknown_side(call: Callable[..., Result], name: str) -> None:
    result = call("fare", name)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and name in result.stderr


def test_bounds_are_shown_as_bounds_and_doubts_are_named() -> None:
    """A `descending` column has no difference and does not count for Holm; a model with a bad badge is named."""
    on, off = np.ones(40, dtype=bool), np.zeros(40, dtype=bool)
    columns = ("clean", "pgd linf 4/255 descending")
    a, b = ([record(m, c, f) for c in columns] for m, f in (("a", off), ("b", on)))
    clean, bound = compare(a, b)
    assert (clean.verdict(), bound.verdict()) == ("B above", "bounds") and clean.p == pytest.approx(2 / 2**40)
    (row,) = contrasts([bound], ("a", "b"))
    assert (row["a"], row["b"], row["difference"], row["p"]) == ("≤ 0.0", "≤ 100.0", "of bounds", "-")
    assert doubts([record("a", "clean", on, soundness="unreliable"), *b]) == [
        "a:mini is unreliable on thermal: its accuracies may be too high"
    ]
