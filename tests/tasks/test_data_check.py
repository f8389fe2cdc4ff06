"""`rlbench data`: what a copy of a data set has, what is missing, and the verdict."""

import json
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner, Result

from rlbench.cli.main import main
from rlbench.tasks.integrity import inspect_copy, list_data_sets
from rlbench.tasks.trees import load_names


def _call(*words: str) -> Result:
    return CliRunner().invoke(main, ["data", *words])


def _esc50(root: Path, per_class: int = 40) -> Path:
    """A complete ESC-50, as hard links to one sound."""
    audio = root / "audio"
    audio.mkdir(parents=True)
    soundfile.write(root / "one.wav", [0.1, -0.1] * 200, 8000)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for one in load_names("esc50"):
        for k in range(per_class):
            (audio / f"{one.label}-{k}.wav").hardlink_to(root / "one.wav")
            rows.append(f"{one.label}-{k}.wav,{k % 5 + 1},0,{one.label},False,{k},A")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


def test_a_complete_copy_and_a_damaged_one(tmp_path) -> None:
    result = _call("check", "esc50", "--root", str(_esc50(tmp_path)))
    assert result.exit_code == 0, result.output
    assert "ok     test examples: 2,000 of 2,000\n  ok     classes: 50 of 50\n" in result.output
    assert "licence: CC BY-NC 3.0" in result.output and result.output.endswith("verdict: no fault found\n")
    whole = {finding.what: finding.found for finding in inspect_copy("esc50", str(tmp_path)).findings}
    (tmp_path / "audio" / "dog-0.wav").unlink()
    (tmp_path / "audio" / "dog-1.wav").unlink()
    (tmp_path / "audio" / "dog-1.wav").touch()
    result = _call("check", "esc50", "--root", str(tmp_path))
    assert result.exit_code == 1 and "WRONG  files: 1,998 of 2,000; missing or empty: audio/dog-0.wav," in result.output
    assert "verdict: not whole; it must contain meta/esc50.csv and audio/*.wav" in result.output
    assert len(whole["fingerprint"]) == 16 and "fingerprint" not in result.output


def test_a_file_that_cannot_be_decoded_is_named(tmp_path) -> None:
    _esc50(tmp_path, per_class=1)
    (tmp_path / "one.wav").write_bytes(b"no sound at all")
    found = {finding.what: finding for finding in inspect_copy("esc50", str(tmp_path)).findings}
    assert not found["decoding"].good and "can't read the recording" in found["decoding"].found
    assert not found["test examples"].good and found["test examples"].found == "50 of 2,000"


def test_a_checksum(tmp_path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(bytes(3073) * 3)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"")
    found = {finding.what: finding for finding in inspect_copy("cifar10", str(tmp_path)).findings}
    checksum = found["md5 of test_batch"]  # RFC 1321: of nothing
    assert not checksum.good and checksum.found.startswith("d41d8cd98f00b204e9800998ecf8427e; it must be 40351d58")
    assert not found["classes"].good and found["classes"].found == "1 of 10; none of automobile, bird, cat, ..."


def test_a_partial_copy_of_a_shrinking_data_set_counts_as_its_own(tmp_path) -> None:
    (tmp_path / "vggsound.csv").write_text("a,1,barking,test\nb,2,braying,test\n")
    soundfile.write(tmp_path / "a_000001.wav", [0.1, -0.1] * 200, 8000)
    result = _call("check", "vggsound", "--root", str(tmp_path))
    assert (
        result.exit_code == 0 and "-      test examples: 1 of 15,446: the rest is no longer available" in result.output
    )
    (tmp_path / "a_000001.wav").unlink()
    assert _call("check", "vggsound", "--root", str(tmp_path)).exit_code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "esc5"), "no published data set named 'esc5'; did you mean 'esc50'?"),
        (("check", "llvip"), "export RLBENCH_DATA=<the folder of LLVIP/>; get LLVIP from https://bupt-ai-cz"),
        (("check", "llvip", "--root", "/nowhere"), "there is no folder /nowhere; get LLVIP from https"),
    ],
)
def test_mistakes(monkeypatch, words, message) -> None:
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    result = _call(*words)
    assert result.exit_code == 2 and message in result.output and result.output.count("\n") == 1


def test_the_list_has_every_data_set() -> None:
    rows = json.loads(_call("list", "--json").output)
    assert [row["name"] for row in rows] == sorted(list_data_sets()) and len(rows) == 17 + 43
    assert all(row["licence"] and row["layout"] and row["get it from"].startswith("https://") for row in rows)
    pins = {row["name"]: row["revision"] for row in rows}
    assert (pins["wds/vtab/pets"], pins["wds/stl10"], pins["esc50"]) == ("3fbd1f2", "not pinned", "-")
    assert list(pins.values()).count("not pinned") == 33
    assert all(row["name"] in _call("list").output for row in rows)
