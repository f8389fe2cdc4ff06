"""Retrieval across sensors, run: the head against its definition, and the records against the embeddings."""

from dataclasses import dataclass

import pytest
import torch
from pairs import write_pairs
from torch import Tensor
from torch.nn.functional import normalize

import rlbench
from rlbench.core import Box, Examples, Label, registry
from rlbench.core.errors import DataError, ModalityError
from rlbench.core.suite import load_suite
from rlbench.encoders.cross_modal import sensor_retriever
from rlbench.encoders.models import load_encoder
from rlbench.engine.block.bench import prepare
from rlbench.engine.block.gallery import gallery_of

SUITE = """\
suite: mine
version: 1
summary: Thermal pictures of scenes, and a gallery of what they sound like.
modality: thermal
task: {name: cross-modal, of: scenes, modality: thermal, gallery: audio, size: 40, MATCH}
examples: 24
perturbations:
  - clean
  - {corruption: netd, severity: 3}
  - {attack: pgd, norm: linf, eps: 4/255, steps: 3}
"""


class Identity:
    """Embeds (3,) inputs as they are, normalised."""

    boxes = {"image": Box(shape=(3,), low=-1.0), "thermal": Box(shape=(3,), low=-1.0)}  # noqa: RUF012
    traits, logit_scale, sha256 = frozenset(), 10.0, {}

    def embed(self, x: Tensor, modality: str) -> Tensor:
        return normalize(x, dim=1)


