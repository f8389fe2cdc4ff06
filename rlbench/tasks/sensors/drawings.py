"""Outlines of things as a still camera sees them from the side: lists of parts, later ones in front.

A part is a signed distance in the thing's frame, which is about one unit in radius; the sensors paint the parts with
light or heat. Things head right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlbench.tasks.sensors.scene import Scene
from rlbench.tasks.shapes import Frame, union

Outline = Callable[[Frame, Scene], Sequence[np.ndarray]]


def draw_drone(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Four rotors on arms, the body, four motors."""
    flat = 0.4 + 0.2 * s.build
    tips = [(sx * 0.68, sy * flat) for sx in (-1, 1) for sy in (-1, 1)]
    rotors = union(*(f.ring(tx, ty, 0.26, 0.05) for tx, ty in tips))
    arms = f.strokes(0.08, *((0.0, 0.0, tx, ty) for tx, ty in tips))
    return [rotors, arms, f.oval(0, 0, 0.3, 0.22), union(*(f.disc(tx, ty, 0.12) for tx, ty in tips))]


def draw_helicopter(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Skids, tail, cabin, window, rotor, engine."""
    reach = 0.6 + 0.4 * s.build
    skids = f.strokes(0.05, (-0.25, -0.62, 0.65, -0.62), (0.0, -0.62, 0.05, -0.3), (0.4, -0.62, 0.35, -0.3))
    tail = union(f.strokes(0.08, (-0.9, 0.05, 0.0, 0.0)), f.strokes(0.06, (-0.95, -0.15, -0.9, 0.3)))
    rotor = f.strokes(0.05, (0.15 - reach, 0.52, 0.15 + reach, 0.52), (0.15, 0.52, 0.15, 0.2))
    return [
        skids,
        tail,
        f.oval(0.2, -0.08, 0.48, 0.32),
        f.oval(0.45, -0.02, 0.18, 0.15),
        rotor,
        f.oval(0, 0.2, 0.2, 0.1),
    ]


def draw_airplane(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Wings, tail, body, engines, seen from below."""
    sweep = 0.25 + 0.2 * s.build
    wings = f.strokes(0.1, (0.15, 0, 0.15 - sweep, 0.85), (0.15, 0, 0.15 - sweep, -0.85))
    tail = f.strokes(0.07, (-0.7, 0, -0.85, 0.35), (-0.7, 0, -0.85, -0.35))
    engines = union(f.oval(0.1, 0.38, 0.16, 0.1), f.oval(0.1, -0.38, 0.16, 0.1))
    return [wings, tail, f.strokes(0.13, (-0.8, 0, 0.8, 0)), engines]


def draw_bird(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Two bent wings, tail, body, beak."""
    lift = 0.15 + 0.4 * s.phase
    wings = union(
        f.path(0.1, (0, 0.05), (-0.45, lift), (-0.95, lift - 0.35)),
        f.path(0.1, (0, 0.05), (0.45, lift), (0.95, lift - 0.35)),
    )
    tail = f.convex((0.0, -0.2), (-0.2, -0.65), (0.2, -0.65))
    return [wings, tail, f.oval(0, -0.1, 0.16, 0.3), f.convex((-0.09, 0.15), (0.09, 0.15), (0, 0.4))]


def draw_speck(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """What a thermal camera sees of a small thing in the sky: a cool fringe, a warm body."""
    return [f.oval(0, 0, 0.62 + 0.2 * s.build, 0.3), f.oval(0, 0, 0.3, 0.22)]


def draw_car(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Body with cabin, windows, engine, wheels, hubs."""
    back = -0.6 - 0.2 * s.build
    cabin = f.convex((back, 0), (0.35, 0), (0.12, 0.42), (-0.42, 0.42))
    windows = union(f.block(-0.27, 0.19, 0.15, 0.13), f.block(0.06, 0.19, 0.12, 0.13))
    wheels = union(f.disc(-0.5, -0.36, 0.2), f.disc(0.5, -0.36, 0.2))
    hubs = union(f.disc(-0.5, -0.36, 0.08), f.disc(0.5, -0.36, 0.08))
    return [union(cabin, f.block(0, -0.12, 0.92, 0.2)), windows, f.block(0.66, -0.08, 0.22, 0.14), wheels, hubs]


def draw_two_wheeler(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Wheels, frame, engine or pedals, rider, head."""
    lean = 0.1 + 0.2 * s.build
    wheels = union(f.ring(-0.55, -0.5, 0.3, 0.07), f.ring(0.55, -0.5, 0.3, 0.07))
    frame = f.path(0.07, (-0.55, -0.5), (-0.15, -0.1), (0.4, 0.0), (0.55, -0.5))
    rider = union(
        f.strokes(0.15, (-0.2, 0.0, lean, 0.45)),
        f.path(0.08, (lean, 0.4), (lean + 0.2, 0.1), (0.42, 0.05)),
        f.path(0.09, (-0.15, 0.0), (0.15, -0.15), (0.0, -0.45)),
    )
    return [wheels, frame, f.oval(0.02, -0.42, 0.26, 0.18), rider, f.disc(lean + 0.06, 0.75, 0.18)]


def draw_dog(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Tail, legs, trunk, head, ear, nose."""
    step, wag = 0.16 * s.phase - 0.08, 0.3 + 0.3 * s.build
    hind, fore = (-0.45, -0.05, -0.5 - step, -0.65), (0.35, -0.05, 0.4 + step, -0.65)
    legs = f.strokes(0.07, hind, fore, (-0.35, -0.05, -0.28 + step, -0.65), (0.25, -0.05, 0.2 - step, -0.65))
    trunk, head = f.strokes(0.2, (-0.38, 0, 0.32, 0.02)), f.strokes(0.15, (0.5, 0.38, 0.62, 0.38))
    ear, nose = f.strokes(0.06, (0.42, 0.5, 0.36, 0.68)), f.strokes(0.07, (0.7, 0.32, 0.9, 0.28))
    return [f.strokes(0.06, (-0.5, 0.1, -0.85, wag)), legs, trunk, head, ear, nose]


def draw_person(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Legs, arms, torso, hands, head."""
    step, swing = 0.1 + 0.2 * s.phase, 0.2 + 0.3 * s.build
    legs = f.strokes(0.11, (0, -0.15, -step, -0.9), (0, -0.15, step, -0.9))
    arms = f.strokes(0.09, (0, 0.35, -swing, -0.15), (0, 0.35, swing, -0.15))
    hands = union(f.disc(-swing, -0.18, 0.1), f.disc(swing, -0.18, 0.1))
    return [legs, arms, f.strokes(0.19, (0, 0.3, 0, -0.1)), hands, f.disc(0, 0.72, 0.2)]


def draw_campfire(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Logs, flames, core."""
    lean, tall = 0.4 * s.phase - 0.2, 0.6 + 0.3 * s.build
    logs = f.strokes(0.1, (-0.65, -0.8, 0.5, -0.45), (0.65, -0.8, -0.5, -0.45))
    outer = union(f.disc(0, -0.25, 0.4), f.convex((-0.38, -0.15), (0.38, -0.15), (lean, tall)))
    tongue = f.convex((0.05, -0.1), (0.42, -0.2), (0.5, 0.4))
    core = union(f.disc(0, -0.28, 0.2), f.convex((-0.18, -0.2), (0.18, -0.2), (lean / 2, tall / 2)))
    return [logs, union(outer, tongue), core]


def draw_train(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Rail, wagons, windows, wheels, engine, power line with its current collector."""
    gap = -0.15 - 0.2 * s.build
    wagons = union(
        f.block((gap - 1.34) / 2, 0, (gap + 1.2) / 2, 0.27), f.block((gap + 1) / 2, 0, (0.9 - gap) / 2, 0.27)
    )
    windows = union(*(f.block(at, 0.08, 0.1, 0.1) for at in (-0.95, -0.65, 0.1, 0.4)))
    wheels = union(*(f.disc(at, -0.34, 0.1) for at in (-0.9, -0.5, 0.05, 0.35, 0.7)))
    line = f.strokes(0.03, (-1.3, 0.65, 1.3, 0.65), (0.1, 0.27, 0.3, 0.46), (0.3, 0.46, 0.15, 0.65))
    return [f.block(0, -0.5, 1.4, 0.05), line, wagons, windows, wheels, f.block(0.75, -0.05, 0.17, 0.18)]


def _draw_hoofed(f: Frame, s: Scene, neck: tuple[float, float], trunk: float) -> Sequence[np.ndarray]:
    """Tail, legs, neck, trunk, head of an animal whose head is at `neck`."""
    step, (x, y) = 0.24 * s.phase - 0.12, neck
    hind, fore = (-0.5, -0.1, -0.55 - step, -0.85), (0.3, -0.1, 0.35 + step, -0.85)
    legs = f.strokes(0.07, hind, fore, (-0.4, -0.1, -0.35 + step, -0.85), (0.2, -0.1, 0.15 - step, -0.85))
    tail = f.path(0.05, (-0.6, 0.1), (-0.8, 0.0), (-0.82, -0.4))
    head = f.strokes(0.12, (x, y, x + 0.25, y - 0.15))
    return [tail, legs, f.strokes(0.13, (0.35, 0.1, x, y)), f.strokes(trunk, (-0.4, 0.03, 0.3, 0.03)), head]


def draw_horse(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Tail, legs, neck, trunk, head, mane."""
    height = 0.6 + 0.15 * s.build
    mane = f.path(0.07, (0.3, 0.3), (0.42, 0.55), (0.5, height + 0.15))
    return [*_draw_hoofed(f, s, (0.6, height), 0.2), mane]


def draw_cow(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Tail, legs, neck, trunk, head, horns, patches."""
    x, y = 0.68, 0.2 + 0.1 * s.build
    horns = f.path(0.04, (x - 0.18, y + 0.32), (x - 0.02, y + 0.12), (x + 0.14, y + 0.32))
    patches = union(f.oval(-0.35, 0.12, 0.2, 0.15), f.oval(0.1, -0.05, 0.17, 0.14))
    return [*_draw_hoofed(f, s, (x, y), 0.3), horns, patches]


def draw_hoofed(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """What a thermal camera sees of a large hoofed animal: tail, legs, neck, trunk, head."""
    return _draw_hoofed(f, s, (0.64, 0.4 + 0.15 * s.build), 0.25)


def draw_van(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Body, windows, front engine, rear engine, roof light, wheels."""
    nose = 0.85 + 0.1 * s.build
    body = f.convex((-0.95, -0.35), (nose, -0.35), (nose, 0.05), (0.65, 0.45), (-0.95, 0.45))
    windows = union(*(f.block(at, 0.2, 0.15, 0.12) for at in (-0.7, -0.3, 0.1)), f.block(0.52, 0.18, 0.12, 0.13))
    wheels = union(f.disc(-0.55, -0.42, 0.2), f.disc(0.55, -0.42, 0.2))
    front, rear = f.block(0.76, -0.15, 0.12, 0.14), f.block(-0.8, -0.15, 0.13, 0.16)
    return [body, windows, front, rear, f.block(0.2, 0.53, 0.16, 0.08), wheels]


def draw_waterfall(f: Frame, s: Scene) -> Sequence[np.ndarray]:
    """Rocks on both sides, falling water, its strands, the pool."""
    half = 0.25 + 0.15 * s.build
    left = f.convex((-1.2, -0.9), (-half, -0.9), (-half, 0.75), (-1.1, 0.95))
    right = f.convex((half, -0.9), (1.2, -0.9), (1.0, 0.6), (half, 0.75))
    strands = f.strokes(0.04, (-half / 2, 0.7, -half / 2, -0.7), (half / 2, 0.7, half / 2, -0.7))
    return [union(left, right), f.block(0, 0, half, 0.8), strands, f.oval(0, -0.8, 1.05, 0.2)]
