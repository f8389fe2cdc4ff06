"""The audio and video worlds and the log-mel front end."""

import re

import numpy as np
import pytest
import torch

from rlbench.core import Box
from rlbench.core.errors import ModalityError
from rlbench.core.media.log_mel import logmel
from rlbench.core.registry import make
from rlbench.encoders.heads import prompts
from rlbench.tasks.audio_world import AudioWorld
from rlbench.tasks.synthesis import RATE
from rlbench.tasks.video_world import VideoWorld
from rlbench.tasks.world import World

MEL = Box(shape=(1, 64, 64), unit="log-mel")
WAVE = Box(shape=(1, RATE), low=-1.0, high=1.0, unit="waveform")
FILM = Box(shape=(3, 8, 32, 32))
WORLDS = [(AudioWorld, MEL), (AudioWorld, WAVE), (VideoWorld, FILM)]
each = pytest.mark.parametrize(("world", "box"), WORLDS, ids=["log-mel", "waveform", "video"])
SECOND = np.arange(RATE) / RATE


@each
def test_same_call_same_numbers_and_a_prefix_never_changes(world: type[World], box: Box) -> None:
    whole, part = world().load(box, 0, 12), world().load(box, 7, 9)
    assert torch.equal(whole.x[7:9], part.x) and torch.equal(whole.y[7:9], part.y) and whole.ids[7:9] == part.ids
    assert not torch.equal(whole.x[0], whole.x[10])
    assert world().load(box, 3, 3).x.shape == (0, *box.shape)


@each
def test_splits_domains_and_subsets_share_no_example(world: type[World], box: Box) -> None:
    parts = [("web", "all", "test"), ("sensor", "all", "test"), ("sensor", "seen", "test"), ("sensor", "seen", "val")]
    loads = [world(domain=d, subset=s).load(box, 0, 4, split) for d, s, split in [*parts, ("sensor", "seen", "train")]]
    ids = [i for batch in loads for i in batch.ids]
    pixels = {x.numpy().tobytes() for batch in loads for x in batch.x}
    assert len(set(ids)) == len(ids) == len(pixels)


@each
def test_range_levels_and_balance(world: type[World], box: Box) -> None:
    batch = world(subset="all").load(box, 0, 32)
    assert batch.x.dtype == torch.float32 and batch.x.shape == (32, *box.shape)
    assert batch.x.min() >= box.low and batch.x.max() <= box.high
    steps = (batch.x.double() - box.low) / (box.high - box.low) * (65535 if box is WAVE else 255)
    assert (steps - steps.round()).abs().max() < 1e-2
    assert batch.y.bincount().tolist() == [2] * 16
    assert (batch.x.flatten(1).std(1) > 0.01).all()


@pytest.mark.parametrize("domain", ["web", "sensor"])
def test_a_larger_film_shows_the_same_scene(domain: str) -> None:
    world = make("task", "video-world", {"domain": domain, "subset": "all"})
    small = world.load(FILM, 0, 16).x
    large = world.load(Box(shape=(3, 16, 64, 96)), 0, 16).x
    shrunk = torch.nn.functional.avg_pool3d(large, (2, 2, 3))
    for a, b, c in zip(small, shrunk, shrunk.roll(1, 0), strict=True):
        same, other = (float(torch.corrcoef(torch.stack([a.flatten(), z.flatten()]))[0, 1]) for z in (b, c))
        assert same > 0.85 > other


def test_a_box_only_samples_the_same_sound() -> None:
    world = AudioWorld(subset="all")
    wave, mel = world.load(WAVE, 0, 16).x[:, 0].double().numpy(), world.load(MEL, 0, 16).x
    faster = world.load(Box(shape=(1, 2 * RATE), low=-1.0, high=1.0, unit="waveform"), 0, 16).x[:, 0].numpy()
    for one, two, picture in zip(wave, faster, mel, strict=True):
        assert np.corrcoef(one, two[::2])[0, 1] > 0.999
        assert np.abs(logmel(one, RATE, MEL) - picture.numpy()).mean() < 0.01


