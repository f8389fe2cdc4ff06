"""Takeover certificates in runs: what is certified survives every attack on one sensor, example by example."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import sensor_oracle as oracle

from rlbench.core import Examples
from rlbench.core.stats.metrics import cluster_interval
from rlbench.engine.run.runner import run
from rlbench.report.boards.leaderboard import examples
from rlbench.store.blocks import from_bytes, to_bytes
from rlbench.store.per_example import blocks
from rlbench.store.records import read_records

SENSORS = tuple(oracle.SCALES)


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "sensor_oracle")


def _run(folder: Path, fusion: str, *entries: str) -> pd.DataFrame:
    """The examples of a run of three linear sensors."""
    head = oracle.HEAD.replace("task:", f"fusion: {fusion}\ntask:")
    run(
        str(oracle.suite_file(folder, *entries, head=head)), "sensor_oracle:linear_sensors", out=folder / "o", workers=1
    )
    return examples(folder / "o")


SLOW = [pytest.param(fusion, marks=pytest.mark.slow) for fusion in ("sum", "mean")]


@pytest.mark.parametrize("fusion", [*SLOW, "median", "majority"])
def test_no_attack_on_one_sensor_breaks_a_certified_example(tmp_path, fusion) -> None:
    cells = _run(tmp_path, fusion, "{attack: apgd-t, steps: 5, norm: linf, eps: [0.03, 0.3], sensors: any 1}", "clean")
    (count,) = {r.provenance.get("certified") for r in read_records([tmp_path / "o"]) if str(r.perturbation) == "clean"}
    flags = {name: own.set_index("index")["correct"] for name, own in cells.groupby("perturbation")}
    certified = cells[cells["perturbation"] == "clean"].set_index("index")["certified"].astype(bool)
    assert count == certified.sum()
    for name in ("clean", "apgd-t(steps=5) linf 0.03 on any 1", "apgd-t(steps=5) linf 0.3 on any 1"):
        assert (certified <= flags[name]).all(), name
    broken = flags["apgd-t(steps=5) linf 0.3 on any 1"]
    assert broken.sum() < flags["clean"].sum()
    if fusion == "majority":  # of three sensors, exactly where all three are right
        right = [oracle.survivors({}, missing=[s for s in SENSORS if s != one]) for one in SENSORS]
        assert certified.tolist() == [all(each) for each in zip(*right, strict=True)] and 0 < count < oracle.N


def test_only_unattacked_cells_of_a_fusion_with_a_certificate_have_one(tmp_path) -> None:
    attack = "{attack: pgd, steps: 2, norm: linf, eps: 0.03, sensors: image}"
    _run(tmp_path, "[majority, max]", attack, "{missing: image}", "{corruption: netd, severity: 3, sensors: thermal}")
    having = {
        (record.provenance["fusion"], str(record.perturbation))
        for record in read_records([tmp_path / "o"])
        if "certified" in record.provenance
    }
    assert having == {("majority", name) for name in ("clean", "without image", "netd 3 on thermal")}


def test_the_interval_of_certificates_is_over_sources_that_examples_share(tmp_path, monkeypatch) -> None:
    load = oracle.Dots.load

    def load_shared(*arguments: object, **more: object) -> Examples:
        alone = load(*arguments, **more)
        return replace(alone, sources=tuple(f"walk {int(name.split('/')[-1]) // 6}" for name in alone.ids))

    monkeypatch.setattr(oracle.Dots, "load", load_shared)
    monkeypatch.setattr(oracle, "HEAD", oracle.HEAD.replace("dots", "dots, series: 1"))  # not in a cache yet
    monkeypatch.setenv("RLBENCH_CACHE", str(tmp_path / "cache"))
    _run(tmp_path, "majority", "clean")
    (record,) = read_records([tmp_path / "o"])
    (block,) = blocks(record, [tmp_path / "o"])
    ends = cluster_interval(block.certified.tolist(), block.source.tolist())
    assert [record.provenance[f"certified_{end}"] for end in ("low", "high")] == [round(end, 6) for end in ends]
    assert record.provenance["sources"] == 10 and ends[0] < record.provenance["certified"] / record.n < ends[1]


def test_blocks_keep_certificates_and_their_digest_covers_them(tmp_path) -> None:
    _run(tmp_path, "majority", "clean")
    (record,) = read_records([tmp_path / "o"])
    (block,) = blocks(record, [tmp_path / "o"])
    again = from_bytes(to_bytes(block, "k", 0), "k", 0, len(block.id))
    assert (again.certified == block.certified).all() and again.digest() == block.digest()
    object.__setattr__(again, "certified", ~block.certified)
    assert again.digest() != block.digest()
