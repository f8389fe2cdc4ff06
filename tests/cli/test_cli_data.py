"""Data folders and run folders at the command line, intact and damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Call, fails
from PIL import Image

# Data folders

PACK = """suite: pack
version: 1
summary: A folder of four pictures.
modality: thermal
task: {name: folder, data: pack, modality: thermal}
examples: 4
seed: 0
perturbations: [clean]
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A folder of four small pictures and a suite over it."""
    folder = tmp_path / "pack"
    folder.mkdir()
    rows = ["path,label,split,source"]
    for k in range(4):
        Image.new("L", (40, 32), 50 * k).save(folder / f"{k}.png")
        rows.append(f"{k}.png,{'cat' if k % 2 else 'dog'},{'train' if k > 1 else 'test'},s{k}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.csv").write_text("label,name\ncat,cat\ndog,dog\n")
    (folder / "prompts.txt").write_text("a thermal image of {a}.\n")
    (tmp_path / "pack.yaml").write_text(PACK)
    return folder


def test_a_pack_runs(call: Call, pack: Path, trained: Path) -> None:
    result = call("run", "--suite", "pack.yaml", "--model", trained, "--json", "--quiet")
    assert [record["n"] for record in json.loads(result.stdout)] == [2]


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a missing picture": (lambda pack: (pack / "0.png").unlink(), ["0.png", "missing"]),
    "an unreadable picture": (lambda pack: (pack / "1.png").write_bytes(b"\x89PNG nothing"), ["1.png"]),
    "a truncated picture": (lambda p: (p / "1.png").write_bytes((p / "1.png").read_bytes()[:40]), ["1.png"]),
    "a label without a class": (
        lambda pack: (pack / "classes.csv").write_text("label,name\ndog,dog\nfox,fox\n"),
        ["'cat'"],
    ),
    "an empty split": (
        lambda pack: (pack / "labels.csv").write_text("path,label,split,source\n3.png,cat,train,a\n"),
        ["labels.csv", "test"],
    ),
    "no labels": (lambda pack: (pack / "labels.csv").unlink(), ["labels.csv"]),
    "no folder": (lambda pack: shutil.rmtree(pack), ["pack"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_packs(call: Call, pack: Path, trained: Path, tmp_path: Path, damage: str) -> None:
    act, words = DAMAGES[damage]
    act(pack)
    result = call("run", "--suite", "pack.yaml", "--model", trained, "--quiet")
    fails(result, *words)
    store = tmp_path / "rlbench-results"
    assert not store.exists() or not (store / "records.jsonl").exists()


def test_a_suite_that_needs_the_data_folder_says_so(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    (tmp_path / "pack.yaml").write_text(PACK.replace("data: pack", "data: '${RLBENCH_DATA}/pack'"))
    fails(call("run", "--suite", "pack.yaml", "--model", "linear"), "pack.yaml:5", "export RLBENCH_DATA")


# Checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it, with random weights."""
    import hashlib

    import yaml

    from rlbench.encoders.mini import BOXES, Tower, pack

    folder = tmp_path_factory.mktemp("run")
    data = pack(Tower(BOXES["thermal"]))
    (folder / "t.safetensors").write_bytes(data)
    entry = {"file": "t.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    card = {
        "baseline": "mine",
        "summary": "x",
        "backbones": {"mini": {"family": "mini", "modalities": {"thermal": entry}}},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder


def test_a_run_folder_works_as_a_model(call: Call, trained: Path) -> None:
    assert call("run", "--suite", "thermal", "--model", trained, "--examples", 2, "--dry-run").exit_code == 0
    result = call("run", "--suite", "image", "--model", trained)
    fails(result, "no image", "thermal")


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_damaged_weights(call: Call, trained: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    file = folder / "t.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[:-100] if damage == "truncated" else data)
    if damage == "missing":
        file.unlink()
    result = call("run", "--suite", "thermal", "--model", folder, "--examples", 2)
    fails(result, "t.safetensors", untouched=tmp_path / "rlbench-results")
