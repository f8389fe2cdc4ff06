"""LanguageBind as an encoder: boxes, training and saving of towers, one text tower, the hub when offline."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from huggingface_hub import constants
from languagebind_models import WORDS, write_checkpoint
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize

from rlbench.core import Box, Modality, registry
from rlbench.core.errors import CheckpointError, FieldError, ModalityError
from rlbench.encoders import hub
from rlbench.encoders.clip.text import ClipTokens, HashedTokens
from rlbench.encoders.clip.towers import TextSizes
from rlbench.encoders.languagebind import LanguageBind
from rlbench.encoders.loading import check_frozen
from rlbench.encoders.models import load_encoder, resolve

MODALITIES: tuple[Modality, ...] = ("image", "thermal", "depth", "audio", "video")


def make(**fields: object) -> LanguageBind:
    encoder = registry.make("encoder", "languagebind", {"size": "tiny", **fields})
    assert isinstance(encoder, LanguageBind)
    return encoder


def inputs(box: Box, n: int = 2) -> torch.Tensor:
    return box.low + (box.high - box.low) * torch.rand(n, *box.shape, generator=torch.Generator().manual_seed(0))


def test_every_modality_has_its_box_and_gradients() -> None:
    encoder = make(fresh=list(MODALITIES))
    check_frozen(encoder, "tiny")
    shapes = {m: box.shape for m, box in encoder.boxes.items()}
    assert shapes == {
        "image": (3, 28, 28),
        "thermal": (1, 28, 28),
        "depth": (1, 28, 28),
        "audio": (1, 28, 70),
        "video": (3, 4, 28, 28),
    }
    assert encoder.logit_scale == 100 and set(encoder.sha256) == set(MODALITIES)
    for modality in MODALITIES:
        x = inputs(encoder.boxes[modality]).requires_grad_()
        embedded = encoder.embed(x, modality)
        torch.testing.assert_close(embedded, normalize(encoder.features(x, modality)))
        torch.testing.assert_close(encoder.tower(modality)(x), encoder.features(x, modality))
        (gradient,) = torch.autograd.grad(embedded[:, 0].sum(), x)
        assert gradient.isfinite().all() and (gradient != 0).flatten(1).any(1).all()
    assert make(fresh=["thermal"], thermal=3).boxes["thermal"].shape == (3, 28, 28)
    waves = make(fresh=["audio"], audio="waveform", seconds=0.5).boxes["audio"]
    assert (waves.shape, waves.low, waves.high, waves.unit) == ((1, 8000), -1, 1, "waveform")
    with pytest.raises(ModalityError, match="has no audio; it has thermal"):
        make(fresh=["thermal"]).embed(inputs(waves), "audio")
    with pytest.raises(ModalityError, match="needs a modality: give files or fresh"):
        make()
    with pytest.raises(FieldError, match="thermal is 2"):
        make(fresh=["thermal"], thermal=2)


def test_the_published_sizes_are_those_of_vit_l_14() -> None:
    """Parameters counted by hand: 24 layers of 12 D^2 and 13 D, patches, positions, norms, projection."""
    from rlbench.encoders.clip.towers import shapes
    from rlbench.encoders.languagebind import choose_sizes

    d, layers = 1024, 24
    layer = 12 * d * d + 13 * d
    for modality, positions in (("image", 257), ("thermal", 257), ("audio", 593), ("video", 257)):
        count = sum(shape.numel() for shape in shapes(choose_sizes("vit-l-14", modality)).values())
        expected = layers * layer + 3 * 14 * 14 * d + d + positions * d + 4 * d + 768 * d
        time = layers * (4 * d * d + 4 * d + 2 * d + 8 * d)  # attention, norm, embedding of 8 frames
        assert count == expected + (time if modality == "video" else 0)
    assert sum(shape.numel() for shape in shapes(TextSizes()).values()) == 123_060_480 + 768 * 768


@pytest.mark.parametrize(("modality", "fields"), [("thermal", {}), ("audio", {"audio": "waveform", "seconds": 0.08})])
def test_the_loss_s_gradient_reaches_raw_inputs(modality, fields) -> None:
    """In float64, along random directions, compared with central differences."""
    encoder = make(fresh=[modality], **fields).double()
    box = encoder.boxes[modality]
    anchors = normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(1)).double())

    def loss(x: torch.Tensor) -> torch.Tensor:
        return cross_entropy(10 * encoder.embed(x, modality) @ anchors.T, torch.tensor([0, 2]), reduction="sum")

    x = inputs(box).double() * 0.5
    (gradient,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    for seed in range(3):
        d = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        numeric = (loss(x + 1e-6 * d) - loss(x - 1e-6 * d)) / 2e-6
        torch.testing.assert_close((gradient * d).sum(), numeric, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("modality", ["image", "video"])
def test_checkpointing_changes_no_gradient(modality) -> None:
    gradients = []
    for again in (False, True):
        encoder = make(fresh=[modality])
        tower = encoder.tower(modality).requires_grad_(True)
        if again:
            tower.gradient_checkpointing_enable()
        encoder.features(inputs(encoder.boxes[modality]), modality).square().sum().backward()
        gradients.append({name: p.grad for name, p in tower.named_parameters()})
        assert not any(p.requires_grad for p in encoder.text.parameters())
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_a_trained_tower_is_saved_and_read_again(tmp_path) -> None:
    first, path, x = (
        make(fresh=["video"], seed=3),
        tmp_path / "tower.safetensors",
        inputs(make(fresh=["video"]).boxes["video"]),
    )
    with torch.no_grad():
        first.tower("video").vision.visual_projection.weight += 1
    first.save("video", path)
    again = make(files={"video": path})
    assert torch.equal(again.features(x, "video"), first.features(x, "video"))
    assert torch.equal(again.embed_text(WORDS), first.embed_text(WORDS)) and again.boxes == first.boxes
    check_frozen(again, "saved")
    data = path.read_bytes()
    again.save("video", path)
    assert path.read_bytes() == data
    make(fresh=["thermal"], thermal=3).save("thermal", tmp_path / "thermal")
    assert make(files={"thermal": tmp_path / "thermal"}).boxes["thermal"].shape[0] == 3
    assert make(files={"thermal": tmp_path / "thermal"}, thermal=1).boxes["thermal"].shape[0] == 1
    with pytest.raises(CheckpointError, match="is a tower for video; image was requested"):
        make(files={"image": path})
    with pytest.raises(CheckpointError, match="was trained with another text tower than that of fresh tiny 3"):
        make(fresh=["image"], seed=4).save("image", tmp_path / "image")
        make(files={"video": path, "image": tmp_path / "image"})
    for faulty in (data[:-10], b"", b"not safetensors"):
        path.write_bytes(faulty)
        with pytest.raises(CheckpointError, match=r"tower\.safetensors can't be read as a saved tower"):
            make(files={"video": path})
    save_file({"a": torch.ones(1)}, path, metadata={"rlbench": json.dumps({"modality": "video", "sizes": {}})})
    with pytest.raises(CheckpointError, match="does not hold the tower that it describes"):
        make(files={"video": path})


def test_seeds_draw_different_towers_and_texts() -> None:
    x, first = inputs(make(fresh=["image"]).boxes["image"]), make(fresh=["image"])
    assert torch.equal(make(fresh=["image"]).embed(x, "image"), first.embed(x, "image"))
    other = make(fresh=["image"], seed=1)
    assert (other.embed(x, "image") - first.embed(x, "image")).abs().max() > 0.1
    assert other.sha256 != first.sha256
    rows = first.embed_text([f"a photo of a {name}." for name in ("dog", "cat", "dog")])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert torch.equal(rows[0], rows[2]) and rows[0] @ rows[1] < 0.9999
    assert first.embed_text([]).shape == (0, 24)


def test_words_are_hashed_between_begin_and_end() -> None:
    ids, mask = HashedTokens(100, 6)(["A dog!", "one two three four five six", ""])
    assert ids[0, 0] == 98 and ids[0, 3:].tolist() == [99, 99, 99] and mask[0].tolist() == [1, 1, 1, 1, 0, 0]
    assert ids[1].tolist()[-1] == 99 and (ids[1, 1:5] < 98).all() and mask[1].tolist() == [1] * 6
    assert ids[2].tolist() == [98, *[99] * 5] and torch.equal(ids[0, :3], HashedTokens(100, 6)(["a DOG"])[0][0, :3])


def test_published_checkpoints_share_their_text_tower(tmp_path) -> None:
    files = {m: write_checkpoint(tmp_path / m, m, seed) for seed, m in enumerate(("thermal", "image"))}
    encoder = make(files=files)
    assert set(encoder.boxes) == {"thermal", "image"} and len(set(encoder.sha256.values())) == 2
    tokens = ClipTokens(files["thermal"], encoder.text.tower.sizes.vocabulary, 16)
    ids, mask = tokens(["A photo of a dog", "cat"])
    end = encoder.text.tower.sizes.vocabulary - 1
    assert ids[0, 0] == end - 1 and ids[0, 6:].tolist() == [end] * 10 and mask.sum(1).tolist() == [7, 3]
    rows = encoder.embed_text(["a photo of a dog", "A  photo of a DOG", "a photo of a cat"])
    torch.testing.assert_close(rows[0], rows[1])
    encoder.save("thermal", tmp_path / "saved")
    x, again = inputs(encoder.boxes["thermal"]), make(files={"thermal": tmp_path / "saved"})
    assert torch.equal(again.embed(x, "thermal"), encoder.embed(x, "thermal"))
    assert torch.equal(again.embed_text(["a cat"]), encoder.embed_text(["a cat"]))
    named, x = load_encoder(f"hf:{files['thermal']}", "thermal"), inputs(encoder.boxes["thermal"])
    assert torch.equal(named.embed(x, "thermal"), encoder.embed(x, "thermal"))
    with pytest.raises(CheckpointError, match="was trained with another text tower than that of folder"):
        make(files={**files, "depth": write_checkpoint(tmp_path / "depth", "depth", text_seed=1)})
    moved = files["thermal"].rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"there is no folder .*, which should hold a checkpoint"):
        make(files={"thermal": tmp_path / "saved"})
    again = make(files={"thermal": tmp_path / "saved"}, text=str(moved))
    assert torch.equal(again.embed_text(["a cat"]), encoder.embed_text(["a cat"]))
    (moved / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer: it needs vocab\.json"):
        make(files={"thermal": moved})


def test_a_card_names_a_folder_or_the_hub(tmp_path, monkeypatch) -> None:
    write_checkpoint(tmp_path / "LanguageBind_Thermal", "thermal")
    backbone = {"family": "languagebind", "modalities": {"thermal": {"file": "LanguageBind_Thermal"}}}
    card = {"baseline": "mine", "summary": "A copy.", "backbones": {"tiny": backbone}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    encoder = load_encoder(str(tmp_path), "thermal")
    assert list(encoder.boxes) == ["thermal"] and len(encoder.sha256["thermal"]) == 64
    backbone["modalities"]["thermal"]["sha256"] = encoder.sha256["thermal"]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    assert load_encoder(str(tmp_path), "thermal").sha256 == encoder.sha256
    backbone["modalities"]["thermal"]["sha256"] = 64 * "0"
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(CheckpointError, match=r"model\.safetensors was altered"):
        load_encoder(str(tmp_path), "thermal")
    cached = tmp_path / "models--LanguageBind--LanguageBind_Thermal" / "snapshots" / "abc123"
    write_checkpoint(cached, "thermal")
    monkeypatch.setattr(hub, "fetch", lambda repo, revision=None: cached)
    backbone["modalities"] = {"thermal": {"hub": "LanguageBind/LanguageBind_Thermal"}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    encoder = load_encoder(str(tmp_path), "thermal")
    assert isinstance(encoder, LanguageBind)
    assert encoder.text.source == "hub LanguageBind/LanguageBind_Thermal abc123"
    encoder.save("thermal", tmp_path / "saved")
    again = make(files={"thermal": tmp_path / "saved"})
    assert torch.equal(again.embed_text(["a cat"]), encoder.embed_text(["a cat"]))


def test_without_the_files_there_is_one_clear_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = resolve("languagebind:vit-l-14")
    assert set(model.modalities) == set(MODALITIES) and model.size == 0
    with pytest.raises(CheckpointError) as caught:
        load_encoder(model.name, "thermal")
    assert "; on a machine with network access, run: hf download LanguageBind/LanguageBind_Thermal;" in str(
        caught.value
    )
    assert "\n" not in str(caught.value) and "HF_HUB_OFFLINE is set" in str(caught.value)
    with pytest.raises(CheckpointError, match="'no name at all' is not the name of a checkpoint on the hub"):
        hub.fetch("no name at all")
    cached = tmp_path / "models--LanguageBind--LanguageBind_Depth"
    write_checkpoint(cached / "snapshots" / "abc123", "depth")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc123")
    assert list(load_encoder(model.name, "depth").boxes) == ["depth"]
