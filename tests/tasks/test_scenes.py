"""The multi-sensor world: one scene, four sensors."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from rlbench.core import Box
from rlbench.core.errors import FieldError, ModalityError, SuiteError
from rlbench.core.registry import make
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import prompts
from rlbench.encoders.mini import BOXES
from rlbench.engine.block.inputs import Recorded
from rlbench.tasks.scenes import Scenes, Sensor
from rlbench.tasks.sensors.audio import draw_sound
from rlbench.tasks.sensors.image import render_image
from rlbench.tasks.sensors.kinds import KINDS
from rlbench.tasks.sensors.scene import Scene
from rlbench.tasks.sensors.thermal import render_thermal
from rlbench.tasks.sensors.video import render_video
from rlbench.tasks.world import Domain

SENSORS: tuple[Sensor, ...] = get_args(Sensor)
DOMAINS: tuple[Domain, ...] = get_args(Domain)
WAVE = Box(shape=(1, 8000), low=-1.0, high=1.0, unit="waveform")
RENDER = {
    "image": lambda scene: render_image(scene, "sensor", (32, 32)),
    "thermal": lambda scene: render_thermal(scene, "sensor", (32, 32)),
    "video": lambda scene: render_video(scene, "sensor", (8, 32, 32)),
    "audio": lambda scene: draw_sound(scene, "sensor"),
}
LOOK_ALIKES = {
    "image": {("motorcycle", "bicycle"), ("ambulance", "bus")},
    "thermal": {("drone", "bird"), ("horse", "cow")},
    "audio": {("car", "motorcycle"), ("train", "waterfall")},
    "video": {("dog", "person"), ("train", "bus")},
}
each = pytest.mark.parametrize("sensor", SENSORS)


def draw(i: int = 0, **facts: object) -> Scene:
    """A scene of the sensor domain, with some facts replaced."""
    return replace(Scenes(subset="all").draw_scenes(i, i + 1)[0], **facts)  # type: ignore[arg-type]


def pool(x: torch.Tensor, sensor: str) -> torch.Tensor:
    return torch.nn.functional.avg_pool3d(x, (2, 2, 2)) if sensor == "video" else torch.nn.functional.avg_pool2d(x, 2)


# Examples


@each
def test_an_example_depends_on_its_index_alone(sensor: Sensor) -> None:
    world, box = Scenes(modality=sensor), BOXES[sensor]
    whole, again, late = world.load(box, 0, 16), Scenes(modality=sensor).load(box, 0, 16), world.load(box, 11, 13)
    assert torch.equal(whole.x, again.x) and torch.equal(whole.x[11:13], late.x)
    assert whole.ids[11:13] == late.ids and torch.equal(whole.y[11:13], late.y)
    assert world.load(box, 5, 5).x.shape == (0, *box.shape)


@each
def test_no_example_is_in_two_splits_domains_subsets_or_series(sensor: Sensor) -> None:
    seen: set[bytes] = set()
    ids: set[str] = set()
    for domain in DOMAINS:
        for subset in ("seen", "unseen", "all"):
            for series in (0, 1):
                world = Scenes(modality=sensor, domain=domain, subset=subset, series=series)  # type: ignore[arg-type]
                for split in ("train", "val", "test"):
                    part = world.load(BOXES[sensor], 0, 4, split)  # type: ignore[arg-type]
                    seen |= {row.numpy().tobytes() for row in part.x}
                    ids |= set(part.ids)
    assert len(seen) == len(ids) == 2 * 3 * 2 * 3 * 4


def test_all_sensors_have_the_same_scenes_by_id() -> None:
    worlds = {sensor: Scenes(modality=sensor, series=2) for sensor in SENSORS}
    first = worlds["image"].load(BOXES["image"], 3, 27, "val")
    for sensor, world in worlds.items():
        part = world.load(BOXES[sensor], 3, 27, "val")
        assert part.ids == first.ids and torch.equal(part.y, first.y)
        assert world.draw_scenes(3, 27, "val") == worlds["image"].draw_scenes(3, 27, "val")
        assert (world.classes, world.templates) == (worlds["image"].classes, worlds["image"].templates)
    assert len({world.fingerprint() for world in worlds.values()}) == len(SENSORS)


@pytest.mark.parametrize(("subset", "classes"), [("seen", 10), ("unseen", 6), ("all", 16)])
def test_every_prefix_is_balanced(subset: str, classes: int) -> None:
    world = make("task", "scenes", {"subset": subset})
    assert len(world.classes) == classes
    for stop in (classes, classes + 1, 3 * classes - 1):
        counts = torch.bincount(world.load(BOXES["image"], 0, stop).y, minlength=classes)
        assert counts.sum() == stop and counts.max() - counts.min() <= 1


@each
@pytest.mark.parametrize("domain", DOMAINS)
def test_values_are_levels_in_the_box(sensor: Sensor, domain: Domain) -> None:
    world, box = Scenes(modality=sensor, domain=domain, subset="all"), BOXES[sensor]
    x = world.load(box, 0, 32).x
    assert x.dtype == torch.float32 and x.shape == (32, *box.shape) and x.min() >= 0 and x.max() <= 1
    torch.testing.assert_close(x, torch.round(x * 255) / 255, rtol=0, atol=1e-6)
    assert x.flatten(1).std(1).min() > 0.005
    wide = Box(shape=box.shape, low=-1.0, high=1.0, unit=box.unit)
    torch.testing.assert_close(world.load(wide, 0, 32).x, 2 * x - 1)


@pytest.mark.parametrize("sensor", ["image", "thermal", "video"])
def test_a_larger_box_shows_the_same_scene(sensor: Sensor) -> None:
    world, box = Scenes(modality=sensor, domain="web", subset="all"), BOXES[sensor]
    shape = (box.shape[0], *(2 * n for n in box.shape[1:]))
    small, large = world.load(box, 0, 16).x, pool(world.load(Box(shape=shape), 0, 16).x, sensor)
    for a, b, c in zip(small, large, large.roll(1, 0), strict=True):
        same, other = (float(torch.corrcoef(torch.stack([a.flatten(), z.flatten()]))[0, 1]) for z in (b, c))
        assert same > 0.97 > other


def test_a_thermal_box_of_three_channels_repeats_one() -> None:
    one, three = (Scenes(modality="thermal").load(Box(shape=(c, 32, 32)), 0, 4).x for c in (1, 3))
    assert torch.equal(three, one.expand(4, 3, 32, 32))


def test_sounds_can_be_corrupted_before_the_front_end() -> None:
    world = Scenes(modality="audio")
    assert isinstance(world, Recorded)
    for box in (BOXES["audio"], WAVE):
        assert torch.equal(world.hear(world.waves(box, 2, 5), box), world.load(box, 2, 5).x)
    with pytest.raises(ModalityError, match="draws log-mel"):
        Scenes(modality="video").waves(BOXES["video"], 0, 1)


@each
def test_a_box_of_another_sensor_is_refused(sensor: Sensor) -> None:
    for other, box in BOXES.items():
        if other != sensor and (sensor, other) != ("thermal", "image"):  # thermal also draws three equal channels
            with pytest.raises(ModalityError, match="scenes draws"):
                Scenes(modality=sensor).load(box, 0, 1)


def test_a_sensor_that_scenes_do_not_have_is_refused() -> None:
    with pytest.raises(FieldError, match="one of image, thermal, audio, video"):
        make("task", "scenes", {"modality": "depth"})


def test_names_read_well_in_prompts() -> None:
    world = Scenes(subset="all")
    names = [label.name for label in world.classes]
    assert len(set(names)) == 16 and len(world.templates) >= 5
    for name in names:
        for text in prompts(name, world.templates):
            assert name in text and not re.search(r"[{}_]|\ba [aeiou]", text)


# What each sensor can and can't tell


@each
def test_look_alikes_are_equal_in_this_sensor_alone(sensor: Sensor) -> None:
    """With the same surroundings, two classes look or sound the same exactly if they are listed."""
    scene = draw(5)
    views = {kind.name: RENDER[sensor](replace(scene, label=k)) for k, kind in enumerate(KINDS)}
    equal = {(a, b) for a, b in combinations(views, 2) if np.array_equal(views[a], views[b])}
    assert equal == LOOK_ALIKES[sensor]


def test_every_pair_of_look_alikes_is_told_apart_by_the_other_sensors() -> None:
    names = [kind.name for kind in KINDS]
    for sensor, pairs in LOOK_ALIKES.items():
        for pair in pairs:
            assert not any(pair in others for other, others in LOOK_ALIKES.items() if other != sensor)
            assert len({names.index(name) < 10 for name in pair}) == 1  # both seen, or both unseen


@pytest.mark.parametrize(
    ("facts", "blind"),
    [
        ({"light": 0.1}, {"thermal", "audio"}),
        ({"haze": 0.9, "warmth": 0.9}, {"image", "audio", "video"}),
        ({"wind": 3.0, "traffic": 3.0}, {"image", "thermal", "video"}),
        ({"shake": (0.5, -0.5), "pace": 1.3}, {"image", "thermal", "audio"}),
        ({"fog": 0.9}, {"audio"}),
        ({"distance": 0.9}, set()),
    ],
    ids=["night", "heat", "noise", "motion", "fog", "distance"],
)
def test_a_condition_reaches_only_the_sensors_that_it_concerns(facts: dict[str, object], blind: set[str]) -> None:
    scene = draw(4, light=0.9, haze=0.1, warmth=0.1, wind=0.3, traffic=0.1, fog=0.1, distance=0.1)
    changed = replace(scene, **facts)  # type: ignore[arg-type]
    same = {sensor for sensor in SENSORS if np.array_equal(RENDER[sensor](scene), RENDER[sensor](changed))}
    assert same == blind


def test_night_leaves_the_stated_share_of_an_images_contrast() -> None:
    """Brightness is proportional to 1/4 + 3/4 light, so that ratios of contrasts are known."""
    scenes = [replace(scene, fog=0.0) for scene in Scenes(subset="all").draw_scenes(0, 64)]
    spreads = []
    for light in (1.0, 0.2):
        pictures = [render_image(replace(scene, light=light), "web", (32, 32)) for scene in scenes]
        spreads.append(np.median([picture.mean() for picture in pictures]))
    assert spreads[1] / spreads[0] == pytest.approx(0.25 + 0.75 * 0.2, abs=0.02)


def test_fog_covers_everything_alike() -> None:
    lost = render_image(draw(fog=1.0, light=1.0), "web", (32, 32))
    assert lost.mean() == pytest.approx(0.7, abs=0.005) and lost.std() < 0.03


def test_things_go_where_they_head() -> None:
    """The centre of what differs from the median frame of a car moves right by 1.1 x 1.2 x 7/8, or left."""
    for mirror in (-1, 1):
        facts = {
            "mirror": mirror,
            "distance": 0.0,
            "fog": 0.0,
            "light": 1.0,
            "pace": 1.0,
            "x": 0.0,
            "shake": (0.0, 0.0),
        }
        ways = []
        for i in range(12):
            film = render_video(draw(i, label=4, **facts), "web", (8, 32, 32))
            change = np.abs(film - np.median(film, axis=1, keepdims=True)).sum((0, 2))  # (T, W)
            change = change > change.max(1, keepdims=True) / 2
            centre = change @ ((np.arange(32) + 0.5) / 16 - 1) / change.sum(1)
            ways.append(centre[-1] - centre[0])
        assert np.median(ways) == pytest.approx(mirror * 1.1 * 1.2 * 7 / 8, abs=0.15)


def test_a_slow_thing_moves_less() -> None:
    usual, slow = (np.ptp(KINDS[4].video.move(draw(pace=pace), np.array([0.0, 1.0]))[0].x) for pace in (1.0, 0.6))
    assert usual == pytest.approx(1.1) and slow == pytest.approx(0.6 * usual)


def test_the_sound_is_softer_in_the_distance() -> None:
    """Against the same hiss, the power of a siren's two tones falls by the stated 0.3 squared."""
    ratios = []
    for i in range(12):
        tones = []
        for distance in (0.0, 1.0):
            wave = draw_sound(draw(i, label=13, wind=0.0, traffic=0.0, distance=distance), "sensor")
            power = np.abs(np.fft.rfft(wave)) ** 2
            tones.append(power[600:1070].sum() / np.median(power[3000:3900]))
        ratios.append(tones[1] / tones[0])
    assert np.median(ratios) == pytest.approx(0.3**2, rel=0.3)


