"""The thermal and image worlds and the shapes they are drawn with."""

import numpy as np
import pytest
import torch

from rlbench.core import Box
from rlbench.core.errors import ModalityError
from rlbench.core.registry import make
from rlbench.encoders.heads import prompts
from rlbench.tasks import image_world
from rlbench.tasks.image_world import ImageWorld
from rlbench.tasks.shapes import Frame, cells, grid, pose, quantise, smooth
from rlbench.tasks.thermal_world import ThermalWorld
from rlbench.tasks.world import World

HEAT, COLOUR = Box(shape=(1, 32, 32)), Box(shape=(3, 32, 32))
WORLDS = [(ThermalWorld, HEAT), (ImageWorld, COLOUR)]
each = pytest.mark.parametrize(("world", "box"), WORLDS, ids=["thermal", "image"])
DOMAINS = ("web", "sensor")
SIDE = 400
F = Frame(*grid(SIDE, SIDE), 2 / SIDE)


def area(distance: np.ndarray) -> float:
    return float(F.cover(distance).mean() * 4)


# Shapes


def test_areas_equal_the_textbook_formulas() -> None:
    a, b, r = 0.6, 0.3, 0.5
    assert area(F.disc(0.1, -0.2, r)) == pytest.approx(np.pi * r**2, rel=1e-3)
    assert area(F.oval(0.1, 0.2, a, b)) == pytest.approx(np.pi * a * b, rel=1e-3)
    assert area(F.ring(0, 0, r, 0.1)) == pytest.approx(2 * np.pi * r * 0.2, rel=1e-3)
    assert area(F.block(0.1, 0.3, a, b)) == pytest.approx(4 * a * b, rel=1e-3)
    assert area(F.convex((-0.5, -0.5), (0.7, -0.5), (0, 0.6))) == pytest.approx(1.2 * 1.1 / 2, rel=1e-3)
    pen = 0.1
    assert area(F.strokes(pen, (-0.3, -0.4, 0.3, 0.4))) == pytest.approx(2 * pen + np.pi * pen**2, rel=1e-3)
    corner = F.path(pen, (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))
    # Two bars with round ends that share a quarter disc and a square of the corner.
    assert area(corner) == pytest.approx(4 * pen + 5 / 4 * np.pi * pen**2 - pen**2, rel=1e-3)


