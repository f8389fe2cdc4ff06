"""`onnx:FOLDER`: the answers of the torch model that was exported, and one line for each mistake in the folder."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from black_boxes import export, write_folder, write_vision, write_words
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from rlbench.core import Adversarial, Clean, Label, Threat
from rlbench.core.errors import AnswerError, CheckpointError, FieldError, RLBenchError
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import zero_shot
from rlbench.encoders.identity import identify
from rlbench.encoders.loading import load
from rlbench.encoders.models import is_path, load_encoder, resolve
from rlbench.encoders.onnx import OnnxClasses, OnnxEncoder
from rlbench.engine.run.runner import run

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
SHAPE = (3, 8, 8)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Vision(nn.Module):
    """(B, 3, 8, 8) -> (B, 6), with weights of a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", _draw(192, 6) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.w) * 3  # type: ignore[operator]


class Words(nn.Module):
    """(B, 5) int64 ids -> (B, 6), the mean of the embeddings of those that are not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", _draw(20, 6, seed=1) - 0.5)

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids > 0).float()[..., None]
        return (self.table[ids] * mask).sum(1) / mask.sum(1)  # type: ignore[index]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX files, anchors, and a tokenizer of three words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    folder = tmp_path_factory.mktemp("exported")
    write_vision(folder / "vision.onnx", Vision().w)  # type: ignore[arg-type]
    write_vision(folder / "fixed.onnx", Vision().w, batch=2)  # type: ignore[arg-type]
    write_words(folder / "text.onnx", Words().table)  # type: ignore[arg-type]
    save_file({"anchors": 2 * _draw(4, 6, seed=2)}, folder / "anchors.safetensors")
    words = {"<pad>": 0, "<unk>": 1, "cat": 2, "dog": 3, "a": 4}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy with `onnx.yaml` for four classes."""
    copy = tmp_path / "box"
    shutil.copytree(exported, copy)
    return write_folder(copy, SHAPE, classes=list("abcd"), anchors={"file": "anchors.safetensors"}, logit_scale=20.0)


TEXT = {"file": "text.onnx", "input": "ids", "output": "features", "length": 5}


def test_scores_by_anchors_are_the_torch_models(folder: Path) -> None:
    encoder, x = load_encoder(f"onnx:{folder}"), _draw(9, *SHAPE, seed=3)
    assert isinstance(encoder, OnnxClasses)
    expected = 20 * normalize(Vision()(x), dim=1) @ normalize(_draw(4, 6, seed=2), dim=1).T
    assert (encoder.classify(x, "image") - expected).abs().max() < 1e-5
    assert encoder.knowledge == "score" and encoder.classes == tuple("abcd")


def test_an_output_of_scores_needs_no_anchors(folder: Path) -> None:
    write_folder(folder, SHAPE, classes=list("abcdef"))
    x = _draw(4, *SHAPE)
    encoder = load_encoder(f"onnx:{folder}")
    assert isinstance(encoder, OnnxClasses)
    assert torch.allclose(encoder.classify(x, "image"), Vision()(x), atol=1e-5)


def test_a_file_with_a_fixed_batch_gives_the_same(folder: Path) -> None:
    x = _draw(5, *SHAPE)
    whole = load_encoder(f"onnx:{folder}").classify(x, "image")  # type: ignore[attr-defined]
    vision = {"file": "fixed.onnx", "input": "pixels", "output": "features"}
    write_folder(
        folder, SHAPE, vision=vision, classes=list("abcd"), anchors={"file": "anchors.safetensors"}, logit_scale=20.0
    )
    fixed = load_encoder(f"onnx:{folder}").classify(x, "image")  # type: ignore[attr-defined]
    assert torch.allclose(fixed, whole, atol=1e-5)


def test_normalisation_is_per_channel(folder: Path) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    write_folder(folder, SHAPE, classes=list("abcdef"), mean=list(mean), std=list(std))
    x = _draw(3, *SHAPE)
    z = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    found = load_encoder(f"onnx:{folder}").classify(x, "image")  # type: ignore[attr-defined]
    assert torch.allclose(found, Vision()(z), atol=1e-5)


