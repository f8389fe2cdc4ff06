"""The linear oracle against brute force, the hashed text tower's geometry, the mini towers' files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from rlbench.core.errors import CheckpointError, DataError, ModalityError
from rlbench.core.stats.metrics import margin
from rlbench.encoders.clip.hashed_text import HashedText
from rlbench.encoders.heads import prompts, zero_shot
from rlbench.encoders.linear import Linear, weights
from rlbench.encoders.mini import BOXES, Mini, Tower, mini, pack, unpack
from rlbench.tasks.blobs import Blobs


def minimal_eps(x: torch.Tensor, y: torch.Tensor, dual: int) -> torch.Tensor:
    """The smallest eps that changes the oracle's prediction, computed from W alone."""
    w = weights()
    z = (x.flatten(1) - 0.5) @ w.T
    reach = (z.gather(1, y[:, None]) - z) / torch.cdist(w[y][:, None], w[None].expand(len(y), -1, -1), p=dual)[:, 0]
    return reach.scatter(1, y[:, None], float("inf")).amin(1)


@pytest.mark.parametrize(("dual", "scale"), [(1, 8 / 255), (2, 0.2)])
def test_the_oracles_closed_form_is_what_the_encoder_does(dual: int, scale: float) -> None:
    """A move along the best direction breaks each example just beyond the closed-form eps, and never before."""
    task, encoder = Blobs(), Linear()
    head = zero_shot(encoder, "image", task.classes, task.templates)
    part = task.load(encoder.boxes["image"], 0, 60)
    x, y, w = part.x, part.y, weights()
    eps = minimal_eps(x, y, dual)
    correct = margin(head(x), y) > 0
    assert torch.equal(correct, eps > 0) and 0.5 < correct.float().mean() < 0.95
    assert (eps < scale).any() and x.min() >= 0.3 and x.max() <= 0.7
    survives = correct.clone()
    for rival in range(len(w)):
        d = (w[rival] - w[y]).view_as(x)
        step = d.sign() if dual == 1 else d / d.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        under, over = (x + f * eps.view(-1, 1, 1, 1) * step for f in (0.999, 1.001))
        assert (margin(head(under), y) > 0)[correct].all()
        survives &= margin(head(over), y) > 0
    assert not survives.any()


def test_the_oracles_logits_are_affine_and_its_embeddings_unit() -> None:
    encoder, g = Linear(), torch.Generator().manual_seed(0)
    x = torch.rand(64, 1, 8, 8, generator=g)
    e = encoder.embed(x, "image")
    assert torch.allclose(e.norm(dim=1), torch.ones(64), atol=1e-6)
    mixed = encoder.embed((x[:32] + x[32:]) / 2, "image")[:, :-1]
    assert torch.allclose(mixed, (e[:32] + e[32:])[:, :-1] / 2, atol=1e-6)
    with pytest.raises(ModalityError, match="has no audio"):
        encoder.embed(x, "audio")
    with pytest.raises(DataError, match="does not know"):
        encoder.embed_text(["a picture of a cat."])


def test_hashed_text_is_the_same_everywhere() -> None:
    """The signs of one hashed word, as crc32 and Philox define them; they hold on any machine."""
    text = HashedText()
    embedding = text(["a thermal image of a dog.", "A THERMAL image of a dog", "a thermal image of a cat."])
    assert torch.equal(embedding[0], embedding[1]) and not torch.equal(embedding[0], embedding[2])
    bits = np.random.Generator(np.random.Philox(zlib.crc32(b"common"))).integers(0, 2, 64)
    empty = text([""])[0]  # only what all prompts share
    assert torch.allclose(empty, torch.from_numpy(2.0 * bits - 1.0).float() / 8)
    assert zlib.crc32(b"common") == 0xE5EC7051 and "".join(map(str, bits[:16])) == "0101000000011010"


def test_hashed_text_has_the_geometry_of_a_text_tower() -> None:
    """Prompts share a direction; related ones are closer; templates change little."""
    text = HashedText()
    names = ["dog", "car", "person", "cup of coffee", "building", "campfire", "pipe", "airplane", "bicycle", "cat"]
    rows = text([f"a thermal image of a {name}." for name in names])
    assert torch.allclose(rows.norm(dim=1), torch.ones(10), atol=1e-6)
    cosines = rows @ rows.T
    others = cosines[~torch.eye(10, dtype=torch.bool)]
    assert 0.4 < others.mean() < 0.7
    assert cosines[0, 9] > 0.6 > cosines[0, 1] and cosines[1, 7] > 0.6 > cosines[1, 4]
    a, b = text(prompts("dog", ["a thermal image of {a}.", "an infrared photo of {a}."]))
    assert a @ b > max(0.9, float(cosines[0, 1:].max()))
    unknown = text(["zyxwv", "blorf"])  # no hypernyms: .40 of .75 is shared, the rest nearly orthogonal
    assert abs(float(unknown[0] @ unknown[1]) - 0.40 / 0.75) < 0.25


def test_a_packed_tower_is_restored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = Tower(BOXES["thermal"])
    data = pack(tower)
    assert data == pack(tower) and len(data) < 750_000
    again = unpack(data, "thermal", "test")
    for name, value in tower.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())
    assert pack(again) == data and not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("modality", BOXES)
def test_mini_embeds_every_modality(modality, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "tower.safetensors"
    path.write_bytes(pack(Tower(BOXES[modality])))
    encoder = mini(files={modality: path})
    assert isinstance(encoder, Mini) and list(encoder.boxes) == [modality] and not encoder.training
    x = torch.rand(3, *BOXES[modality].shape, requires_grad=True)
    e = encoder.embed(x, modality)
    assert e.shape == (3, 64) and torch.allclose(e.norm(dim=1), torch.ones(3), atol=1e-5)
    (gradient,) = torch.autograd.grad(e[:, 0].sum(), x)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    other = "audio" if modality != "audio" else "video"
    with pytest.raises(ModalityError, match=f"no {other}"):
        encoder.embed(x, other)


def test_a_faulty_tower_is_refused(tmp_path: Path) -> None:
    data = pack(Tower(BOXES["thermal"]))
    for faulty in (data[:-100], b"", b"not safetensors at all, but long enough to have a header"):
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            unpack(faulty, "thermal", "x.safetensors")
    with pytest.raises(CheckpointError, match="image tower"):
        unpack(data, "image", "x.safetensors")
    broken = load(data)
    broken["head.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        unpack(save(broken), "thermal", "x.safetensors")


def test_eight_bits_a_weight_are_near_the_weights() -> None:
    """Rounding to 255 levels of a row's largest weight is at most half a level off; vectors keep half precision."""
    tower = mini(fresh=("thermal",), seed=3).towers["thermal"]
    data = pack(tower, rows="int8")
    assert len(data) < 0.6 * len(pack(tower))
    near = unpack(data, "thermal", "here")
    for (name, own), other in zip(tower.state_dict().items(), near.state_dict().values(), strict=True):
        rows = own.flatten(1) if own.dim() > 1 and len(own) > 1 else own.reshape(1, -1)
        level = rows.abs().amax(1) / (127 if own.dim() > 1 and len(own) > 1 else 1024)
        assert ((rows - other.reshape(rows.shape)).abs().amax(1) <= 0.501 * level + 1e-8).all(), name
    x = torch.rand(8, 1, 32, 32)
    assert torch.allclose(tower(x), near(x), atol=0.05)
