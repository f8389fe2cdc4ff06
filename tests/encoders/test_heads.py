"""Zero-shot heads: articles, prompt ensembles, anchors."""

import pytest
import torch

from rlbench.core import Label
from rlbench.encoders.articles import with_article
from rlbench.encoders.clip.hashed_text import HashedText
from rlbench.encoders.heads import ZeroShot, prompts, zero_shot


class TextOnly:
    logit_scale = 10.0

    def __init__(self) -> None:
        self.text = HashedText()

    def embed_text(self, texts):
        return self.text(texts)

    def embed(self, x, modality):
        return x


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("dog", "a dog"),
        ("owl", "an owl"),
        ("octopus", "an octopus"),
        ("pair of scissors", "a pair of scissors"),
        ("footsteps", "footsteps"),
        ("dog barking", "dog barking"),
        ("outdoor background noise", "outdoor background noise"),
        ("empty ground", "empty ground"),
        ("an owl", "an owl"),
        ("cup of coffee", "a cup of coffee"),
    ],
)
def test_names_get_their_article(name, written) -> None:
    assert with_article(name) == written


def test_templates_are_filled() -> None:
    assert prompts("owl", ["a photo of {a}.", "the {} itself"]) == ["a photo of an owl.", "the owl itself"]


def test_anchors_are_the_normalised_mean_of_the_prompts() -> None:
    classes, templates = (Label("d", "dog"), Label("c", "car")), ("a photo of {a}.", "a drawing of {a}.")
    head = zero_shot(TextOnly(), "image", classes, templates)
    by_hand = torch.stack([HashedText()(prompts(c.name, templates)).mean(0) for c in classes])
    assert torch.allclose(head.anchors, by_hand / by_hand.norm(dim=1, keepdim=True), atol=1e-6)
    x = torch.nn.functional.normalize(torch.randn(4, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(head(x), 10.0 * x @ head.anchors.T)
    assert head.find_duplicate_anchors() is None


def test_the_hash_is_of_the_anchors() -> None:
    anchors = torch.eye(3, 4)
    head = ZeroShot(TextOnly(), "image", anchors)
    assert head.anchors_hash() == ZeroShot(TextOnly(), "image", anchors + 1e-7).anchors_hash()
    assert head.anchors_hash() != ZeroShot(TextOnly(), "image", anchors.flip(0)).anchors_hash()


def test_classes_with_one_anchor_are_found() -> None:
    assert ZeroShot(TextOnly(), "image", torch.eye(4)[[0, 1, 2, 1]]).find_duplicate_anchors() == (1, 3)