def test_a_text_model_makes_a_zero_shot_encoder(folder: Path) -> None:
    write_folder(folder, SHAPE, text=TEXT)
    loaded = load(f"onnx:{folder}", "image")
    encoder, x = loaded.encoder, _draw(4, *SHAPE)
    assert isinstance(encoder, OnnxEncoder)
    ids = torch.tensor([[4, 2, 0, 0, 0], [4, 3, 0, 0, 0]])
    assert torch.allclose(encoder.embed_text(["a cat", "a dog"]), normalize(Words()(ids), dim=1), atol=1e-6)
    head = zero_shot(encoder, "image", [Label("cat", "cat"), Label("dog", "dog")], ["a {}"])
    expected = 100 * normalize(Vision()(x), dim=1) @ normalize(Words()(ids), dim=1).T
    assert (head(x) - expected).abs().max() < 1e-4


def test_identity_is_that_of_the_files_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)

    def identity(path: Path) -> Any:
        name = f"onnx:{path}"
        return identify(load_encoder(name), resolve(name), "image")

    assert identity(folder) == identity(other)
    save_file({"anchors": _draw(4, 6, seed=9)}, other / "anchors.safetensors")
    assert identity(folder) != identity(other)
    assert is_path(f"onnx:{folder}")


def _edit(folder: Path, **changes: object) -> None:
    about = yaml.safe_load((folder / "onnx.yaml").read_text()) | changes
    (folder / "onnx.yaml").write_text(yaml.safe_dump({k: v for k, v in about.items() if v is not None}))


