"""The multi-sensor world: one latent scene, seen by an image, thermal or video camera, or heard."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from rlbench.core import Box, Label, Split
from rlbench.core.errors import ModalityError
from rlbench.core.registry import register
from rlbench.tasks.sensors.audio import draw_sound
from rlbench.tasks.sensors.image import render_image
from rlbench.tasks.sensors.kinds import KINDS
from rlbench.tasks.sensors.scene import Scene, draw_scene
from rlbench.tasks.sensors.thermal import render_thermal
from rlbench.tasks.sensors.video import render_video
from rlbench.tasks.synthesis import Synthesised, Wave, check_audio_box, render_sound
from rlbench.tasks.world import World

Sensor = Literal["image", "thermal", "audio", "video"]
_BOXES: dict[Sensor, tuple[tuple[int, ...], int, str]] = {  # channels, dimensions, in words
    "image": ((3,), 3, "(3, H, W)"),
    "thermal": ((1, 3), 3, "(1, H, W) or (3, H, W)"),
    "video": ((3,), 4, "(3, T, H, W)"),
}


@register("task", "scenes")
@dataclass(frozen=True, kw_only=True)
class Scenes(World, Synthesised):
    """Sixteen kinds of things, each scene seen by four sensors at the same moment.

    An example has the same id, class and latent scene in every modality; only the sensor's own noise differs. Each
    sensor has conditions in which it fails, and two pairs of classes that it can't tell apart (`sensors.kinds`): image,
    night and fog; thermal, haze and warm surroundings; audio, distance, wind and traffic; video, night, and slow or
    distant things. The templates are the same for every sensor, so anchors are too.

    Attributes:
        modality: the sensor.
    """

    modality: Sensor = "image"

    name: ClassVar[str] = "scenes"
    version: ClassVar[int] = 2
    world_classes: ClassVar[tuple[Label, ...]] = tuple(Label(kind.name, kind.name) for kind in KINDS)
    world_templates: ClassVar[tuple[str, ...]] = (
        "{a}.",
        "this is {a}.",
        "a scene with {a}.",
        "a recording of {a}.",
        "a noisy recording of {a}.",
        "{a} in the background.",
    )

    @property
    def form(self) -> str:
        """The sensor as part of the task's name: `scenes:audio`."""
        return f":{self.modality}"

    def draw_scenes(self, start: int, stop: int, split: Split = "test") -> list[Scene]:
        """Draws the latent scenes start..stop-1, which do not depend on `modality`."""
        return [draw_scene(g, label, self.domain) for g, label in self.draw_examples(start, stop, split)]

    def render(self, g: np.random.Generator, label: int, box: Box) -> np.ndarray:
        """Renders one example at the box: see `World.render`.

        Raises:
            ModalityError: the sensor has no such box.
        """
        self._check(box)
        scene = draw_scene(g, label, self.domain)
        if self.modality == "audio":
            return render_sound(draw_sound(scene, self.domain), box)
        if self.modality == "video":
            _, frames, h, w = box.shape
            return render_video(scene, self.domain, (frames, h, w))
        draw = render_image if self.modality == "image" else render_thermal
        return np.broadcast_to(draw(scene, self.domain, (box.shape[1], box.shape[2])), box.shape)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint()} {self.modality}".encode()).hexdigest()[:16]

    def draw_sounds(self, box: Box, start: int, stop: int, split: Split) -> list[Wave]:
        self._check(box)
        check_audio_box(box, self.name)
        return [draw_sound(scene, self.domain) for scene in self.draw_scenes(start, stop, split)]

    def _check(self, box: Box) -> None:
        """Checks that the sensor can be rendered at the box. Raises: ModalityError."""
        if self.modality == "audio":
            return check_audio_box(box, self.name)
        channels, dimensions, allowed = _BOXES[self.modality]
        if box.unit != "intensity" or len(box.shape) != dimensions or box.shape[0] not in channels:
            raise ModalityError(f"scenes draws {self.modality} as {allowed}, not a box of {box.unit} {box.shape}")
        return None
