"""Runs of retrieval: clean, attacked and corrupted galleries of thermal images, and their records."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rlbench
from rlbench.core import Box, Suite, registry
from rlbench.core.errors import DataError
from rlbench.core.stats.metrics import margin
from rlbench.core.suite import load_suite
from rlbench.encoders.retrieval import Retriever, retriever
from rlbench.engine.block.bench import prepare
from rlbench.engine.block.gallery import without_rivals
from rlbench.store.store import Store

SUITE = """\
suite: mine
version: 1
summary: Things seen by a thermal camera, by their captions.
modality: thermal
task: {name: captioned-folder, modality: thermal, data: pack, at: AT}
examples: 99
perturbations:
  - clean
  - {corruption: netd, severity: 3}
  - {attack: pgd, norm: linf, eps: 6/255, steps: 4}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """Ten pictures of the thermal world with two captions each, and one more of the first thing."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "pack").mkdir()
    world = registry.make("task", "thermal-world", {"domain": "web"})
    examples = world.load(Box(shape=(1, 32, 32)), 0, 20)
    lines = ["path,split,source,caption"]
    for k in (*range(10), 10):
        name = world.classes[int(examples.y[k])].name
        Image.fromarray((examples.x[k, 0].numpy() * 255).round().astype(np.uint8)).save(root / "pack" / f"{k}.png")
        lines += [f"{k}.png,test,s{k},a thermal image of a {name}.", f"{k}.png,test,s{k},a {name}"]
    (root / "pack" / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def _suite(pack: Path, at: int = 1) -> Suite:
    (pack / f"mine{at}.yaml").write_text(SUITE.replace("AT", str(at)))
    return load_suite(pack / f"mine{at}.yaml")


@pytest.fixture(scope="module")
def runs(pack):
    """By rank: the records by column, and the store."""
    found = {}
    for at in (1, 5):
        records = rlbench.run(_suite(pack, at), "tecoa", out=pack / f"store{at}", workers=1)
        found[at] = {str(record.perturbation): record for record in records}, Store(pack / f"store{at}")
    return found


def test_records_have_the_recalls_of_the_judged_media(runs, pack) -> None:
    records, store = runs[1]
    bench = prepare(_suite(pack), "tecoa")
    head = bench.classifier
    assert isinstance(head, Retriever) and head.anchors.shape[0] == 20 and bench.n_classes == 10
    assert len(records) == 3 and records["clean"].n == 11 and records["clean"].n_correct >= 7
    labels = bench.inputs.load(0, 11).y.numpy()
    for record in records.values():
        said = record.provenance
        assert said["x-to-text R@1"] == pytest.approx(record.n_correct / 11, abs=1e-6)
        assert said["x-to-text R@1"] <= said["x-to-text R@5"] <= said["x-to-text R@10"] <= 1
        (path,) = [p for p in store.path.glob("blocks/*/*.parquet") if _is(p, store, str(record.perturbation), bench)]
        block = store.block(path.parent.name, 0, 11)
        scores = torch.from_numpy(block.features) @ head.anchors.T
        top = head.owners[scores.argmax(1)].numpy()
        assert ((top == labels) == block.correct).all() and np.allclose(
            np.linalg.norm(block.features, axis=1), 1, atol=1e-5
        )
        near = [labels[int(scores[:, t].argmax())] == head.owners[t] for t in range(20)]
        assert said["text-to-x R@1"] == pytest.approx(np.mean(near), abs=1e-6)
    attacked = records["pgd(steps=4) linf 6/255"]
    assert attacked.n_correct < records["clean"].n_correct
    assert attacked.provenance["text-to-x R@1"] < records["clean"].provenance["text-to-x R@1"]


def _is(path: Path, store: Store, column: str, bench) -> bool:
    from rlbench.engine.cells.groups import canonical
    from rlbench.engine.cells.keys import cell_key

    member = next(canonical(p) for p in bench.suite.perturbations if str(p) == column)
    return path.parent.name == cell_key(bench.subject(), bench.suite, member)


def test_recall_at_five(runs) -> None:
    (one, _), (five, _) = runs[1], runs[5]
    for column, record in five.items():
        bound = one[column].provenance["x-to-text R@5"]  # of an attack that stops at rank 2
        share = record.n_correct / 11
        assert one[column].n_correct / 11 <= share <= bound + 1e-6
        assert record.provenance["x-to-text R@5"] == pytest.approx(share, abs=1e-6)
        if "pgd" not in column:
            assert share == pytest.approx(bound, abs=1e-6)
    assert five["clean"].key != one["clean"].key


def test_one_medium_alone(pack) -> None:
    records = rlbench.run(_suite(pack), "tecoa", out=pack / "alone", examples=1, workers=1)
    assert [record.error for record in records] == [None] * 3 and records[0].n_correct == 1
    assert records[0].provenance["text-to-x R@1 of 1"] == 1  # the only medium at hand
    assert "text-to-x R@1" not in records[0].provenance and 0 <= records[0].provenance["x-to-text R@1"] <= 1


def test_lowered_rivals_make_the_first_ranks_correct() -> None:
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = torch.arange(40) % 9
    rank = 1 + (logits > logits.gather(1, y[:, None])).sum(1)
    for k in (1, 2, 5, 8):
        changed = without_rivals(logits, y, k - 1)
        assert torch.equal(margin(changed, y) > 0, rank <= k)
        (gradient,) = torch.autograd.grad(margin(changed, y).sum(), logits)
        assert ((gradient != 0).sum(1) == 2).all()  # of the own class and of the k-th rival


def test_a_gallery_that_is_too_small() -> None:
    with pytest.raises(DataError, match=r"a gallery of 2 sets of captions is too small for R@5"):
        retriever(None, "thermal", [("a",), ("b",)], at=5)  # type: ignore[arg-type]
