"""Fifteen views of a clip: which frames and parts they are, their mean probability, attacks, records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from films import write_film
from torch.nn.functional import normalize

from rlbench.core import Box
from rlbench.core.errors import RLBenchError
from rlbench.core.media import clips, preprocess
from rlbench.encoders.heads import Viewed, ZeroShot
from rlbench.engine.run.runner import run
from rlbench.tasks.kinetics400 import Kinetics400

CLASSES = ("abseiling", "air_drumming", "archery")
SUITE = """
suite: clips
version: 1
summary: Clips in views.
modality: video
task: {{name: kinetics400, views: {views}, root: {root}}}
examples: 3
seed: 0
perturbations:
  - clean
  - {{attack: pgd, norm: linf, eps: [0, 8/255], steps: 3}}
"""


class Clips:
    """An encoder of clips of two frames of 4 x 4, linear but for the norm."""

    traits, logit_scale = frozenset(), 20.0

    def __init__(self) -> None:
        self.boxes, self.sha256 = {"video": Box(shape=(3, 2, 4, 4))}, {"video": "of the seed"}
        self.weights = torch.randn(96, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def embed(self, x: torch.Tensor, modality: str) -> torch.Tensor:
        return normalize((x - 0.5).flatten(1).to(self.weights) @ self.weights, dim=1)


def _anchors(n: int = 3) -> torch.Tensor:
    return normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(1)), dim=1)


def _film(path: Path, count: int, width: int = 48, height: int = 32, shade: int = 0) -> np.ndarray:
    """A lossless clip whose pixels all differ, as (T, H, W, 3)."""
    t, y, x = np.mgrid[:count, :height, :width]
    frames = np.stack([(3 * t + shade) % 256, 4 * y % 256, 4 * x % 256], axis=3).astype(np.uint8)
    write_film(path, frames, "ffv1", pix_fmt="bgr0")
    return frames


def test_views_over_time_are_runs_of_every_eighth_frame() -> None:
    """300 frames at a stride of 8 give 38, with 31 places for a run of 8; five views are 7.5 places apart."""
    runs = preprocess.view_frames(300)
    assert [run[0] // 8 for run in runs] == [0, 7, 15, 22, 30] and runs[4][-1] == 296
    assert all(run == list(range(run[0], run[0] + 64, 8)) for run in runs)
    assert preprocess.view_frames(40) == [[0, 8, 16, 24, 32, 32, 32, 32]] * 5
    assert preprocess.view_frames(1, 2) == [[0, 0]] * 5


@pytest.mark.parametrize(("width", "height"), [(48, 32), (32, 48), (32, 32)])
def test_views_equal_the_pixels_of_the_file(tmp_path, width, height) -> None:
    frames = _film(tmp_path / "a.mkv", 60, width, height)
    x = clips.views(tmp_path / "a.mkv", Box(shape=(3, 15 * 2, 32, 32)), 5)
    assert x.shape == (3, 30, 32, 32) and x.dtype == np.float32
    numbers = preprocess.view_frames(60, 2)
    starts = [0, 8, 16] if width != height else [0, 0, 0]
    for place, (t, s, i) in enumerate((t, s, i) for t in range(5) for s in range(3) for i in range(2)):
        top, left = (starts[s], 0) if height >= width else (0, starts[s])
        part = frames[numbers[t][i], top : top + 32, left : left + 32].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(x[:, place], part, atol=1e-6)


def test_the_logits_are_the_mean_probability_of_the_views() -> None:
    one = ZeroShot(Clips(), "video", _anchors())
    many = Viewed(**vars(one), views=3)
    assert one.box.shape == (3, 2, 4, 4) and many.box.shape == (3, 6, 4, 4)
    x = torch.rand(4, 3, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    each = torch.stack([one(x[:, :, 2 * v : 2 * v + 2]) for v in range(3)])
    torch.testing.assert_close(many(x).softmax(1), each.softmax(2).mean(0))
    assert (each.argmax(2) != each.argmax(2)[0]).any() and (each.mean(0).softmax(1) - many(x).softmax(1)).std() > 0.01
    single = Viewed(**vars(one), views=1)
    torch.testing.assert_close(single(x[:, :, :2]), one(x[:, :, :2]))
    assert many(1e6 * x).isfinite().all()


def test_gradients_reach_every_view() -> None:
    head = Viewed(Clips(), "video", _anchors(), views=3)
    x = torch.rand(2, 3, 6, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (head(x).logsumexp(1) - head(x)[:, 0]).sum().double()

    (gradient,) = torch.autograd.grad(loss(x), x)
    assert (gradient.flatten(3).abs().amax((1, 3)) > 0).all()
    d = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    numeric = (loss(x + 1e-3 * d) - loss(x - 1e-3 * d)) / 2e-3  # heads compute logits in float32
    torch.testing.assert_close((gradient * d).sum(), numeric, rtol=1e-2, atol=1e-3)


def _suite(folder: Path, views: int, more: str = "") -> str:
    for k, label in enumerate(CLASSES):
        _film(folder / "val" / label / f"{k}_000001_000011.mkv", 40, shade=80 * k)
    path = folder / f"clips{views}.yaml"
    path.write_text(SUITE.format(views=views, root=folder) + more)
    return str(path)


def test_a_run_on_views_records_them_and_attacks_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Kinetics400, "templates", ("{}",))
    records = run(_suite(tmp_path, 15), "random:mini", out=tmp_path / "out", workers=1)
    assert {record.task for record in records} == {"kinetics400(15 views)"} and {r.n for r in records} == {3}
    clean, none, some = (record.n_correct for record in records)
    assert not any(record.error for record in records) and none == clean >= some
    one = run(_suite(tmp_path, 1), "random:mini", out=tmp_path / "out", workers=1)
    assert {record.task for record in one} == {"kinetics400"}
    assert one[0].provenance["data"] != records[0].provenance["data"]


def test_corruptions_are_for_whole_clips(tmp_path) -> None:
    suite = _suite(tmp_path, 15, "  - {corruption: fog, severity: 1}\n")
    with pytest.raises(RLBenchError, match=r"corruption 'fog' is for whole clips, not 15 views; set views: 1"):
        run(suite, "random:mini", out=tmp_path / "out")
    _suite(tmp_path, 3)
    with pytest.raises(RLBenchError, match="views"):
        run(str(tmp_path / "clips3.yaml"), "random:mini", out=tmp_path / "out")
