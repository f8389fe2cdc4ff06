"""How things move in front of a wide-angle video camera, where little is seen of their shape: blobs over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlbench.tasks.sensors.scene import Scene

Path = np.ndarray | float  # a value, or one for every frame (T,)
SKY, GROUND = 0.4, -0.3  # usual height of things, in half heights from the centre


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A part of a moving thing; lengths are in half widths of the picture, at a distance of about 0.4.

    Attributes:
        x: place relative to the thing's usual place, positive in its direction.
        y: the same upwards.
        rx: half the width.
        ry: half the height.
        tone: contrast to the background, relative to the thing's; negative if on the other side of the background.
        box: a rectangle instead of an ellipse.
    """

    x: Path = 0.0
    y: Path = 0.0
    rx: Path = 0.1
    ry: Path = 0.1
    tone: Path = 1.0
    box: bool = False


@dataclass(frozen=True)
class Motion:
    """Where a thing usually is, and how it moves.

    Attributes:
        height: of its usual place.
        move: from the scene and the times (T,) in [0, 1) to the blobs, later ones in front.
    """

    height: float
    move: Callable[[Scene, np.ndarray], Sequence[Blob]]


def _go(s: Scene, t: np.ndarray, speed: float) -> np.ndarray:
    """Moves steadily through the centre of the picture."""
    return speed * s.pace * (t - 0.5)


def _cycle(s: Scene, t: np.ndarray, rate: float, shift: float = 0.0) -> np.ndarray:
    """A sine of `rate` periods per clip at the usual pace."""
    return np.asarray(np.sin(2 * np.pi * (rate * s.pace * t + s.phase + shift)))


def hover(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A drone jitters at one place."""
    x, y = 0.14 * _cycle(s, t, 2.1), 0.12 * _cycle(s, t, 2.9, 0.3)
    arms = [Blob(x=x + side, y=y + 0.06, rx=0.08, ry=0.035, tone=0.8) for side in (-0.14, 0.14)]
    return [*arms, Blob(x=x, y=y, rx=0.12, ry=0.07)]


def chop(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A helicopter drifts under a rotor whose width flickers."""
    x = _go(s, t, 0.3)
    rotor = Blob(x=x, y=0.17, rx=0.08 + 0.24 * np.abs(_cycle(s, t, 2.3)), ry=0.035)
    return [Blob(x=x - 0.22, y=0.02, rx=0.14, ry=0.03), Blob(x=x, rx=0.17, ry=0.1), rotor]


def cruise(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """An airplane crosses the sky quickly and climbs a little."""
    x, y = _go(s, t, 1.2), _go(s, t, 0.2)
    return [Blob(x=x - 0.2, y=y + 0.05, rx=0.05, ry=0.09), Blob(x=x, y=y, rx=0.26, ry=0.05)]


def flap(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A bird beats its wings."""
    x, beat = _go(s, t, 0.7), 0.13 * _cycle(s, t, 2.6)
    y = -0.35 * beat
    wings = [Blob(x=x + side, y=y + beat, rx=0.11, ry=0.045) for side in (-0.13, 0.13)]
    return [*wings, Blob(x=x, y=y, rx=0.07, ry=0.06)]


def drive(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A car drives by steadily."""
    x = _go(s, t, 1.1)
    return [Blob(x=x - 0.03, y=0.1, rx=0.12, ry=0.07, box=True), Blob(x=x, rx=0.24, ry=0.07, box=True)]


def race(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A motorcycle starts slowly and speeds up."""
    x = s.pace * (1.6 * t**2 - 0.5)
    return [Blob(x=x, rx=0.14, ry=0.05), Blob(x=x, y=0.1, rx=0.06, ry=0.1)]


def pedal(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A bicycle goes steadily, with feet that go round."""
    x, down = _go(s, t, 0.65), 0.07 * _cycle(s, t, 2.2)
    feet = [
        Blob(x=x + 0.07 * _cycle(s, t, 2.2, 0.25) * side, y=side * down - 0.06, rx=0.045, ry=0.04) for side in (-1, 1)
    ]
    return [Blob(x=x, y=0.1, rx=0.06, ry=0.12), *feet]


def walk(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A walker, on two legs or four, goes slowly and bobs."""
    x, swing, bob = _go(s, t, 0.4), 0.09 * _cycle(s, t, 1.6), 0.03 * np.abs(_cycle(s, t, 1.6))
    legs = [Blob(x=x + side * swing, y=-0.13, rx=0.04, ry=0.08, tone=0.9) for side in (-1, 1)]
    return [*legs, Blob(x=x, y=0.05 + bob, rx=0.1, ry=0.12)]


def flicker(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A fire stands still and flickers, with smoke that rises."""
    tall, rise = 0.14 + 0.05 * _cycle(s, t, 3.3), (s.pace * t + s.phase) % 1
    smoke = [
        Blob(x=0.1 * up * side, y=0.15 + 0.7 * up, rx=0.06 + 0.08 * up, ry=0.07, tone=-0.4 * (1 - up))
        for side, up in ((1, rise), (-1, (rise + 0.5) % 1))
    ]
    return [*smoke, Blob(y=tall / 2, rx=0.1, ry=tall, tone=1 + 0.3 * _cycle(s, t, 2.7, 0.2))]


def glide(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A long vehicle glides by, with a row of windows."""
    x = _go(s, t, 0.65)
    windows = [Blob(x=x + at, y=0.05, rx=0.05, ry=0.045, tone=-0.3, box=True) for at in (-0.33, -0.11, 0.11, 0.33)]
    return [Blob(x=x, rx=0.5, ry=0.13, box=True), *windows]


def gallop(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A horse leaps forward."""
    x, leap, swing = _go(s, t, 0.85), 0.1 * np.abs(_cycle(s, t, 1.3)), 0.13 * _cycle(s, t, 1.3)
    legs = [Blob(x=x + at + side * swing, y=leap - 0.15, rx=0.05, ry=0.08) for at, side in ((-0.14, -1), (0.14, 1))]
    return [*legs, Blob(x=x + 0.2, y=leap + 0.13, rx=0.07, ry=0.08), Blob(x=x, y=leap, rx=0.2, ry=0.1)]


def graze(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """A cow stands and nods."""
    nod = 0.1 * _cycle(s, t, 0.9)
    legs = [Blob(x=at, y=-0.15, rx=0.04, ry=0.08) for at in (-0.15, 0.13)]
    return [*legs, Blob(x=0.28, y=nod, rx=0.09, ry=0.07), Blob(rx=0.23, ry=0.12)]


def flash(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """An ambulance drives by with a flashing light."""
    x = _go(s, t, 1.0)
    lamp = Blob(x=x, y=0.2, rx=0.09, ry=0.07, tone=np.where(_cycle(s, t, 2.4) > 0, 1.6, -0.6))
    return [Blob(x=x, rx=0.22, ry=0.13, box=True), lamp]


def fall(s: Scene, t: np.ndarray) -> Sequence[Blob]:
    """Water falls between rocks."""
    drops = []
    for k in range(5):
        down = (1.3 * s.pace * t + s.phase + k / 5) % 1
        drops.append(Blob(x=0.08 * (k % 3 - 1), y=0.5 - down, rx=0.045, ry=0.08, tone=-1.0))
    return [Blob(rx=0.2, ry=0.5, tone=0.5, box=True), *drops]
