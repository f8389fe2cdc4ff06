"""Edits of class names in suites: exact by brute force and in closed form, and no worse alone than with the input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import text_oracle as oracle
import torch
from torch import Tensor

from rlbench.attacks.text import edits
from rlbench.attacks.text.choices import choose_shared
from rlbench.attacks.text.edits import edit_names
from rlbench.core.errors import RLBenchError
from rlbench.core.stats.metrics import margin
from rlbench.core.suite import load_suite
from rlbench.encoders.edited import embed_names, embed_templates
from rlbench.encoders.heads import zero_shot
from rlbench.engine import cells
from rlbench.engine.plan.planner import plan
from rlbench.engine.run.runner import run
from rlbench.gate.compare import compare
from rlbench.gate.regression import gate
from rlbench.report.boards.heads import describe_columns
from rlbench.report.boards.tables import frame, tables
from rlbench.report.figures.curves import curves
from rlbench.report.figures.sheets import choose, collect
from rlbench.report.site.page import render as page
from rlbench.store.perturbations import from_columns, from_mapping, simplify, to_columns, to_mapping
from rlbench.store.records import read_records
from rlbench.tasks.words import list_class_words

MODEL = "text_oracle:letters"
EPS = 0.01
ATTACK = "{attack: apgd-ce, norm: linf, eps: 0.01, steps: 20}"
ANY, ANY_JOINT = "{text: typo-any, edits: 1}", f"{{text: typo-any, edits: 1, then: {ATTACK}}}"
LEVELS = "{text: [template, typo-shared, typo-any], edits: 1%s}"


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "text_oracle")


def _inputs(split: str = "test") -> tuple[Tensor, Tensor]:
    """(N, 64) inputs minus 1/2, whose scores have the order of the cosines, and their labels."""
    examples = oracle.ShortNames().load(oracle.BOX, 0, oracle.N, split)
    return examples.x.flatten(1) - 0.5, examples.y


def _names() -> tuple[Tensor, Tensor]:
    names = edit_names(oracle.NAMES, 1, dictionary=list_class_words())
    return embed_names(oracle.Letters(), oracle.CLASSES, names, oracle.TEMPLATES)  # type: ignore[arg-type]


def _clean(x: Tensor, y: Tensor) -> Tensor:
    anchors = zero_shot(oracle.Letters(), "image", oracle.CLASSES, oracle.TEMPLATES).anchors  # type: ignore[arg-type]
    return margin(x @ anchors.T, y) > 0


@pytest.mark.parametrize(
    ("model", "said"), [("strict", r"embed_text raised KeyError at text_oracle.py:\d+"), ("undefined", "not finite")]
)
def test_a_text_tower_that_fails_on_edited_names_fails_only_their_cells(tmp_path: Path, model: str, said: str) -> None:
    records = run(oracle.suite_file(tmp_path, ANY), f"text_oracle:{model}", out=tmp_path, workers=1)
    clean, edited = sorted(records, key=lambda record: str(record.perturbation) != "clean")
    assert clean.error is None and clean.n_correct
    assert edited.n_correct is None and re.search(said, str(edited.error))


def test_typo_any_in_a_suite_is_brute_force_over_every_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "ALPHABET", "ex")
    found = oracle.flags(run(oracle.suite_file(tmp_path, ANY), MODEL, out=tmp_path, workers=1))
    anchors, owners = _names()
    x, y = _inputs()
    own = [(owners == c).nonzero()[:, 0] for c in range(4)]
    robust = torch.ones(len(x), dtype=torch.bool)
    for lists in torch.cartesian_prod(*own).split(5000):  # (L, 4): every list of names
        z = (x @ anchors.T)[:, lists]
        robust &= (margin(z.flatten(0, 1), y.repeat_interleave(len(lists))).view(len(x), -1) > 0).all(1)
    assert torch.equal(found["typo-any 1"], robust)
    assert 0 < robust.sum() < found["clean"].sum()


def test_text_input_and_both_are_the_closed_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a name a of the true class and b of another, (x - 1/2)(a - b) falls by at most eps |a - b|_1."""
    monkeypatch.setattr(edits, "ALPHABET", "ex")
    targeted = ATTACK.replace("apgd-ce", "apgd-t")
    found = oracle.flags(
        run(
            oracle.suite_file(tmp_path, ANY, targeted, ANY_JOINT.replace(ATTACK, targeted), "worst"),
            MODEL,
            out=tmp_path,
            workers=1,
        )
    )
    anchors, owners = _names()
    x, y = _inputs()
    scores = x @ anchors.T
    gap = scores[:, :, None] - scores[:, None] - EPS * (anchors[:, None] - anchors).abs().sum(2)
    others = owners[None] != y[:, None]
    allowed = ~others[:, :, None] & others[:, None]
    least = gap.masked_fill(~allowed, torch.inf).flatten(1).amin(1)
    clear = least.abs() > 0.002
    attack = "apgd-t(steps=20) linf 0.01"
    for name in (f"typo-any 1 + {attack}", "worst typo-any 1 + linf 0.01"):
        assert torch.equal(found[name][clear], least[clear] > 0)
    assert clear.float().mean() > 0.8 and 0 < found[name].sum() < min(found["typo-any 1"].sum(), found[attack].sum())
    assert torch.equal(found["worst linf 0.01"], found[attack])


