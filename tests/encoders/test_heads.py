"""Zero-shot heads: articles, prompt ensembles, anchors."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from rlbench.core import Box, Label
from rlbench.core.box import Fit
from rlbench.encoders.articles import with_article
from rlbench.encoders.clip.hashed_text import HashedText
from rlbench.encoders.heads import Resized, ZeroShot, prompts, zero_shot
from rlbench.encoders.retrieval import head_of


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


class Pixels(TextOnly):
    """Embeds the first pixels of pictures of 24 x 20."""

    boxes: ClassVar = {"image": Box(shape=(3, 24, 20), fit=Fit(resize="short", size=(24, 24)))}

    def embed(self, x, modality):
        assert x.shape[1:] == (3, 24, 20)
        return torch.nn.functional.normalize(x.flatten(1)[:, :64], dim=1)


def test_pictures_at_their_own_resolution_are_resized_inside() -> None:
    anchors = torch.nn.functional.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(1)))
    plain = ZeroShot(Pixels(), "image", anchors)
    head = Resized(**vars(plain), resolution=16)
    assert head.box == Box(shape=(3, 16, 16)) and plain.box.shape == (3, 24, 20)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2), requires_grad=True)
    larger = torch.nn.functional.interpolate(x, (24, 20), mode="bicubic", align_corners=False)
    assert torch.allclose(head(x), plain(larger), atol=1e-4)
    (one,), (other,) = (torch.autograd.grad(f.square().sum(), x) for f in (head(x), plain(larger)))
    assert torch.allclose(one, other, atol=1e-3) and one.abs().max() > 0.1
    same = Resized(**{**vars(plain), "encoder": Square()}, resolution=24)
    y = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(same(y), ZeroShot(Square(), "image", anchors)(y), atol=1e-5)


class Square(Pixels):
    boxes: ClassVar = {"image": Box(shape=(3, 24, 24))}

    def embed(self, x, modality):
        return torch.nn.functional.normalize(x.flatten(1)[:, :64], dim=1)


@dataclass(frozen=True)
class Shown:
    """What a head asks of a task."""

    logit_scale: float | None = None
    resolution: int = 0
    classes: tuple[Label, ...] = (Label("d", "dog"), Label("c", "car"))
    templates: tuple[str, ...] = ("a {}.",)


def test_a_task_may_state_its_resolution_and_scale() -> None:
    x = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    usual, scaled = (head_of(Pixels(), "image", Shown(scale)) for scale in (None, 100.0))
    assert (usual.logit_scale, scaled.logit_scale) == (10.0, 100.0)
    assert torch.allclose(10 * usual(x), scaled(x))
    assert head_of(Pixels(), "image", Shown(resolution=8)).box.shape == (3, 8, 8)
