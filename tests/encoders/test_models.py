"""Names of models, cards, and the refusal of files that do not match their card."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from rlbench.core.errors import CheckpointError, FieldError, ModalityError, RLBenchError, UnknownName
from rlbench.encoders import models as models_module
from rlbench.encoders.cards import Model, read_card
from rlbench.encoders.models import load_encoder, models, resolve

BUNDLED = [(m, modality) for m in models() if m.backbone in ("mini", "mini-scenes") for modality in m.modalities]


def test_the_bundled_models_are_complete_and_small() -> None:
    mini = {model.baseline: model for model in models() if model.backbone == "mini"}
    assert {"languagebind", "fare", "tecoa", "rlbind"} <= set(mini)
    scenes = [model for model in models() if model.backbone == "mini-scenes"]
    assert {"languagebind", "rlbind"} <= {model.baseline for model in scenes}
    for model in (*mini.values(), *scenes):
        assert set(model.modalities) == {"image", "thermal", "audio", "video"}
        assert model.source.startswith("https://arxiv.org/") and model.summary and model.data
    assert sum(model.size for model in models()) <= 15_000_000
    assert max(w.bytes for model in models() for w in model.weights.values()) <= 750_000


@pytest.mark.parametrize(("model", "modality"), BUNDLED, ids=[f"{m.name} {modality}" for m, modality in BUNDLED])
def test_bundled_checkpoints_match_their_card_and_embed(model: Model, modality) -> None:
    path = model.folder / str(model.weights[modality].file)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256[modality]
    encoder = load_encoder(model.name, modality)
    assert dict(encoder.sha256) == {modality: model.sha256[modality]}
    box = encoder.boxes[modality]
    assert (box.low, box.high) == (0.0, 1.0)
    e = encoder.embed(torch.rand(4, *box.shape), modality)
    assert torch.allclose(e.norm(dim=1), torch.ones(4), atol=1e-5) and not e.requires_grad
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())


def test_names() -> None:
    assert resolve("rlbind") == resolve("rlbind:mini") and resolve("rlbind").name == "rlbind:mini"
    assert resolve("linear").name == "linear:oracle" and resolve("linear").modalities == ("image",)
    for name, text in [("rlbnd", "did you mean 'rlbind'"), ("rlbind:big", "no model"), ("", "no model")]:
        with pytest.raises(UnknownName, match=text):
            resolve(name)
    with pytest.raises(CheckpointError, match=r"no card\.yaml"):
        resolve("runs/nothing")
    with pytest.raises(ModalityError, match="has no audio"):
        load_encoder("linear", "audio")


def test_naming_models_needs_no_torch() -> None:
    code = "import sys; from rlbench.encoders.models import models; models(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training run with one modality."""
    model = resolve("languagebind")
    weights = model.weights["thermal"]
    shutil.copy(model.folder / str(weights.file), tmp_path)
    entry = {"file": weights.file, "sha256": weights.sha256, "bytes": weights.bytes}
    backbone = {"family": "mini", "modalities": {"thermal": entry}}
    card = {"baseline": "mine", "summary": "A test.", "backbones": {"mini": backbone}}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    return tmp_path


def test_a_folder_is_a_model(run: Path) -> None:
    model = resolve(str(run))
    assert (model.name, model.baseline, model.backbone, model.modalities) == (str(run), "mine", "mini", ("thermal",))
    x = torch.rand(4, 1, 32, 32)
    ours, bundled = load_encoder(str(run)), load_encoder("languagebind", "thermal")
    assert torch.equal(ours.embed(x, "thermal"), bundled.embed(x, "thermal"))


def test_truncated_and_altered_files_are_refused_by_name(run: Path) -> None:
    path = run / "mini-thermal.safetensors"
    data = path.read_bytes()
    altered = bytearray(data)
    altered[-5] ^= 1
    for faulty, text in [(data[:-1], "has .* bytes"), (bytes(altered), "altered"), (b"", "has 0 bytes")]:
        path.write_bytes(faulty)
        with pytest.raises(CheckpointError, match=text) as raised:
            load_encoder(str(run), "thermal")
        assert path.name in str(raised.value) and "\n" not in str(raised.value)
    path.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_encoder(str(run))


@pytest.mark.parametrize(
    ("edit", "error", "text"),
    [
        (lambda c: c.pop("summary"), FieldError, "needs the field 'summary'"),
        (lambda c: c.update(sumary=1), FieldError, "did you mean 'summary'"),
        (lambda c: c.update(backbones=[]), FieldError, "backbones"),
        (lambda c: c["backbones"].update(mini=3), CheckpointError, "must be a mapping"),
        (lambda c: c["backbones"]["mini"].pop("family"), FieldError, "needs the field 'family'"),
        (lambda c: c["backbones"]["mini"].update(family="maxi"), UnknownName, "no encoder named 'maxi'"),
        (lambda c: c["backbones"]["mini"]["modalities"].update(heat={}), UnknownName, "no modality named 'heat'"),
        (lambda c: c["backbones"]["mini"]["modalities"]["thermal"].update(bytes="x"), FieldError, "bytes is 'x'"),
        (lambda c: c["backbones"].update(other=c["backbones"]["mini"]), CheckpointError, "must have one"),
    ],
)
def test_faulty_cards(run: Path, edit, error: type[RLBenchError], text: str) -> None:
    path = run / "card.yaml"
    card = yaml.safe_load(path.read_text())
    edit(card)
    path.write_text(json.dumps(card))
    with pytest.raises(error, match=text):
        load_encoder(str(run))


def test_a_card_that_is_no_yaml(run: Path) -> None:
    (run / "card.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match=r"card\.yaml:1: not YAML"):
        read_card(run / "card.yaml")


def test_a_family_without_a_card_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third-party encoder in one file gets a name, and its modalities once it is resolved."""
    monkeypatch.setattr(models_module, "folders", lambda: iter(()))
    models_module._list_installed.cache_clear()
    try:
        assert {"linear", "mini"} <= {model.name for model in models()}
        assert resolve("linear").modalities == ("image",)
        assert load_encoder("linear", "image").boxes["image"].shape == (1, 8, 8)
        with pytest.raises(FieldError, match="needs the field 'files'"):
            load_encoder("mini")
    finally:
        models_module._list_installed.cache_clear()