def test_single_sensor_suites_can_use_scenes(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    head = "suite: night\nversion: 1\nsummary: s\nperturbations: [clean]\n"
    text = head + "modality: {}\ntask: {{name: scenes, modality: {}}}"
    for sensor in SENSORS:
        path.write_text(text.format(sensor, sensor))
        assert load_suite(path).task == Scenes(modality=sensor)
    path.write_text(text.format("image", "audio"))
    with pytest.raises(SuiteError, match="task 'scenes' is audio; the suite's modality is image"):
        load_suite(path)


# Domains


@pytest.mark.parametrize("fact", ["fog", "haze", "distance", "warmth", "wind", "traffic"])
def test_the_sensor_domain_is_harder(fact: str) -> None:
    web, sensor = (
        np.mean([getattr(scene, fact) for scene in Scenes(domain=domain).draw_scenes(0, 400)]) for domain in DOMAINS
    )
    assert sensor > 1.15 * web


def test_conditions_are_independent_of_the_class() -> None:
    scenes = Scenes(subset="seen").draw_scenes(0, 2000)
    for fact in ("light", "fog", "haze", "distance", "warmth", "wind", "traffic", "x", "build", "pace"):
        values = np.array([getattr(scene, fact) for scene in scenes]).reshape(-1, 10)
        spread = values.mean(0).std() / (values.std() / len(values) ** 0.5)
        assert spread < 2, fact


@pytest.mark.parametrize(("sensor", "web", "noisy"), [("image", 0.012, 0.03), ("thermal", 0.012, 0.025)])
def test_noise_has_the_stated_level(sensor: Sensor, web: float, noisy: float) -> None:
    """From the median size of a 2x2 checkerboard difference, which cancels flat parts, slopes and columns."""
    for domain, stated in (("web", web), ("sensor", noisy)):
        x = Scenes(modality=sensor, domain=domain, subset="all").load(BOXES[sensor], 0, 96).x.numpy()  # type: ignore[arg-type]
        x = np.where((x > 0.02) & (x < 0.98), x, np.nan)
        checker = (x[..., 1:, 1:] - x[..., 1:, :-1] - x[..., :-1, 1:] + x[..., :-1, :-1]) / 2
        assert np.nanmedian(np.abs(checker)) / 0.6745 == pytest.approx(stated, rel=0.25)