@pytest.mark.parametrize("unit", ["log-mel", "video"])
def test_classes_can_be_told_apart_on_the_web(unit: str) -> None:
    """Nearest class mean of simple statistics, far above the 1 in 16 of chance; a classifier does far better."""
    if unit == "log-mel":
        x = AudioWorld(domain="web", subset="all").load(MEL, 0, 320).x[:, 0]
        features = torch.cat([x.mean(2), x.std(2), x.mean(1).sort(1).values], 1)
    else:
        film = VideoWorld(domain="web", subset="all").load(FILM, 0, 320).x
        still = film.median(2, keepdim=True).values
        moved = (film - still).abs().mean(1)  # (N, T, H, W)
        features = torch.cat([moved.mean((2, 3)), moved.mean((1, 3)), moved.mean((1, 2)), film.mean((1, 3, 4))], 1)
    features = (features - features.mean(0)) / features.std(0)
    y = torch.arange(320) % 16
    means = torch.stack([features[:160][y[:160] == k].mean(0) for k in range(16)])
    accuracy = (torch.cdist(features[160:], means).argmin(1) == y[160:]).float().mean()
    assert accuracy > (0.4 if unit == "log-mel" else 0.2)


def test_sensor_is_noisier_than_web() -> None:
    """Where nothing happens, frame to frame: 0.03 against 0.01, times sqrt 2 for a difference."""
    noise = {}
    for domain in ("web", "sensor"):
        x = VideoWorld(domain=domain).load(FILM, 0, 20).x  # type: ignore[arg-type]
        noise[domain] = float((x[:, :, 1:] - x[:, :, :-1]).abs().median()) / (0.6745 * 2**0.5)
    assert noise["web"] == pytest.approx(0.01, abs=0.004) and noise["sensor"] == pytest.approx(0.03, abs=0.01)


@pytest.mark.parametrize(("dx", "dy", "label"), [(-1, 0, 0), (1, 0, 1), (0, -1, 2), (0, 1, 3)])
def test_moving_objects_go_where_their_name_says(dx: int, dy: int, label: int) -> None:
    """The centre of what differs from the median frame moves left, right, up or down; row 0 is the top."""
    x = VideoWorld(domain="web", subset="seen").load(FILM, 0, 80).x[label::10]
    change = (x - x.median(2, keepdim=True).values).abs().mean(1) ** 2
    axis = torch.linspace(-1, 1, 32)
    total = change.sum((2, 3))
    right, down = (change.sum(2) @ axis) / total, (change.sum(3) @ axis) / total
    way = torch.stack([right[:, -1] - right[:, 0], down[:, -1] - down[:, 0]], 1).mean(0)
    assert way @ torch.tensor([dx, dy], dtype=torch.float) > 0.6 and way.abs().min() < 0.2


@pytest.mark.parametrize("box", [Box(shape=(1, 32, 32)), Box(shape=(2, 64, 64), unit="log-mel"), FILM])
def test_a_box_that_is_not_audio_is_refused(box: Box) -> None:
    with pytest.raises(ModalityError, match="draws log-mel"):
        AudioWorld().load(box, 0, 1)


@pytest.mark.parametrize("box", [Box(shape=(3, 32, 32)), Box(shape=(1, 8, 32, 32)), MEL])
def test_a_box_that_is_not_video_is_refused(box: Box) -> None:
    with pytest.raises(ModalityError, match="draws \\(3, T, H, W\\)"):
        VideoWorld().load(box, 0, 1)


@pytest.mark.parametrize("name", ["audio-world", "video-world"])
def test_names_read_well_in_prompts(name: str) -> None:
    world = make("task", name, {"subset": "all"})
    assert len({c.name for c in world.classes}) == len({c.label for c in world.classes}) == 16
    assert len(world.templates) >= 5
    for label in world.classes:
        for text in prompts(label.name, world.templates):
            assert label.name in text and not re.search(r"[{}_]|\b(an?) \1\b", text)
