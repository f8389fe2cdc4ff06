"""The audio and video worlds and the log-mel front end."""

import re
import warnings

import numpy as np
import pytest
import torch

from rlbench.core import Box
from rlbench.core.errors import DataError, ModalityError
from rlbench.core.media.log_mel import edges, filterbank, hertz_to_mel, logmel, mel_to_hertz
from rlbench.core.registry import make
from rlbench.encoders.heads import prompts
from rlbench.tasks.audio_world import RATE, AudioWorld
from rlbench.tasks.video_world import VideoWorld
from rlbench.tasks.world import World

MEL = Box(shape=(1, 64, 64), unit="log-mel")
WAVE = Box(shape=(1, RATE), low=-1.0, high=1.0, unit="waveform")
FILM = Box(shape=(3, 8, 32, 32))
WORLDS = [(AudioWorld, MEL), (AudioWorld, WAVE), (VideoWorld, FILM)]
each = pytest.mark.parametrize(("world", "box"), WORLDS, ids=["log-mel", "waveform", "video"])
SECOND = np.arange(RATE) / RATE


# The front end


def test_mel_scale_is_htk() -> None:
    # The HTK Book's scale puts 1000 Hz at 1000 mel to 4 digits; Kaldi writes it as 1127 ln(1 + f / 700).
    assert hertz_to_mel(1000.0) == pytest.approx(1000, abs=0.02)
    f = np.linspace(0, 8000, 99)
    np.testing.assert_allclose(hertz_to_mel(f), 1127 * np.log1p(f / 700), rtol=2e-5)
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(f)), f, atol=1e-9)


@pytest.mark.parametrize(("mels", "rate", "points"), [(64, 8000, 1024), (128, 16000, 4096)])
def test_filterbank_is_a_partition_of_unity(mels: int, rate: int, points: int) -> None:
    """Neighbouring triangles overlap by half, so that between the outer peaks the weights of every bin add to one."""
    bank, peaks = filterbank(mels, rate, points), edges(mels, rate)[1:-1]
    hertz = np.fft.rfftfreq(points, 1 / rate)
    inner = (hertz > peaks[0]) & (hertz < peaks[-1])
    np.testing.assert_allclose(bank.sum(0)[inner], 1, atol=1e-5)
    assert bank.min() >= 0 and (bank > 0).any(axis=1).all() and not bank[:, hertz < 20].any()


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("hertz", [150, 440, 1000, 2500, 3700])
def test_tone_peaks_in_the_band_that_contains_it(hertz: int, rate: int) -> None:
    wave = np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    band = int(logmel(wave, rate, MEL)[0].mean(1).argmax())
    low, high = edges(64, rate)[[band, band + 2]]
    assert low <= hertz <= high


def test_impulse_lights_the_frame_at_its_time() -> None:
    for seconds in (0.0, 0.25, 0.5, 0.999):
        wave = np.zeros(RATE)
        wave[int(seconds * RATE)] = 1
        assert abs(int(logmel(wave, RATE, MEL)[0].sum(0).argmax()) - int(seconds * 64)) <= 1


def test_a_tone_20_db_weaker_is_a_third_of_the_range_lower() -> None:
    loud, weak = (
        np.sin(2 * np.pi * 500 * SECOND) + 10 ** (level / 20) * np.sin(2 * np.pi * 3000 * SECOND)
        for level in (-10, -30)
    )
    band = int(np.searchsorted(edges(64, RATE), 3000)) - 1
    gap = (logmel(loud, RATE, MEL) - logmel(weak, RATE, MEL))[0, band, 5:-5]
    np.testing.assert_allclose(gap, 20 / 60, atol=1.5 / 255)


def test_silence_is_zero_and_gain_does_not_matter() -> None:
    wave = np.random.default_rng(0).standard_normal(RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not logmel(np.zeros(RATE), RATE, MEL).any()
        assert not logmel(np.zeros(0), RATE, MEL).any()
        for gain in (1e-12, 0.5, 2.0**40):
            np.testing.assert_array_equal(logmel(gain * wave, RATE, MEL), logmel(wave, RATE, MEL))


@pytest.mark.parametrize("samples", [1, 100, 1200, 8000, 40_001])
@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 80, 7), (1, 112, 300)])
def test_any_clip_fills_any_box(samples: int, shape: tuple[int, int, int]) -> None:
    wave = np.random.default_rng(0).standard_normal(samples)
    x = logmel(wave, RATE, Box(shape=shape, unit="log-mel"))
    assert x.shape == shape and x.dtype == np.float32
    assert x.min() >= 0 and x.max() == 1
    assert samples < 1000 or (x[0].mean(0) > 0.3).all()  # white noise is in every frame, also the last


@pytest.mark.parametrize("wave", [np.zeros((2, 9)), np.array([0, np.nan]), np.array([np.inf, 0])])
def test_unusable_waves_are_refused(wave: np.ndarray) -> None:
    with pytest.raises(DataError, match="one channel of finite samples"):
        logmel(wave, RATE, MEL)


# The worlds


@each
def test_same_call_same_numbers_and_a_prefix_never_changes(world: type[World], box: Box) -> None:
    whole, part = world().load(box, 0, 12), world().load(box, 7, 9)
    assert torch.equal(whole.x[7:9], part.x) and torch.equal(whole.y[7:9], part.y) and whole.ids[7:9] == part.ids
    assert not torch.equal(whole.x[0], whole.x[10])
    assert world().load(box, 3, 3).x.shape == (0, *box.shape)


@each
def test_splits_domains_and_subsets_never_meet(world: type[World], box: Box) -> None:
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