def test_both_break_what_text_or_input_breaks_alone(tmp_path: Path) -> None:
    """In every batch and with every level: each example by itself."""
    file = oracle.suite_file(tmp_path, LEVELS % "", ATTACK, LEVELS % f", then: {ATTACK}", "worst")
    found = oracle.flags(run(file, MODEL, out=tmp_path / "a", workers=1, examples=16))
    for level in ("template", "typo-shared 1", "typo-any 1"):
        text, both = found[level], found[f"worst {level} + linf 0.01"]
        search = found[f"{level} + apgd-ce(steps=20) linf 0.01"]
        assert not (both & ~(text & found["worst linf 0.01"])).any() and not (search & ~text).any()
        assert not (text & ~found["clean"]).any() and both.sum() <= search.sum()
    assert not (found["typo-any 1"] & ~found["typo-shared 1"]).any()
    again = oracle.flags(run(file, MODEL, out=tmp_path / "b", workers=1, examples=16, batch_size=7))
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_the_template_and_the_shared_list_are_those_of_a_loop(tmp_path: Path) -> None:
    file = oracle.suite_file(tmp_path, LEVELS % "")
    found = oracle.flags(run(file, MODEL, out=tmp_path, workers=1))
    x, y = _inputs()
    single = embed_templates(oracle.Letters(), oracle.CLASSES, oracle.TEMPLATES).split(4)  # type: ignore[arg-type]
    right = torch.stack([margin(x @ anchors.T, y) > 0 for anchors in single]).all(0)
    assert torch.equal(found["template"], right & _clean(x, y))
    anchors, owners = _names()
    f, labels = _inputs("val")
    list_of_names = anchors[choose_shared(f @ anchors.T, labels, owners)]
    assert torch.equal(found["typo-shared 1"], (margin(x @ list_of_names.T, y) > 0) & _clean(x, y))
    assert found["typo-shared 1"].sum() < found["clean"].sum()


def test_a_key_depends_on_level_and_edits_and_others_stay(tmp_path: Path) -> None:
    file = oracle.suite_file(tmp_path, LEVELS % "", "{text: typo-any, edits: 2}", ATTACK)
    suite = load_suite(file)
    keys = [cells.protocol(suite, p) for p in suite.perturbations]
    assert len(set(keys)) == 6
    joint = load_suite(oracle.suite_file(tmp_path, ANY, ATTACK, ANY_JOINT, "{text: template}", "worst")).perturbations
    assert cells.members_of(joint[-1], joint) == list(joint[1:4]) and cells.members_of(joint[-2], joint) == [joint[2]]
    plain = load_suite(oracle.suite_file(tmp_path, ATTACK))
    assert [cells.protocol(plain, p) for p in plain.perturbations] == [keys[0], keys[-1]]


def test_a_cascade_keeps_the_worst_case_of_both(tmp_path: Path) -> None:
    file = oracle.suite_file(tmp_path, ANY, ATTACK, ANY_JOINT, "worst")
    alone = oracle.flags(run(file, MODEL, out=tmp_path / "a", workers=1, examples=16))
    chain = oracle.flags(run(file, MODEL, out=tmp_path / "b", workers=1, examples=16, mode="cascade"))
    both = "worst typo-any 1 + linf 0.01"
    assert torch.equal(alone[both], chain[both]) and "apgd-ce(steps=20) linf 0.01" not in chain


