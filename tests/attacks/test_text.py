"""Text edits: the names that are allowed, and the exact choice of names, by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD
from rlbench.attacks.text import edits
from rlbench.attacks.text.edits import count_edits, edit_names, edit_once
from rlbench.attacks.text.joint import Joint, NameChoice, TemplateChoice, choose_shared
from rlbench.core import Ball, Label
from rlbench.core.errors import FieldError
from rlbench.core.seeds import ExampleStreams, generator
from rlbench.core.stats.metrics import margin
from rlbench.encoders.edited import embed_names, embed_templates
from rlbench.encoders.heads import zero_shot
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter

NAMES = ("cat", "dog", "owl", "key")
CLASSES = tuple(Label(name, name) for name in NAMES)
TEMPLATES = ("a photo of {a}.", "{}")


class Text:
    """A text tower that adds a random vector per letter, so that an edit of a name moves it by a third of its way."""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        letters = torch.from_numpy(generator("letters").standard_normal((128, 64))).float()
        rows = torch.stack([letters[list(prompt.encode())].sum(0) for prompt in prompts])
        return rows / rows.norm(dim=1, keepdim=True)


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
    alone = margin(NameChoice(owners, only_own=True)(scores, y), y) > 0
    for i in range(len(f)):
        others = [c for c in range(4) if c != y[i]]
        assert alone[i] == (scores[i, own[y[i]]].min() > scores[i, [first[c] for c in others]].max())
    assert robust.sum() < alone.sum()


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
    torch.testing.assert_close(margin(TemplateChoice(3)(scores, y), y), torch.stack(single).amin(0))
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


def test_a_joint_attack_reaches_the_closed_form_of_a_linear_encoder() -> None:
    """For a name a of the true class and b of another, the least difference of their scores in the ball is linear."""
    g, n, eps = torch.Generator().manual_seed(0), 100, 0.1
    owners = torch.arange(2).repeat_interleave(6)
    anchors = torch.randn(2, 20, generator=g)[owners] + 0.2 * torch.randn(12, 20, generator=g)
    y = torch.arange(n) % 2
    base = anchors[:6].mean(0) - anchors[6:].mean(0)
    x = 0.2 * torch.randn(n, 20, generator=g) + torch.where(y == 0, 0.07, -0.07)[:, None] * base
    pairs = anchors[:, None] - anchors[None]
    gap = (x @ anchors.T)[:, :, None] - (x @ anchors.T)[:, None] - eps * pairs.abs().sum(2)
    allowed = (owners[:, None] == y[:, None, None]) & (owners[None] != y[:, None, None])
    least = gap.masked_fill(~allowed, torch.inf).flatten(1).amin(1)

    def joint(rows: Tensor) -> Joint:
        return Joint(Meter(lambda x: x @ anchors.T, len(rows)), y[rows], NameChoice(owners))

    everyone, ball = torch.arange(n), Ball("linf", eps, -9.0, 9.0)
    text = judge(joint(everyone), x, x, y, ball).correct
    rows = text.nonzero()[:, 0]
    streams = ExampleStreams(0, tuple(map(str, rows.tolist())), "test")
    x_adv = APGD(name="apgd-t")(joint(rows), x[rows], y[rows], ball, streams)
    robust = torch.zeros(n, dtype=torch.bool)
    robust[rows] = judge(joint(rows), x_adv, x[rows], y[rows], ball).correct
    clear = least.abs() > 1e-2
    assert clear.float().mean() > 0.9 and 10 < int((least > 0).sum()) < int(text.sum()) - 10 < n - 12
    assert torch.equal(robust[clear], (least > 0)[clear])
