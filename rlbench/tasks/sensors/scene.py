"""The latent scene: what is there at one moment, without the view of any sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlbench.core.seeds import generator
from rlbench.tasks.shapes import Frame, place
from rlbench.tasks.world import Domain


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A thing and its surroundings. All but `label` is drawn independently of the class.

    Attributes:
        label: the label of the class, 0 to 15.
        x: the thing's distance to the right of the picture's centre, in half widths.
        y: the same upwards.
        turn: the tilt of the thing in radians.
        stretch: the thing's width over height, relative to the drawing.
        mirror: -1 if the thing heads left, 1 if right.
        distance: from near (0) to far (1).
        pace: the speed relative to the usual one.
        phase: the phase of the gait or of any other cycle, in [0, 1).
        build: the proportions of the thing, in [0, 1).
        light: from night (0) to full daylight (1).
        fog: the opacity of the air, in [0, 1].
        haze: the strength of heat haze, in [0, 1].
        warmth: the temperature of the surroundings, from cold (0) to as warm as a body (1).
        wind: the loudness of the wind, relative to the thing nearby.
        traffic: the loudness of the traffic, relative to the thing nearby.
        shake: the drift of the video camera over the clip, right and up, in half widths.
        seed: the seed of what each sensor draws by itself: noise, colours, clutter.
    """

    label: int
    x: float
    y: float
    turn: float
    stretch: float
    mirror: int
    distance: float
    pace: float
    phase: float
    build: float
    light: float
    fog: float
    haze: float
    warmth: float
    wind: float
    traffic: float
    shake: tuple[float, float]
    seed: int

    def make_stream(self, sensor: str) -> np.random.Generator:
        """Makes a random stream, independent of those of other names and of the class.

        Args:
            sensor: the name of the stream.
        """
        return generator(self.seed, sensor)

    def make_frame(self, hw: tuple[int, int]) -> Frame:
        """Makes the thing's frame in the close-up that the image and thermal cameras share.

        Args:
            hw: the rows and columns of the picture.
        """
        size, wide = 0.88 - 0.4 * self.distance, float(np.sqrt(self.stretch))
        return place(hw, x=self.x, y=self.y, turn=self.turn, size=size, wide=wide, mirror=self.mirror)


@dataclass(frozen=True)
class _Place:
    """A domain's surroundings: the largest value, or the range, of an attribute of `Scene`.

    Attributes:
        night: the probability of night.
        distance: the largest distance.
        fog: the largest opacity.
        haze: the strongest haze.
        warmth: the highest temperature.
        wind: the range of the loudness.
        traffic: the range of the loudness.
        shake: the largest drift in a direction.
    """

    night: float
    distance: float
    fog: float
    haze: float
    warmth: float
    wind: tuple[float, float]
    traffic: tuple[float, float]
    shake: float


_PLACES: dict[Domain, _Place] = {
    "web": _Place(0.15, 0.5, 0.3, 0.3, 0.4, (0.05, 0.6), (0.0, 0.3), 0.08),
    "sensor": _Place(0.3, 1.0, 0.7, 0.55, 0.6, (0.25, 2.2), (0.1, 0.9), 0.12),
}


def draw_scene(g: np.random.Generator, label: int, domain: Domain) -> Scene:
    """Draws what is there: the web domain is brighter, nearer, calmer and quieter than the sensor domain.

    Args:
        g: the example's random stream.
        label: the label of the class, 0 to 15.
        domain: "web" or "sensor".
    """
    most = _PLACES[domain]
    night, sun, storm = g.random() < most.night, g.random(), g.random()
    x, y, turn, stretch = g.uniform(-1, 1, 4).tolist()
    right, up = g.uniform(-most.shake, most.shake, 2).tolist()
    return Scene(
        label=label,
        x=0.2 * x,
        y=0.2 * y,
        turn=0.25 * turn,
        stretch=float(np.exp(0.2 * stretch)),
        mirror=1 if g.random() < 0.5 else -1,
        distance=most.distance * g.random(),
        pace=g.uniform(0.6, 1.4),
        phase=g.random(),
        build=g.random(),
        light=0.1 + 0.3 * sun if night else 0.5 + 0.5 * sun,
        fog=most.fog * storm**2,
        haze=most.haze * g.random(),
        # The ground is cold at night, so that a thermal camera sees best when an image shows least.
        warmth=most.warmth * (0.3 * g.random() if night else g.random()),
        wind=_scale_loudness(storm, most.wind),
        traffic=_scale_loudness(g.random(), most.traffic),
        shake=(right, up),
        seed=int(g.integers(2**62)),
    )


def _scale_loudness(share: float, between: tuple[float, float]) -> float:
    """Gives a loudness at a share of its range: of the logarithm or, if the range starts at 0, of the square root."""
    low, high = between
    return float(low * (high / low) ** share if low else high * share**2)