@dataclass
class Items:
    """A gallery of these rows, with these classes."""

    rows: Tensor
    y: Tensor
    names: int = 2
    medium = "image"
    pairing: str = "paired"

    @property
    def gallery_size(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> tuple[Label, ...]:
        return tuple(Label(str(k), f"class {k}") for k in range(self.names))

    def load_gallery(self, box: Box, start: int, stop: int) -> Examples:
        ids = tuple(map(str, range(start, min(stop, len(self.rows)))))
        return Examples(self.rows[start:stop], self.y[start:stop], ids, ids)


def _head(items: Items):
    return sensor_retriever(Identity(), "thermal", items, Identity(), source="model")  # type: ignore[arg-type]


def test_a_class_scores_as_its_best_item() -> None:
    g = torch.Generator().manual_seed(0)
    rows, y = normalize(torch.randn(100, 3, generator=g), dim=1), torch.arange(100) % 4
    x = torch.randn(7, 3, generator=g).clamp(-1, 1)
    logits = _head(Items(rows, y, names=4))(x)
    scores = 10 * normalize(x, dim=1) @ rows.T
    assert torch.allclose(logits, torch.stack([scores[:, y == k].amax(1) for k in range(4)], dim=1), atol=1e-5)
    assert torch.equal(logits.argmax(1), y[scores.argmax(1)])  # right if the first hit has the query's class


def test_a_class_without_an_item_is_refused() -> None:
    with pytest.raises(DataError, match="the gallery has no image of 'class 1'; every class needs one"):
        _head(Items(torch.eye(3), torch.tensor([0, 0, 2]), names=3))


def test_recalls_of_the_scene_need_scenes() -> None:
    items = Items(torch.eye(3), torch.tensor([0, 1, 0]))
    gallery = gallery_of(_head(items))
    assert gallery is not None and gallery.medium == "image" and gallery.owners.tolist() == [0, 1, 2]
    found = gallery.recalls(torch.eye(3)[[0, 2]].numpy(), torch.tensor([0, 1]).numpy(), whole=False)
    assert found["x-to-image R@1"] == 0.5 and found["image-to-x R@1 of 2"] == 0.5  # item 1 finds no medium 1
    items.pairing = "class-paired"
    assert gallery_of(_head(items)) is None


def test_the_key_depends_on_the_encoder_of_the_gallery() -> None:
    one, other = (
        sensor_retriever(Identity(), "thermal", Items(torch.eye(3), torch.tensor([0, 1, 0])), Identity(), source=source)  # type: ignore[arg-type]
        for source in ("a", "b")
    )
    assert one.anchors_hash() != other.anchors_hash()


@pytest.fixture(scope="module", params=["class", pytest.param("scene", marks=pytest.mark.slow)])
def run(request, tmp_path_factory):
    """The matching, and the records of a run by column."""
    root = tmp_path_factory.mktemp("run")
    (root / "mine.yaml").write_text(SUITE.replace("MATCH", f"match: {request.param}"))
    records = rlbench.run(load_suite(root / "mine.yaml"), "tecoa", out=root / "store", workers=1)
    return request.param, {str(record.perturbation): record for record in records}


def test_records_are_what_the_embeddings_say(run) -> None:
    match, records = run
    thermal, audio = (load_encoder("tecoa", sensor) for sensor in ("thermal", "audio"))
    tasks = [registry.make("task", "scenes", {"modality": sensor}) for sensor in ("thermal", "audio")]
    queries, items = tasks[0].load(thermal.boxes["thermal"], 0, 24), tasks[1].load(audio.boxes["audio"], 0, 40)
    with torch.no_grad():
        scores = thermal.embed(queries.x, "thermal") @ audio.embed(items.x, "audio").T
    first, clean = scores.argmax(1), records["clean"]
    right = items.y[first] == queries.y if match == "class" else first == torch.arange(24)
    assert clean.n_correct == int(right.sum()) and clean.n == 24 and clean.error is None
    very = (first == torch.arange(24)).float().mean()
    assert clean.provenance["x-to-audio R@1"] == pytest.approx(float(very), abs=1e-6)
    back = (scores[:, :24].argmax(0) == torch.arange(24)).float().mean()
    assert clean.provenance["audio-to-x R@1 of 24"] == pytest.approx(float(back), abs=1e-6)
    for column, record in records.items():
        assert record.error is None and (column == "clean" or record.key != clean.key)
        if "pgd" in column:
            assert (record.n_correct or 0) <= (clean.n_correct or 0)


def test_the_name_says_what_is_found_where(run) -> None:
    match, records = run
    depth = "(R@1)" if match == "scene" else ""
    assert {record.task for record in records.values()} == {f"cross-modal(scenes:audio){depth}"}


def test_pairs_in_a_folder_are_run(tmp_path) -> None:
    write_pairs(tmp_path / "pack", n=12)
    text = SUITE.replace("of: scenes", "of: paired-folder, data: pack").replace("audio, size: 40, MATCH", "image")
    (tmp_path / "mine.yaml").write_text(text)
    records = rlbench.run(load_suite(tmp_path / "mine.yaml"), "languagebind", out=tmp_path / "store", workers=1)
    assert [record.error for record in records] == [None] * 3 and {record.n for record in records} == {12}
    assert {record.task for record in records} == {"cross-modal:pack(paired-folder:image)"}


def test_fixed_classes_cannot_retrieve() -> None:
    from rlbench.encoders.black_box.classes import head_of_classes

    with pytest.raises(DataError, match="so it can't do retrieval"):
        head_of_classes(None, "thermal", Items(torch.eye(3), torch.zeros(3)))  # type: ignore[arg-type]


ONLY_THERMAL = """import torch
from torch.nn.functional import normalize
from rlbench.core import Box

class Only:
    boxes = {"thermal": Box(shape=(1, 4, 4))}
    traits, logit_scale, sha256 = frozenset(), 10.0, {}

    def embed(self, x, modality):
        return normalize(x.flatten(1) + 0.1, dim=1)

    def embed_text(self, prompts):
        return normalize(torch.tensor([[1.0 + p.count(chr(97 + k)) for k in range(16)] for p in prompts]), dim=1)

def make():
    return Only()
"""


def test_a_model_without_the_sensor_of_the_gallery(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE.replace("MATCH", "match: class"))
    (tmp_path / "only_thermal.py").write_text(ONLY_THERMAL)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModalityError, match="only_thermal:make has no audio; it has thermal"):
        prepare(load_suite("mine.yaml"), "only_thermal:make")
