"""Text edits: the names that are allowed, and the exact choice of names, by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from text_oracle import CLASSES, NAMES, TEMPLATES
from text_oracle import Letters as Text
from torch import Tensor

from rlbench.attacks.text import edits
from rlbench.attacks.text.choices import ListChoice, NameChoice, choose_shared
from rlbench.attacks.text.edits import count_edits, edit_names, edit_once
from rlbench.core import Label
from rlbench.core.errors import FieldError
from rlbench.core.stats.metrics import margin
from rlbench.encoders.edited import embed_names, embed_templates
from rlbench.encoders.heads import zero_shot


def inputs(n: int = 60) -> tuple[Tensor, Tensor]:
    """Unit embeddings near the classes, and their labels."""
    anchors = zero_shot(Text(), "image", CLASSES, TEMPLATES).anchors
    y = torch.arange(n) % len(NAMES)
    f = anchors[y] + 0.06 * torch.randn(n, anchors.shape[1], generator=torch.Generator().manual_seed(0))
    return f / f.norm(dim=1, keepdim=True), y


@pytest.mark.parametrize(
    ("a", "b", "n"), [("kitten", "sitting", 3), ("", "abc", 3), ("dog", "dog", 0), ("ab", "ba", 2)]
)
def test_levenshtein_on_worked_examples(a: str, b: str, n: int) -> None:
    assert count_edits(a, b) == count_edits(b, a) == n


def test_one_edit_gives_every_name_at_distance_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "ALPHABET", "abt ")
    every = ["".join(letters) for n in (2, 3, 4) for letters in product("abct ", repeat=n)]
    expected = {n for n in every if count_edits(n, "cat") == 1 and n == " ".join(n.split())}
    assert set(edit_once("cat")) == {n for n in expected if n.count("c") <= 1}


def test_names_of_other_classes_and_new_words_are_not_allowed() -> None:
    names = edit_names(("cat", "cot", "solar panel"), 1, dictionary=("bat", "car"))
    assert names[0][0] == "cat" and "czt" not in names[0]  # as near to cot as to cat
    assert "cats" in names[0] and "caz" in names[0]
    assert not {"bat", "car", "cot", "cut"} & set(names[0])
    assert "sola panel" in names[2] and "solar pane" in names[2]
    assert all(count_edits(n, "cat") == 1 for n in names[0][1:])


def test_two_edits_include_all_of_one_and_are_seeded() -> None:
    one, two, again, other = (edit_names(NAMES, k, seed=s, limit=30) for k, s in ((1, 0), (2, 0), (2, 0), (2, 1)))
    assert two == again != other
    for a, b in zip(one, two, strict=True):
        assert b[: len(a)] == a and 10 < len(b) - len(a) <= 30
        assert {count_edits(name, b[0]) for name in b[len(a) :]} == {2}


@pytest.mark.parametrize(
    ("names", "k", "message"),
    [
        (("cat", "zebra"), 3, "edits is 3; the class name 'cat' has 3 letters: at most 2"),
        (("cat",), 0, "at least 1"),
        (("café",), 1, "not ASCII"),
        (("cat", "鸟"), 1, "the class name '鸟' is not ASCII"),
        (("cat", "x"), 1, "the class name 'x' has one letter"),
    ],
)
def test_edits_that_make_no_sense_are_refused(names: tuple[str, ...], k: int, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        edit_names(names, k)


def test_the_choice_of_names_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "ALPHABET", "ex")
    names = edit_names(NAMES, 1)
    anchors, owners = embed_names(Text(), CLASSES, names, TEMPLATES)
    f, y = inputs()
    scores = f @ anchors.T
    right = margin(NameChoice(owners)(scores, y), y) > 0
    own = [(owners == c).nonzero()[:, 0] for c in range(4)]
    assert min(map(len, own)) > 10
    robust = torch.ones(len(f), dtype=torch.bool)
    for lists in torch.cartesian_prod(*own).split(5000):  # (L, 4): every list of names
        z = scores[:, lists]
        robust &= (margin(z.flatten(0, 1), y.repeat_interleave(len(lists))).view(len(f), -1) > 0).all(1)
    assert torch.equal(right, robust)
    first = [int(o[0]) for o in own]
    assert 0 < robust.sum() < (scores[:, first].argmax(1) == y).sum()


def test_the_first_names_are_the_zero_shot_classifier() -> None:
    anchors, owners = embed_names(Text(), CLASSES, [(name,) for name in NAMES], TEMPLATES)
    torch.testing.assert_close(anchors, zero_shot(Text(), "image", CLASSES, TEMPLATES).anchors)
    f, y = inputs()
    torch.testing.assert_close(NameChoice(owners)(f @ anchors.T, y), f @ anchors.T)


def test_an_edited_name_keeps_the_article_of_its_class() -> None:
    seen = list[str]()

    class Spy(Text):
        def embed_text(self, prompts: Sequence[str]) -> Tensor:
            seen.extend(prompts)
            return super().embed_text(prompts)

    embed_names(
        Spy(), [Label("owl", "owl"), Label("x", "mug", "this mug")], [("owl", "wl"), ("mug", "mig")], ["see {a}"]
    )
    assert seen == ["see an owl", "see an wl", "see this mug", "see this mig"]


def test_the_worst_template_is_that_of_a_loop() -> None:
    f, y = inputs()
    f = f + 0.2 * torch.randn(f.shape, generator=torch.Generator().manual_seed(1))
    templates = ("a photo of {a}.", "{} {} {}", "zzz {}")
    scores = f @ embed_templates(Text(), CLASSES, templates).T
    single = [margin(f @ zero_shot(Text(), "image", CLASSES, [t]).anchors.T, y) for t in templates]
    torch.testing.assert_close(margin(ListChoice(3)(scores, y), y), torch.stack(single).amin(0))
    assert len(torch.stack(single).argmin(0).unique()) == 3


def test_a_shared_list_breaks_more_than_own_names_and_no_more_than_a_list_per_input() -> None:
    anchors, owners = embed_names(Text(), CLASSES, edit_names(NAMES, 1), TEMPLATES)
    f, y = inputs()
    scores = f @ anchors.T
    chosen = choose_shared(scores, y, owners)
    assert owners[chosen].tolist() == [0, 1, 2, 3]
    shared = margin(scores[:, chosen], y) > 0
    every = margin(NameChoice(owners)(scores, y), y) > 0
    own = margin(scores[:, [int((owners == c).nonzero()[0]) for c in range(4)]], y) > 0
    assert not (every & ~shared).any()
    assert every.sum() <= shared.sum() < own.sum()
