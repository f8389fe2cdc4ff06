"""Names of models without a card: a user's own encoder, random weights, paths, defences."""

from __future__ import annotations

import pytest
import torch

from rlbench.core.errors import ModalityError, RLBenchError, UnknownName
from rlbench.encoders.models import is_path, load_encoder, resolve

OWN = """
import torch
from rlbench.core import Box
class Mine:
    boxes = {"image": Box(shape=(3, 4, 4))}
    traits, logit_scale, sha256 = frozenset(), 100.0, {}
    def embed(self, x, modality): return torch.nn.functional.normalize(x.flatten(1), dim=1)
    def embed_text(self, prompts): return torch.eye(48)[: len(prompts)]
def half(): return object()
nothing = 3
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [("rlbind+jpg", "no defence named 'jpg'; did you mean 'jpeg'"), ("rlbnd+jpg", "no model named 'rlbnd'")],
)
def test_the_part_of_a_name_that_is_unknown_is_named(name, said) -> None:
    with pytest.raises(UnknownName, match=said):
        resolve(name)


def test_a_user_s_own_encoder(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_encoders.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    encoder = load_encoder("own_encoders:Mine", "image")
    assert type(encoder).__name__ == "Mine" and resolve("own_encoders:Mine").family == "MODULE:CALLABLE"
    with pytest.raises(ModalityError, match="own_encoders:Mine has no video; it has image"):
        load_encoder("own_encoders:Mine", "video")
    with pytest.raises(RLBenchError, match="returned object, which is not an encoder: it lacks boxes, traits"):
        load_encoder("own_encoders:half")
    with pytest.raises(RLBenchError, match=r"own_encoders \(.*own_encoders.py\) has no callable 'nothing'"):
        load_encoder("own_encoders:nothing")
    ours = ("rlbind:mini", "hf:openai/clip", "open_clip:ViT-B-32/openai", "open_clip:hf-hub:chs20/fare2-clip")
    assert not any(map(is_path, ours))
    assert all(
        map(is_path, ("runs/1", "hf:./clip", "hf:/clip", "hf:~/clip", "open_clip:local-dir:clip", "runs:1/a", "a\\b"))
    )
    for name in (
        "hf:ID",
        "random:BACKBONE",
        "MODULE:CALLABLE",
        "rlbind:mini2",
        "languagebind:vit-l-15",
    ):
        with pytest.raises(UnknownName):
            resolve(name)
    with pytest.raises(RLBenchError, match="there is no module 'no_such_module'; its folder must be the working dir"):
        load_encoder("no_such_module:Mine")


def test_random_weights_of_a_backbone() -> None:
    model = resolve("random:mini")
    assert set(model.modalities) == {"image", "audio", "thermal", "video"}
    encoder = load_encoder("random:mini", "thermal")
    assert list(encoder.boxes) == ["thermal"]
    x = torch.rand(2, *encoder.boxes["thermal"].shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder.embed(x, "thermal"), load_encoder("random:mini", "thermal").embed(x, "thermal"))
    assert set(resolve("random:vit-l-14").modalities) == {"image", "audio", "thermal", "video", "depth"}
    with pytest.raises(UnknownName, match="no backbone named 'vit-l-15'; did you mean 'vit-l-14'"):
        resolve("random:vit-l-15")


def test_defences_wrap_the_encoder_in_the_order_of_the_name() -> None:
    model = resolve("linear+jpeg+blur")
    assert (model.name, model.defences) == ("linear:oracle+jpeg+blur", ("jpeg", "blur"))
    outer = load_encoder("linear+jpeg+blur", "image")
    assert [type(one.defence).__name__ for one in (outer, outer.sibling)] == ["Blur", "Jpeg"]
    assert type(outer.sibling.sibling).__name__ == "Linear"


def test_a_file_that_alone_is_no_model_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "w.pth").touch()
    for name, message in (
        ("mine.py", "mine.py is a file; .* such as mine:make"),
        ("mine", "mine is a module; .* such as mine:make"),
        ("w.pth", "w.pth has weights, .*; write a function that loads it"),
    ):
        with pytest.raises(RLBenchError, match=message):
            resolve(name)
    for name, message in (
        ("mine:Mime", "has no callable 'Mime'; did you mean 'Mine'"),
        ("mins:Mine", "no module 'mins'; did you mean 'mine'"),
    ):
        with pytest.raises(RLBenchError, match=message):
            load_encoder(name)
