"""`rlbench data get` from a hub on this machine: what is downloaded, resumed, compared, found again and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Call, fails
from fake_hub import Hub, serve
from wds_shards import samples, write_published, write_set

from rlbench.core import registry
from rlbench.core.errors import DataError
from rlbench.tasks.wds_sets import find_set

PETS = find_set("vtab/pets")
NEW = "ab" * 20


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a made copy of vtab/pets, whose newest commit is not the catalogue's."""
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    folder = write_published(tmp_path / "remote", "vtab/pets", 40)
    write_set(folder, samples([0, 1]), split="train", classes=[f"thing {k}" for k in range(37)])
    (folder / "README.md").write_text("# Pets\n")
    with serve(tmp_path / "cache", monkeypatch) as hub:
        hub.repos[PETS.repo] = folder, [NEW, PETS.revision]
        yield hub


def _pets():
    return registry.make("task", "wds", {"dataset": "vtab/pets"})


def test_a_set_is_downloaded_once_and_found(call: Call, hub: Hub, tmp_path: Path) -> None:
    result = call("data", "get", "wds/vtab/pets")
    assert result.exit_code == 0, result.output
    first, last = result.stdout.strip().splitlines()
    assert "wds/vtab/pets: 6 files, 0.2 MB, from clip-benchmark/wds_vtab-pets at commit" in first
    assert PETS.revision in first and "licence: not stated" in first and "not pinned" not in first
    folder = tmp_path / "cache" / "datasets--clip-benchmark--wds_vtab-pets" / "snapshots" / PETS.revision
    assert f"in {folder}; all checksums are those of the hub" in last
    served = {name for name, _ in hub.served}
    once = {"test/nshards.txt", "train/nshards.txt"}  # the same bytes, whichever comes first
    assert served - once == {"classnames.txt", "zeroshot_classification_templates.txt", "test/0.tar", "test/1.tar"}
    assert len(served & once) == 1
    assert _pets().size("test") == 40 and _pets().folder == folder
    copy = registry.make("task", "wds", {"root": str(hub.repos[PETS.repo][0])})
    assert _pets().fingerprint() == copy.fingerprint()
    hub.served.clear()
    assert call("data", "get", "vtab/pets").exit_code == 0 and not hub.served
    assert call("data", "check", "wds/vtab/pets").exit_code == 1  # 40 of its 3,669 test examples


def test_an_interrupted_download_resumes(call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    hub.broken.add("test/0.tar")
    call("data", "get", "wds/vtab/pets")
    assert call("data", "get", "wds/vtab/pets").exit_code == 0
    starts = [start for name, start in hub.served if name == "test/0.tar"]
    assert len(starts) == 2 and starts[0] == 0 and starts[1] > 0
    assert _pets().size("test") == 40


@pytest.mark.parametrize("name", ["test/1.tar", "classnames.txt"])
def test_other_bytes_than_the_hub_says_are_refused(call: Call, hub: Hub, tmp_path: Path, name: str) -> None:
    data = bytearray((hub.repos[PETS.repo][0] / name).read_bytes())
    data[len(data) // 2] ^= 1
    hub.altered[name] = bytes(data)
    result = call("data", "get", "wds/vtab/pets")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("rlbench: ")]
    assert f"rlbench: {name} arrived with the checksum " in line and "; the hub says " in line
    hub.altered.clear()
    assert call("data", "get", "wds/vtab/pets").exit_code == 0
    assert _pets().size("test") == 40


def test_another_revision(call: Call, hub: Hub) -> None:
    result = call("data", "get", "wds/vtab/pets", "--revision", "main")
    assert result.exit_code == 0 and f"at commit {NEW}; " in result.stdout
    assert "not pinned: main is this commit now" in result.stderr and f"--revision {NEW} gets the same" in result.stderr
    assert f"{{name: wds, dataset: vtab/pets, revision: {NEW}}}" in result.stdout
    other = registry.make("task", "wds", {"dataset": "vtab/pets", "revision": NEW[:9]})
    assert other.folder.name == other.commit == NEW
    with pytest.raises(DataError, match="run `rlbench data get wds/vtab/pets`, which"):
        _ = _pets().folder
    result = call("data", "get", "wds/vtab/pets", "--revision", PETS.revision[:9])
    assert result.exit_code == 0 and f"at commit {PETS.revision}; " in result.stdout
    for revision in ("cd" * 20, "cdcdcdc", "v2"):
        fails(call("data", "get", "wds/vtab/pets", "--revision", revision), f"has no revision {revision}; see https://")


def test_a_set_that_is_not_pinned_names_its_commit(call: Call, hub: Hub, tmp_path: Path) -> None:
    stl = find_set("stl10")
    assert not stl.pinned
    hub.repos[stl.repo] = write_published(tmp_path / "remote", "stl10", 20), [NEW, "cd" * 20]
    result = call("data", "get", "wds/stl10")
    assert result.exit_code == 0 and f"--revision {NEW} gets the same files again" in result.stderr
    assert registry.make("task", "wds", {"dataset": "stl10"}).commit == NEW
    shutil.rmtree(tmp_path / "cache")
    result = call("data", "get", "wds/stl10", "--revision", "cd" * 20)
    assert result.exit_code == 0 and "not pinned" not in result.stderr
    assert registry.make("task", "wds", {"dataset": "stl10"}).commit == "cd" * 20  # the only one that is there
    path = tmp_path / "mine.yaml"
    path.write_text(
        "suite: mine\nversion: 1\nsummary: S.\nmodality: image\nperturbations: [clean]\n"
        "task: {name: wds, dataset: stl10}\n"
    )
    result = call(
        "run", "--suite", path, "--model", "random:mini", "--examples", 2, "--workers", 1, "--json", "--quiet"
    )
    assert json.loads(result.stdout)[0]["provenance"]["revision"] == "cd" * 20


def test_the_beginning_of_two_commits(call: Call, hub: Hub) -> None:
    hub.repos[PETS.repo][1].append(PETS.revision[:9] + "0" * 31)
    short = PETS.revision[:9]
    fails(call("data", "get", "wds/vtab/pets", "--revision", short), f"has 2 revisions that begin with {short}; see")


def test_a_set_that_the_hub_does_not_have(call: Call, hub: Hub) -> None:
    for name in ("wds/stl10", "wds/cars"):
        fails(call("data", "get", name), "the hub has no data set clip-benchmark/wds_", "or it needs a login")


def test_names_that_are_wrong(call: Call) -> None:
    fails(call("data", "get", "wds/vtab/pet"), "no webdataset named 'vtab/pet'; did you mean 'vtab/pets'?")
    fails(call("data", "get", "esc50"), "esc50 is not a webdataset of the hub; rlbench data list says where")


def test_without_a_network(call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("wds/vtab/pets", "wds/vtab/pcam", "wds/stl10"):
        fails(
            call("data", "get", name),
            "can't be downloaded (HF_HUB_OFFLINE is set)",
            "on a machine with network access, run",
        )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    fails(call("data", "get", "wds/vtab/pets"), "can't be downloaded", "Connection refused")


def test_a_download_that_lacks_a_shard(call: Call, hub: Hub, tmp_path: Path) -> None:
    assert call("data", "get", "wds/vtab/pets").exit_code == 0
    (_pets().folder / "test" / "1.tar").unlink()
    with pytest.raises(Exception, match=r"1\.tar is missing: .* counts 2 shards"):
        _pets().size("test")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(Exception, match="run `rlbench data get wds/vtab/pets`"):
        _pets().size("test")