def test_every_column_survives_its_record_and_its_data_frame(tmp_path: Path) -> None:
    file = oracle.suite_file(tmp_path, LEVELS % "", ATTACK, LEVELS % f", then: {ATTACK}", "worst")
    columns = [simplify(p) for p in load_suite(file).perturbations]
    assert [str(p) for p in columns[-4:]] == [
        "worst linf 0.01",
        "worst template + linf 0.01",
        "worst typo-any 1 + linf 0.01",
        "worst typo-shared 1 + linf 0.01",
    ]
    for one in columns:
        assert from_mapping(to_mapping(one)) == one == from_columns(to_columns(one))
    assert to_mapping(columns[3]) == {"kind": "edited", "text": "typo-any", "edits": 1}
    for wrong in ({"text": "typo"}, {"text": "typo-any"}, {"text": "template", "edits": 1}, {"edits": 1}):
        with pytest.raises(RLBenchError, match=r"perturbation: (text|edits) is"):
            from_mapping({"kind": "edited", **wrong})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{text: typo, edits: 1}", "text: no level named 'typo'; did you mean"),
        ("{text: typo-any}", "text: typo-any needs the key 'edits', such as edits: 1"),
        ("{text: typo-any, edits: 0}", "edits: 0 must be a whole number, at least 1"),
        ("{text: template, edits: 1}", "edits: a template has no edits; leave this key out"),
        ("{text: template, severity: 1}", "severity: no such key; allowed: text, edits, then"),
        ("{text: template, then: {attack: uap, norm: linf, eps: 1/255}}", "then: attack 'uap' makes one perturbation"),
        ("{text: [template, template]}", "text: 'template' appears twice"),
        ("{text: template, then: {attack: pgdd, norm: linf, eps: 1/255}}", "attack: no attack named 'pgdd'"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, entry: str, said: str) -> None:
    path = oracle.suite_file(tmp_path, entry)
    with pytest.raises(RLBenchError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:8: {said}")


@pytest.mark.parametrize(
    ("task", "entry", "said"),
    [
        ("", "{text: typo-any, edits: 3}", "typo-any 3: edits is 3; the class name 'cat' has 3 letters: at most 2"),
        (", names: café dog owl key", "{text: typo-any, edits: 1}", "'café' is not ASCII"),
        (", val: 0", "{text: typo-shared, edits: 1}", "the task has no validation split"),
        (", views: 2", "{text: template}", "set views: 1"),
        ("-captions", "{text: template}", "edits are of class names, and retrieval has none"),
    ],
)
def test_a_task_that_can_t_have_edits_is_refused(tmp_path: Path, task: str, entry: str, said: str) -> None:
    head = oracle.HEAD.replace("short-names", "short-captions" if task == "-captions" else f"short-names{task}")
    with pytest.raises(RLBenchError, match=said) as error:
        plan(oracle.suite_file(tmp_path, entry, head=head), MODEL, store=tmp_path / "store")
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_a_model_with_fixed_texts_skips_them(tmp_path: Path) -> None:
    file = oracle.suite_file(tmp_path, "{text: template}", ATTACK, "worst")
    found = plan(file, "text_oracle:random", store=tmp_path / "store")
    skipped = {str(cell.perturbation): cell.skipped for cell in found.cells if cell.skipped}
    assert list(skipped) == ["template"] and "texts are chosen for one output" in str(skipped["template"])


def test_a_sheet_shows_the_words(tmp_path: Path) -> None:
    suite = load_suite(oracle.suite_file(tmp_path, LEVELS % f", then: {ATTACK}"))
    allowed = [set(names[1:]) for names in edit_names(oracle.NAMES, 1)]
    for text in ("typo-any 1 + apgd-ce(steps=20) linf 0.01", "template + apgd-ce(steps=20) linf 0.01"):
        sheet = collect(suite, MODEL, choose(suite, text), 8)
        for label, guess in zip(sheet.labels, sheet.perturbed, strict=True):
            name, _, words = guess.name.partition(" (")
            shown = words.rstrip(")").replace("'", "").split(", ") if words else []
            own = [allowed[oracle.NAMES.index(one)] for one in (label, name)]
            assert set(shown) <= (set(oracle.TEMPLATES) if "template" in text else own[0] | own[1])
        assert any("(" in guess.name for guess in sheet.perturbed)
        assert not any("(" in guess.name for guess in sheet.clean)


def test_tables_gate_comparison_and_page_have_the_columns(tmp_path: Path) -> None:
    file = oracle.suite_file(tmp_path, LEVELS % "", ATTACK, LEVELS % f", then: {ATTACK}", "worst")
    records = run(file, MODEL, out=tmp_path, workers=1, examples=8)
    [table] = tables(frame(read_records([tmp_path])))
    assert list(map(str, table.columns)) == [
        "clean",
        "template",
        "typo-any 1",
        "typo-shared 1",
        "apgd-ce(steps=20) linf 0.01",
        "worst linf 0.01",
        *(f"{t} + apgd-ce(steps=20) linf 0.01" for t in ("template", "typo-any 1", "typo-shared 1")),
        *(f"worst {t} + linf 0.01" for t in ("template", "typo-any 1", "typo-shared 1")),
    ]
    assert list(map(str, table.scale)) == ["worst linf 0.01"]  # ranks are of attacks on the input
    assert [c.what for c in curves(table)] == ["worst", "apgd-ce(steps=20)"]
    heads = {str(c): head for c, head in zip(table.columns, describe_columns(table.columns), strict=True)}
    assert heads["typo-any 1"].about.endswith("class names with typing errors for each input, in %")
    assert heads["worst typo-any 1 + linf 0.01"][:2] == ("worst typo-any 1", "L∞ 0.01")
    assert gate(records, records).exit_code == 0 and len(compare(records, records)) == len(records) == 12
    assert "worst typo-any 1 + linf 0.01" in page([tmp_path])
