"""Arbitrary files of a checkpoint give one error line or a working encoder, and none of their code runs."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_models import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rlbench.cli.console import console, listing
from rlbench.core.errors import CheckpointError, RLBenchError, first_line, printable
from rlbench.encoders.clip.weights import read_weights
from rlbench.encoders.models import load_encoder


class Code:
    def __reduce__(self) -> tuple:
        return print, ("this must never be printed",)


def _compress(path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as plain:
        members = {member.filename: plain.read(member) for member in plain.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)


def _cut(path: Path) -> None:
    torch.save({"a": torch.zeros(99)}, path)
    path.write_bytes(path.read_bytes()[:-99])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"a": Code()}, r"is refused: it holds code \(print\), which is never run; ask its author for safetensors"),
        ([torch.ones(1)], "must hold tensors by name and nothing else"),
        (torch.ones(1), "must hold tensors by name and nothing else"),
        (None, "must hold tensors by name and nothing else"),
        ({"a": {"b": torch.ones(1)}}, "must hold tensors by name and nothing else"),
        ({"a": torch.eye(3).to_sparse()}, "holds a, which is not a plain tensor"),
        ({"a": torch.ones(2, device="meta")}, "holds a, which is not a plain tensor"),
        ({"a": torch.zeros(1).expand(10**10)}, r"holds a of shape \(10000000000,\), but fewer values than that"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, r"in torch\.float8_e4m3fn: quantised weights can't be used"),
        ({"a": torch.ones(2, dtype=torch.int8)}, r"in torch\.int8: quantised weights can't be used"),
        ({"a": torch.tensor([1.0, float("nan")])}, "not finite: a"),
        (_compress, "is compressed, which torch never does"),
        (_cut, "can't be read, or is truncated"),
        (lambda path: path.write_bytes(b""), "can't be read, or is truncated"),
        (lambda path: path.write_bytes(b"<!doctype html>"), "holds code or more than tensors, or is truncated"),
        (lambda path: path.write_bytes(pickle.dumps({"a": Code()})), "holds code or more than tensors"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
    ],
)
def test_a_pickle_that_is_no_plain_dictionary_of_tensors(tmp_path, capfd, saved: Any, message) -> None:
    path = tmp_path / "pytorch_model.bin"
    saved(path) if callable(saved) else torch.save(saved, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value) and "PyTorch" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_torchs_advice_to_load_code_is_not_repeated(tmp_path) -> None:
    torch.save({"a": Code()}, tmp_path / "a.bin")
    with pytest.raises(pickle.UnpicklingError, match="weights_only") as caught:
        torch.load(tmp_path / "a.bin", weights_only=True)
    assert first_line(caught.value) == "it holds code or more than tensors, which is never loaded"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"auto_map": {"AutoModel": "code.Mine"}}, "names code of the checkpoint"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights can't be used"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "says .* layers, but the weights are only .* tensors"),
        ({"text_config": {"vocab_size": 10**9}}, "describes .* values; the weights are"),
        ({"vision_config": {"hidden_size": 10**7}}, "describes"),
        ({"vision_config": {"hidden_size": -1}}, "does not describe a clip that transformers can make"),
        ({"vision_config": []}, "config"),
        ({"text_config": "all"}, "config"),
        ({"projection_dim": 10**30}, "does not describe a clip"),
        ({"text_config": {"hidden_act": "\x1b[31mred"}}, r"does not describe a clip .*\\x1b\[31mred"),
        ({"model_type": ["clip"]}, "hf: takes clip"),
        ({"model_type": "\x1b[2J"}, r"is a model of type '\\x1b\[2J'"),
        ({"architectures": {"a": 1}, "model_type": "clip", "return_dict": "no"}, ""),
    ],
)  # fmt: skip
def test_any_wrong_config_value_gives_one_line(tmp_path, values, message) -> None:
    checkpoint(tmp_path)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    for key, value in values.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) and isinstance(whole.get(key), dict) else value
    path.write_text(json.dumps(whole))
    if not message:
        load_encoder(f"hf:{tmp_path}")
        return
    with pytest.raises(CheckpointError, match=message):
        load_encoder(f"hf:{tmp_path}")


@pytest.mark.parametrize("text", ["[]", "null", "1", '"clip"', "", "{", "[" * 10**5, "\xff", '{"model_type": 1e999}'])
def test_a_config_that_is_no_object_gives_one_line(tmp_path, text) -> None:
    checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError):
        load_encoder(f"hf:{tmp_path}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("clip", "siglip", "clap")}
    for kind, folder in folders.items():
        checkpoint(folder, kind)
    return folders


ODD = st.sampled_from(
    [None, True, 0, -1, 3, 10**6, 10**12, 10**30, 0.5, float("nan"), "", "gelu", "\x1b[31m", [], [1], {}]
)
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")


def _places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in ((*path, key), *_places(one, (*path, key)))]


def _change(data: bytes, draw) -> bytes:
    """A value of a JSON file replaced, or its bytes cut, flipped or doubled."""
    if draw(st.booleans()) and data.startswith(b"{"):
        found = json.loads(data)
        *inner, last = draw(st.sampled_from(_places(found)))
        part = found
        for key in inner:
            part = part[key]
        part[last] = draw(ODD)
        return json.dumps(found).encode()
    at = draw(st.integers(0, min(len(data) - 1, 4000)))
    return draw(st.sampled_from([data[:at], data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :], data + data]))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_any_folder_gives_one_line_or_a_working_encoder(whole, tmp_path_factory, draw) -> None:
    folder = tmp_path_factory.mktemp("changed")
    kind, name = draw.draw(st.sampled_from(sorted(whole))), draw.draw(st.sampled_from((*FILES, "model.safetensors")))
    shutil.copytree(whole[kind], folder, dirs_exist_ok=True)
    (folder / name).write_bytes(_change((folder / name).read_bytes(), draw.draw))
    try:
        encoder = load_encoder(f"hf:{folder}")
    except RLBenchError as error:
        assert str(error) == printable(str(error)) and "\n" not in str(error)
    else:
        assert encoder.embed_text(["a photo of a dog"]).isfinite().all()
    finally:
        shutil.rmtree(folder)


def test_names_from_files_are_printed_without_control_characters(tmp_path) -> None:
    checkpoint(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "a\x1b[31m\u202e\nb": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has no place for a\\x1b\[31m\\u202e b$"):
        load_encoder(f"hf:{tmp_path}")


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "\x07", "\u202egnp.exe", "\u2066", "\ud800", "\x9b31m", "\u2028"])
def test_characters_that_move_the_cursor_are_escaped(text) -> None:
    shown = str(RLBenchError(text))
    assert shown.isprintable() and printable(text).isprintable() and printable(text) != text
    assert printable("é 漢字 \N{GRINNING FACE} می\u200cخواهم") == "é 漢字 \N{GRINNING FACE} می\u200cخواهم"


def test_names_are_not_read_as_markup() -> None:
    stream = io.StringIO()
    out = console(stream)
    listing([{"name": "[red]x[/red] :cat: \x1b[31m", "about": "[/nope]\u202e"}], out)
    out.print("[bold]", "\x1b[2J")
    assert r"[red]x[/red] :cat: \x1b[31m" in stream.getvalue() and r"[/nope]\u202e" in stream.getvalue()
    assert r"[bold] \x1b[2J" in stream.getvalue() and "\x1b" not in stream.getvalue()
