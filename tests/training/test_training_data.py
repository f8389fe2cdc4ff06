"""Training data: batches that depend only on the seed and the step, random crops, and low-rank updates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from rlbench.core import Box, Suite, registry
from rlbench.core.errors import FieldError
from rlbench.encoders.models import load_encoder
from rlbench.training import examples as module
from rlbench.training.data import Batches, MicroBatch
from rlbench.training.examples import TrainSet, choose_crop, load_train_set
from rlbench.training.loop import Trainer
from rlbench.training.lora import inject, merge
from rlbench.training.memory import Memory
from rlbench.training.prepare import prepare
from rlbench.training.recipe import Recipe, load_recipe
from rlbench.training.run import train

BOX = Box(shape=(3, 24, 24))
CROPS = Recipe(objective="tecoa", batch=8, examples=20, crop=0.3, flip=True, roll=1)
TINY = {"examples": 64, "epochs": 1, "batch": 32, "attack_steps": 1, "validation": 16}


def _quiet(done: int, of: int) -> None:
    pass


@pytest.fixture
def tree(tmp_path) -> Path:
    """Pictures whose red and green encode the column and the row, and whose blue encodes the class."""
    down, across = np.mgrid[0:60, 0:80]
    for split in ("train", "val"):
        for label, blue in (("dark", 20), ("light", 220)):
            (tmp_path / split / label).mkdir(parents=True)
            for k in range(5):
                pixels = np.stack([across * 3, down * 4, np.full_like(down, blue + k)], 2).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{k}.png")
    (tmp_path / "classes.csv").write_text("label,name\ndark,dark picture\nlight,light picture\n")
    (tmp_path / "prompts.txt").write_text("{a}\n")
    return tmp_path


def _task(tree: Path):
    return registry.make("task", "image-folder", {"data": str(tree), "holdout": 0})


def _same(first: list[MicroBatch], second: list[MicroBatch]) -> bool:
    whole = [
        [torch.cat([getattr(p, name) for p in parts]) for name in ("x", "y", "noise", "template")]
        for parts in (first, second)
    ]
    return all(torch.equal(a, b) for a, b in zip(*whole, strict=True))


def test_a_random_part_lies_in_the_picture_and_has_its_area_and_aspect() -> None:
    g = np.random.default_rng(0)
    for width, height in ((100, 80), (37, 61), (300, 20), (1, 1)):
        found = np.array([choose_crop(width, height, 0.25, g.random(4).tolist()) for _ in range(500)])
        w, h = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
        assert (found >= 0).all() and (found[:, 2] <= width).all() and (found[:, 3] <= height).all()
        assert (w / h > 3 / 4 - 1e-6).all() and (w / h < 4 / 3 + 1e-6).all()
        area = w * h / (width * height)
        assert area.max() < 1 + 1e-6
        if width == 100:
            assert area.min() > 0.25 - 1e-6 and area.mean() == pytest.approx(0.625, abs=0.03)
            assert found[:, 0].min() < 1 and found[:, 2].max() > 99
    assert choose_crop(40, 40, 1.0, [0.3, 0.5, 0.5, 0.5]) == pytest.approx((0, 0, 40, 40))


def test_crops_are_taken_from_the_picture_at_its_own_size(tree) -> None:
    """Red grows by 3 per pixel and green by 4, so the pixels of a crop tell its place, size and mirroring."""
    data = load_train_set(_task(tree), BOX, 20, whole=True, read=_quiet)
    assert data.x is None and (data.size, data.epoch) == (10, 20)
    draws = torch.rand(10, 4, generator=torch.Generator().manual_seed(0))
    x, y = data.take_crops(torch.arange(10), 0.2, draws)
    assert x.shape == (10, 3, 24, 24) and x.dtype == torch.uint8 and y.tolist() == [0, 1] * 5
    for pixels, label, u in zip(x.numpy().astype(float), y.tolist(), draws.tolist(), strict=True):
        left, top, right, bottom = choose_crop(80, 60, 0.2, u)
        middle = pixels[:, 6:18, 6:18]
        assert middle[0].mean() / 3 + 0.5 == pytest.approx((left + right) / 2, abs=0.5)
        assert middle[1].mean() / 4 + 0.5 == pytest.approx((top + bottom) / 2, abs=0.5)
        slope = (pixels[0, 12, 18] - pixels[0, 12, 6]) / 12 / 3
        assert slope == pytest.approx((right - left) / 24, abs=0.1)
        assert (pixels[2] >= (20, 220)[label]).all() and (pixels[2] <= (24, 224)[label]).all()


def test_a_world_is_cropped_at_the_boxs_pixels() -> None:
    """All frames of a clip alike; a crop of everything changes nothing."""
    world = registry.make("task", "video-world", {})
    data = load_train_set(world, Box(shape=(3, 8, 32, 32)), 4, whole=True, read=_quiet)
    plain = data.take(torch.arange(4))
    whole, y = data.take_crops(torch.arange(4), 1.0, torch.full((4, 4), 0.5))
    assert torch.equal(whole, plain[0]) and torch.equal(y, plain[1])
    still = replace(data, x=plain[0][:, :, :1].expand(-1, -1, 8, -1, -1))
    cut, _ = still.take_crops(torch.arange(4), 0.2, torch.rand(4, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(cut, cut[:, :, :1].expand_as(cut)) and not torch.equal(cut, still.x)


@pytest.mark.parametrize("whole", [True, False])
def test_batches_do_not_depend_on_processes_parts_loaders_or_memory(tree, whole, monkeypatch) -> None:
    task, recipe = _task(tree), CROPS if whole else replace(CROPS, crop=0.0)
    held = load_train_set(task, BOX, 20, whole=whole, read=_quiet)
    one = Batches(held, recipe, "image", 8)
    monkeypatch.setattr(module, "LIMIT", 0)
    asked = load_train_set(task, BOX, 20, read=_quiet)
    assert asked.x is None and (held.x is None) == whole
    for step in (0, 1, 3):
        first = one[step]
        assert _same(first, Batches(asked, recipe, "image", 8)[step])
        shares = [Batches(held, recipe, "image", 8, (k, 2))[step] for k in (0, 1)]
        assert _same(first, [p for parts in shares for p in parts]) and len(shares[0][0].y) == 4
        parts = Batches(held, replace(recipe, accumulate=4), "image", 8)[step]
        assert len(parts) == 4 and _same(first, parts)
        assert not _same(first, Batches(held, replace(recipe, seed=1), "image", 8)[step])
    loader = DataLoader(one, batch_size=None, sampler=range(4), num_workers=2)
    assert all(_same(parts, one[step]) for step, parts in enumerate(loader))


def test_mirroring_exchanges_left_and_right_of_about_half_of_the_examples(tree) -> None:
    """Red grows to the right and green downward in every picture of the tree."""
    data = load_train_set(_task(tree), BOX, 20, read=_quiet)
    batches = Batches(data, replace(CROPS, crop=0.0, roll=0, batch=20), "image", 20)
    x = torch.cat([part.x.float() for step in range(4) for part in batches[step]])
    rightward, downward = x[:, 0, :, -1] - x[:, 0, :, 0], x[:, 1, -1] - x[:, 1, 0]
    assert (downward > 0).all()
    mirrored = (rightward < 0).all(1)
    assert (mirrored | (rightward > 0).all(1)).all() and 20 <= int(mirrored.sum()) <= 60


def test_every_example_comes_equally_often_in_an_epoch(tree) -> None:
    """An epoch of 20 passes twice through ten examples; an epoch shorter than a batch starts again."""
    data = load_train_set(_task(tree), BOX, 20, read=_quiet)
    batches = Batches(data, replace(CROPS, batch=10), "image", 10)
    for epoch in range(2):
        rows = torch.cat([batches.rows(2 * epoch + k) for k in range(2)])
        assert torch.bincount(rows).tolist() == [2] * 10
    assert not torch.equal(batches.rows(0), batches.rows(2))
    assert len(Batches(replace(data, epoch=10), CROPS, "image", 64).rows(5)) == 64


def test_spectrograms_are_held_in_bytes_and_waveforms_in_float32() -> None:
    world = registry.make("task", "audio-world", {})
    mel, wave = Box(shape=(1, 64, 64), unit="log-mel"), Box(shape=(1, 8000), low=-1.0, unit="waveform")
    for box, kind in ((mel, torch.uint8), (wave, torch.float32)):
        data: TrainSet = load_train_set(world, box, 3, read=_quiet)
        x = data.take(torch.tensor([2, 0]))[0]
        assert x.dtype == kind
        exact = world.load(box, 0, 3, "train").x[[2, 0]]
        assert (data.dequantise(x) - exact).abs().max() <= (0.5 / 255 + 1e-6 if kind == torch.uint8 else 0)


def test_a_tree_trains_with_crops_and_loaders(tree, tmp_path, no_curves) -> None:
    suite = Suite(
        name="tree",
        version=1,
        summary="",
        modality="image",
        task_name="tree",
        task=_task(tree),
        perturbations=(),
        examples=1,
        seed=0,
        path="",
    )
    found = []
    for loaders in (0, 1):
        steps = []
        given = {**TINY, "batch": 8, "examples": 16, "crop": 0.5, "flip": True, "loaders": loaders, "init": "fare:mini"}
        train("tecoa", suite=suite, out=tmp_path / f"{loaders}", overrides=given, report=steps.append)
        found.append([step.loss for step in steps])
    assert found[0] == found[1] and len(found[0]) == 3


def _trainer(**overrides: object) -> Trainer:
    recipe = load_recipe("fare", modality="thermal", overrides={**TINY, "lora": 4, **overrides})
    trainer = Trainer(prepare(recipe, "thermal"), Accelerator(cpu=True), Memory())
    trainer.start(0)
    return trainer


def test_low_rank_updates_alone_are_trained_and_merged_into_the_result(tmp_path) -> None:
    before = load_encoder("languagebind:mini", "thermal").tower("thermal").state_dict()
    trainer = _trainer(epochs=2)
    trained = [name for name, p in trainer.tower.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained) and len(trained) == 3 * 2 * 2
    for k in range(4):
        trainer.step(k)
    state, x = {k: v.clone() for k, v in trainer.tower.state_dict().items()}, torch.rand(4, 1, 32, 32)
    apart = trainer.tower(x)
    with trainer.result_weights():
        result = {name: value.clone() for name, value in trainer.tower.state_dict().items()}
        assert torch.allclose(trainer.tower(x), apart, atol=1e-5)
    assert {name: value.shape for name, value in result.items()} == {name: v.shape for name, v in before.items()}
    for name, value in result.items():
        delta, attention = value - before[name], name.endswith(("qkv.weight", "out.weight"))
        assert torch.linalg.matrix_rank(delta, atol=1e-6) == 4 if attention else not delta.any(), name
    assert all(torch.equal(value, state[name]) for name, value in trainer.tower.state_dict().items())


def test_low_rank_runs_are_models_and_resume(tmp_path, no_curves) -> None:
    given = {**TINY, "lora": 2, "epochs": 2, "ema": 0.5, "validate": 2}

    def stop(step) -> None:
        if step.what == "step" and step.step == 3 and not stopped:
            stopped.append(step)
            raise KeyboardInterrupt

    stopped: list = []
    whole = train("fare", modalities=["thermal"], out=tmp_path / "a", overrides=given)
    with pytest.raises(KeyboardInterrupt):
        train("fare", modalities=["thermal"], out=tmp_path / "b", overrides=given, report=stop)
    again = train("fare", modalities=["thermal"], out=tmp_path / "b", overrides=given)
    for name in (".", "best"):
        files = [(path / name / "mini-thermal.safetensors").read_bytes() for path in (whole, again)]
        assert files[0] == files[1]
    load_encoder(str(again), "thermal")


@pytest.mark.parametrize("modality", ["image", "video"])
def test_low_rank_updates_of_clip_towers(modality: str) -> None:
    encoder = registry.make("encoder", "languagebind", {"fresh": (modality,), "size": "tiny"})
    tower, x = encoder.tower(modality), torch.rand(2, *encoder.boxes[modality].shape)
    names, before = list(tower.state_dict()), tower(x)
    inject(tower, 2, seed=0, name="tiny")
    assert torch.equal(tower(x), before)
    factors = {name: p for name, p in tower.named_parameters() if p.requires_grad}
    layers = {name.split(".lora_")[0].rsplit(".", 2)[1] for name in factors}
    assert layers == {"temporal_attn" if modality == "video" else "self_attn"}
    assert len(factors) == 2 * 4 * 2  # two layers; q, k, v, out; A, B
    with torch.no_grad():
        for p in factors.values():
            p.normal_(generator=torch.Generator().manual_seed(0))
    name = next(name for name in factors if "v_proj.lora_A" in name).split(".lora_A")[0]
    a, b = (factors[f"{name}.lora_{factor}.default.weight"] for factor in "AB")
    base = tower.state_dict()[f"{name}.base_layer.weight"].clone()
    with merge(tower):
        assert list(tower.state_dict()) == names
        torch.testing.assert_close(tower.state_dict()[f"{name}.weight"], base + 16 / 2 * b @ a)


def test_a_tower_without_attention_has_no_low_rank_updates() -> None:
    with pytest.raises(FieldError, match="conv has none, leave it out"):
        inject(torch.nn.Sequential(torch.nn.Linear(2, 2)), 2, seed=0, name="conv")


def _weights(tower: torch.nn.Module) -> list[Tensor]:
    return [value for name, value in tower.state_dict().items() if "lora_A" in name]


def test_low_rank_starts_depend_on_the_seed() -> None:
    towers = [_trainer(seed=seed).tower for seed in (0, 0, 1)]
    first, second, other = (_weights(tower) for tower in towers)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