def test_coordinates_point_right_and_up() -> None:
    x, y = grid(2, 4)
    np.testing.assert_allclose(x, [[-0.75, -0.25, 0.25, 0.75]] * 2)
    np.testing.assert_allclose(y, [[0.5] * 4, [-0.5] * 4])
    above = F.cover(F.disc(0.5, 0.5, 0.2))
    assert above[: SIDE // 2, SIDE // 2 :].sum() == pytest.approx(above.sum())


def test_poses_keep_areas_under_rotation_and_stretch_and_scale_them_by_the_square() -> None:
    for seed in range(8):
        f = pose(np.random.default_rng(seed), (200, 200), turn=3, scale=(0.5, 0.5), shift=0.2, stretch=0.4)
        assert f.cover(f.disc(0, 0, 0.8)).mean() * 4 == pytest.approx(np.pi * 0.4**2, rel=0.01)


def test_coarse_fields_interpolate_and_cells_repeat() -> None:
    x, y = grid(10, 16)
    corners = np.array([[2.0 + 3 - 1, 2 + 3 + 1], [2 - 3 - 1, 2 - 3 + 1]])  # 2 + 3 y + x
    np.testing.assert_allclose(smooth(corners, (10, 16)), 2 + 3 * y + x)
    coarse = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(cells(coarse, (6, 12)), coarse.repeat(2, 0).repeat(3, 1))
    np.testing.assert_array_equal(quantise(np.array([-1.0, 0.5, 2.0])) * 255, [0, 128, 255])


# Both worlds


@each
def test_examples_depend_on_their_index_alone(world: type[World], box: Box) -> None:
    whole = world().load(box, 0, 24)
    again, late = world().load(box, 0, 24), world().load(box, 17, 19)
    assert torch.equal(whole.x, again.x) and torch.equal(whole.x[17:19], late.x)
    assert whole.ids[17:19] == late.ids and torch.equal(whole.y[17:19], late.y)
    assert world().load(box, 5, 5).x.shape == (0, *box.shape)


@each
def test_no_picture_is_in_two_splits_domains_or_subsets(world: type[World], box: Box) -> None:
    seen: set[bytes] = set()
    for domain in DOMAINS:
        for subset in ("seen", "unseen", "all"):
            for split in ("train", "val", "test"):
                x = world(domain=domain, subset=subset).load(box, 0, 16, split).x
                seen |= {row.numpy().tobytes() for row in x}
    assert len(seen) == 2 * 3 * 3 * 16


@each
@pytest.mark.parametrize("domain", DOMAINS)
def test_pictures_are_float32_8_bit_levels_in_the_box(world: type[World], box: Box, domain: str) -> None:
    e = make("task", world.name, {"domain": domain, "subset": "all"}).load(box, 0, 32)
    assert e.x.dtype == torch.float32 and e.x.shape == (32, *box.shape) and e.x.min() >= 0 and e.x.max() <= 1
    torch.testing.assert_close(e.x, torch.round(e.x * 255) / 255, rtol=0, atol=0)
    assert e.x.flatten(1).std(1).min() > 0.01
    wide = Box(shape=box.shape, low=-1.0, high=1.0)
    torch.testing.assert_close(world(domain=domain, subset="all").load(wide, 0, 32).x, 2 * e.x - 1)


@each
@pytest.mark.parametrize("domain", DOMAINS)
def test_all_classes_show_one_scene_at_every_resolution(world: type[World], box: Box, domain: str) -> None:
    made = world(domain=domain, subset="all")
    coarse = made.load(box, 0, 16).x
    for h, w in ((64, 64), (64, 96)):
        fine = made.load(Box(shape=(box.shape[0], h, w)), 0, 16).x
        pooled = torch.nn.functional.avg_pool2d(fine, (h // 32, w // 32))
        for a, b in zip(coarse.flatten(1), pooled.flatten(1), strict=True):
            assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.97
            assert (a - b).abs().mean() < 0.01


@each
def test_every_prefix_is_balanced(world: type[World], box: Box) -> None:
    for subset, classes in (("seen", 10), ("unseen", 6), ("all", 16)):
        made = world(subset=subset)
        assert len(made.classes) == classes
        for stop in (classes, classes + 1, 3 * classes - 1):
            counts = torch.bincount(made.load(box, 0, stop).y, minlength=classes)
            assert counts.sum() == stop and counts.max() - counts.min() <= 1


@each
def test_a_box_of_another_kind_is_refused_in_one_line(world: type[World], box: Box) -> None:
    for shape in ((2, 32, 32), (32, 32), (3, 8, 32, 32)):
        with pytest.raises(ModalityError, match=world.name):
            world().load(Box(shape=shape), 0, 1)


@each
def test_names_are_distinct_and_read_well_in_prompts(world: type[World], box: Box) -> None:
    names = [c.name for c in world.world_classes]
    assert len(set(names)) == 16 and len(world.world_templates) >= 5
    text = [p for name in names for p in prompts(name, world.world_templates)]
    assert len(set(text)) == 16 * len(world.world_templates)
    assert all(name in p for name, p in zip(np.repeat(names, len(world.world_templates)), text, strict=True))
    assert not any("{" in p or " a airplane" in p or " a arrow" in p for p in text)


def test_thermal_boxes_of_three_channels_repeat_one() -> None:
    one, three = (ThermalWorld().load(Box(shape=(c, 32, 32)), 0, 4).x for c in (1, 3))
    assert torch.equal(three, one.expand(4, 3, 32, 32))


# What the pictures carry


def nearest_mean(train: np.ndarray, y_train: np.ndarray, test: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy of the class whose mean is nearest."""
    means = np.stack([train[y_train == k].mean(0) for k in range(16)])
    distance = ((test[:, None] - means) ** 2).sum(-1)
    return float((distance.argmin(1) == y_test).mean())


def outlines(x: np.ndarray) -> np.ndarray:
    """The distance of every pixel from the border's median colour, plus its mirror image, of unit norm per picture."""
    border = np.concatenate([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], axis=2)
    off = np.linalg.norm(x - np.median(border, axis=2)[:, :, None, None], axis=1)
    off = off + off[:, :, ::-1]
    return (off / np.linalg.norm(off, axis=(1, 2), keepdims=True)).reshape(len(x), -1)


@each
def test_the_shape_gives_the_class_and_the_mean_colour_does_not(world: type[World], box: Box) -> None:
    """Chance is 1/16; blurred class averages, blind to position and turn, are a weak reader of shapes."""
    made = world(domain="web", subset="all")
    train, test = made.load(box, 0, 640, "train"), made.load(box, 0, 320, "test")
    a, b, y, z = train.x.numpy(), test.x.numpy(), train.y.numpy(), test.y.numpy()
    assert nearest_mean(outlines(a), y, outlines(b), z) > 0.45
    made = world(domain="sensor", subset="all")
    train, test = made.load(box, 0, 640, "train"), made.load(box, 0, 320, "test")
    a, b = train.x.numpy().mean((2, 3)), test.x.numpy().mean((2, 3))
    assert nearest_mean(a, y, b, z) < 0.16


@each
def test_noise_has_the_stated_level(world: type[World], box: Box) -> None:
    """From the median size of a 2x2 checkerboard difference, which cancels flat parts, slopes and columns."""
    for domain, stated in (("web", 0.01), ("sensor", {"thermal-world": 0.03, "image-world": 0.04}[world.name])):
        x = world(domain=domain, subset="all").load(box, 0, 96).x.numpy()
        x = np.where((x > 0.02) & (x < 0.98), x, np.nan)  # where clipping took none of it away
        checker = (x[..., 1:, 1:] - x[..., 1:, :-1] - x[..., :-1, 1:] + x[..., :-1, :-1]) / 2
        assert np.nanmedian(np.abs(checker)) / 0.6745 == pytest.approx(stated, rel=0.2)


def test_black_hot_share_is_the_domains() -> None:
    for domain, share in (("web", 0.08), ("sensor", 0.25)):
        x = ThermalWorld(domain=domain, subset="all").load(HEAT, 0, 600).x
        bright = (x.flatten(1).median(1).values > 0.5).float().mean()
        assert float(bright) == pytest.approx(share, abs=0.05)


def test_objects_stand_out_by_the_stated_contrast() -> None:
    g = np.random.default_rng(0)
    for domain, (low, high) in (("web", (0.5, 0.9)), ("sensor", (0.3, 0.7))):
        pairs = [image_world.draw_colours(g, g.random(), image_world.STYLES[domain]) for _ in range(200)]
        gaps = np.array([np.linalg.norm(ink - ground) for ink, ground in pairs])
        assert np.mean((gaps > low - 0.05) & (gaps < high + 0.05)) > 0.97
        assert gaps.mean() == pytest.approx((low + high) / 2, abs=0.04)