VISION = {"file": "vision.onnx", "input": "pixels", "output": "features"}
MISTAKES: dict[str, tuple[dict[str, object], str]] = {
    "input": ({"vision": VISION | {"input": "pixel_values"}}, "has the inputs pixels; onnx.yaml declares pixel_values"),
    "output": ({"vision": VISION | {"output": "logits"}}, "has the outputs features; onnx.yaml declares logits"),
    "shape": ({"shape": [3, 9, 9]}, r"the input pixels is \(.*8, 8\).*onnx.yaml declares \(N, 3, 9, 9\)"),
    "axes": ({"shape": [192]}, r"onnx.yaml declares \(N, 192\)"),
    "provider": ({"providers": ["MoonProvider"]}, "no provider 'MoonProvider' here; providers may be .*CPU"),
    "gpu": ({"providers": ["CUDAExecutionProvider"]}, "no provider 'CUDAExecutionProvider' here"),
    "missing": ({"vision": VISION | {"file": "no.onnx"}}, r"onnx.yaml:\d+: vision: there is no file 'no.onnx'"),
    "outside": ({"vision": VISION | {"file": "../x.onnx"}}, "must lie in the folder"),
    "not onnx": ({"vision": VISION | {"file": "tokenizer.json"}}, "tokenizer.json can't be loaded"),
    "key": ({"vison": VISION}, r"onnx.yaml:\d+: it has no field 'vison'; did you mean 'vision'"),
    "inner key": ({"vision": VISION | {"name": "x"}}, "has no field 'name'"),
    "both": ({"text": TEXT}, "either text, a model of prompts, or classes"),
    "neither": ({"classes": None, "anchors": None}, "either text, a model of prompts, or classes"),
    "anchors": ({"classes": list("abc")}, r"it must hold anchors \(3, D\)"),
    "columns": ({"anchors": None}, "the vision model's output has 6 columns; classes has 4"),
    "mean": ({"mean": [0.1, 0.2]}, "mean has 2 values; it must have 1 or 3"),
    "levels": ({"mean": [123.675, 116.28, 103.53]}, "mean is 123.675, outside of the inputs' 0 to 1; divide mean"),
    "std": ({"std": [0.0]}, "std has a value that is not above 0"),
    "twice": ({"classes": ["a", "b", "c", "A"]}, "can't be told apart"),
    "modality": ({"modality": "smell"}, "modality is 'smell'"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line(folder: Path, kind: str) -> None:
    changes, message = MISTAKES[kind]
    _edit(folder, **changes)
    with pytest.raises(RLBenchError, match=message) as caught:
        load_encoder(f"onnx:{folder}")
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_a_damaged_file_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no onnx.yaml"):
        load_encoder(f"onnx:{tmp_path}")
    (folder / "vision.onnx").write_bytes((folder / "vision.onnx").read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"vision.onnx can't be loaded"):
        load_encoder(f"onnx:{folder}")


def test_without_the_library_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RLBenchError, match=r"run: pip install 'rlbind-bench\[onnx\]'"):
        load_encoder(f"onnx:{folder}")


def test_wrong_sizes_at_run_time_are_one_line(folder: Path) -> None:
    encoder = load_encoder(f"onnx:{folder}")
    with pytest.raises(AnswerError, match=r"vision.onnx fails: "):
        encoder.classify(_draw(2, 3, 9, 9), "image")  # type: ignore[attr-defined]


def test_text_of_another_length_is_one_line(folder: Path) -> None:
    write_folder(folder, SHAPE, text=TEXT | {"length": 7})
    with pytest.raises(CheckpointError, match=r"text.onnx: the input ids is \(.*5\).*declares \(N, 7\)"):
        load_encoder(f"onnx:{folder}")
    write_folder(folder, SHAPE, text=TEXT | {"length": 0})
    with pytest.raises(FieldError, match="length is 0"):
        load_encoder(f"onnx:{folder}")


@pytest.mark.slow
def test_an_exported_mini_encoder_answers_as_the_original_and_is_never_weaker_attacked(tmp_path: Path) -> None:
    """Logits within 1e-5; accuracy under square and rays is never below that under apgd-ce on the original."""
    pytest.importorskip("onnxscript")
    suite = load_suite("thermal")
    original = load_encoder("languagebind", "thermal")
    box, classes = original.boxes["thermal"], suite.task.classes
    head = zero_shot(original, "thermal", classes, suite.task.templates)
    export(original.tower("thermal"), torch.rand(2, *box.shape), tmp_path / "vision.onnx")  # type: ignore[attr-defined]
    save_file({"anchors": head.anchors}, tmp_path / "anchors.safetensors")
    names, scale = [one.name for one in classes], original.logit_scale
    anchors = {"file": "anchors.safetensors"}
    write_folder(tmp_path, box.shape, modality="thermal", classes=names, anchors=anchors, logit_scale=scale)
    encoder = load_encoder(f"onnx:{tmp_path}")
    x = suite.task.load(box, 0, 64).x
    assert (encoder.classify(x, "thermal") - head(x)).abs().max() < 1e-5  # type: ignore[attr-defined]

    threat = Threat("linf", Fraction(4, 255))
    ask = {"queries": 400}
    white = Adversarial("apgd-ce", threat, (("steps", 20),))
    black = [Adversarial(name, threat, tuple(ask.items())) for name in ("square", "rays")]
    small = replace(suite, perturbations=(Clean(), white, *black), examples=24)
    names_of = {"languagebind": small, f"onnx:{tmp_path}": small}
    found = {name: run(one, name, out=tmp_path / "out", workers=1) for name, one in names_of.items()}
    clean, robust = found["languagebind"][0], found["languagebind"][1]
    boxes = found[f"onnx:{tmp_path}"]
    assert boxes[0].flags == clean.flags and robust.n_correct is not None
    assert len(boxes) == 3
    for record in boxes[1:]:
        assert record.n_correct is not None and record.n_correct >= robust.n_correct
        assert record.provenance["knowledge"] == "score" and record.provenance["soundness"] == "partial"
    assert min(record.n_correct for record in boxes[1:]) < clean.n_correct  # type: ignore[operator,type-var]
