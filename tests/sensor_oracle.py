"""A linear encoder of three sensors whose robust accuracy is known in closed form, and paired blobs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlbench.core import Box, Examples, Label, Record
from rlbench.core.errors import DataError
from rlbench.core.registry import register
from rlbench.core.seeds import generator
from rlbench.encoders.linear import PLACES, Linear, weights
from rlbench.store.flags import flags_of
from rlbench.tasks.batch import stack

SCALES = {"image": 1.0, "thermal": 0.8, "depth": 0.6}
BOXES = {
    "image": Box(shape=(1, 8, 8)),
    "thermal": Box(shape=(1, 8, 8), low=-1.0, high=1.0),
    "depth": Box(shape=(1, 8, 8), low=0.0, high=4.0),
}
LOGIT_SCALE = 100.0
N = 60


class LinearSensors(Linear):
    """Logits affine in the unit input u: LOGIT_SCALE * SCALES[sensor] * W (u - 1/2)."""

    def __init__(self, sensors: Sequence[str] = tuple(SCALES)) -> None:
        super().__init__()
        self.sensors = tuple(sensors)

    @property
    def boxes(self) -> Mapping:
        return {sensor: BOXES[sensor] for sensor in self.sensors}

    @property
    def sha256(self) -> Mapping:
        return {}

    def embed(self, x: Tensor, modality: str) -> Tensor:
        box = BOXES[modality]
        unit = (x - box.low) / (box.high - box.low)
        head = SCALES[modality] * (unit.flatten(1) - 0.5) @ self._weights.to(x).T
        return torch.cat([head, (1 - head.square().sum(1, keepdim=True)).sqrt()], dim=1)


def linear_sensors() -> LinearSensors:
    return LinearSensors()


def without_depth() -> LinearSensors:
    return LinearSensors(("image", "thermal"))


@register("task", "dots")
@dataclass(frozen=True, kw_only=True)
class Dots:
    """Two blobs, of which each sensor has its own contrast; `fault` makes the sensor `at` differ from the others."""

    modality: str = "image"
    fault: str = ""
    at: str = "thermal"
    series: int = 0

    templates: ClassVar[tuple[str, ...]] = ("a picture of {a}.",)
    classes: ClassVar[tuple[Label, ...]] = tuple(
        Label(place.replace(" ", "-"), f"blob in the {place}") for place in PLACES
    )

    @property
    def _own(self) -> str:
        return self.fault if self.modality == self.at else ""

    def size(self, split: str) -> int | None:
        return N - 1 if self._own == "count" else N

    def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
        if self._own == "file":
            raise DataError("thermal/0003.png: can't read it")
        names = [f"dots/{split}/{self.series}/{i + (self._own == 'ids')}" for i in range(start, stop)]
        y = np.arange(start, stop) % 4
        pictures = [self._draw(name, int(k)) for name, k in zip(names, y, strict=True)]
        return Examples(stack(pictures, box), torch.from_numpy(y), tuple(names), tuple(names))

    def _draw(self, name: str, label: int) -> np.ndarray:
        rows, columns = np.mgrid[:8, :8]
        rival = (label + 1 + int(generator(name).integers(3))) % 4
        g = generator(name, self.modality)
        light = {label: 0.2, rival: 0.2 - g.uniform(-0.02, 0.15)}
        spots = [
            a * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 4)
            for k, a in light.items()
            for r, c in [list(PLACES.values())[k]]
        ]
        return np.asarray(np.clip(0.4 + sum(spots) + g.normal(0, 0.003, rows.shape), 0.3, 0.7)[None])

    def fingerprint(self) -> str:
        return f"dots {self.modality} {self.fault} {self.series}"


@register("fusion", "deaf")
@dataclass(frozen=True, kw_only=True)
class Deaf:
    """The mean of the logits without the gradient of the second sensor."""

    least: ClassVar[int] = 2

    def fuse(self, logits: Tensor) -> Tensor:
        return torch.cat([logits[:1], logits[1:2].detach(), logits[2:]]).mean(0)


HEAD = """\
suite: joint
version: 1
summary: Three linear sensors.
sensors: [image, thermal, depth]
task: {name: dots}
examples: 60
perturbations:
"""


def suite_file(folder: Path, *entries: str, head: str = HEAD) -> Path:
    path = folder / "joint.yaml"
    path.write_text(head + "".join(f"  - {entry}\n" for entry in entries))
    return path


def flags(records: Sequence[Record]) -> dict[str, list[bool]]:
    """By column, which examples are correct."""
    assert not [record.error for record in records if record.error]
    return {str(record.perturbation): flags_of(record).tolist() for record in records}


def survivors(eps: Mapping[str, float], norm: str = "linf", *, missing: Sequence[str] = ()) -> list[bool]:
    """The closed form under the fusion `sum`: which examples no attack with these eps breaks.

    z_y - z_t falls by at most mean_m eps_m s_m |w_y - w_t|_*, with the dual norm, for each rival t by itself.
    """
    encoder, w = LinearSensors(), weights().double()
    present = [sensor for sensor in SCALES if sensor not in missing]
    y = torch.arange(N) % 4
    logits, fall = torch.zeros(N, 4), torch.zeros(4, 4)
    apart = (w[:, None] - w).abs().sum(2) if norm == "linf" else (w[:, None] - w).norm(dim=2)
    for sensor in present:
        x = Dots(modality=sensor).load(BOXES[sensor], 0, N).x
        logits += LOGIT_SCALE * encoder.embed(x, sensor)[:, :4] / len(present)
        fall = fall + LOGIT_SCALE * SCALES[sensor] * eps.get(sensor, 0.0) * apart / len(present)
    margins = logits.gather(1, y[:, None]) - logits - fall[y]
    others = margins.scatter(1, y[:, None], float("inf"))
    assert float(others.abs().min()) > 1e-3, "an example is too near to its limit for float32"
    return (others > 0).all(1).tolist()


def with_fault(fault: str) -> str:
    return HEAD.replace("{name: dots}", f"{{name: dots, fault: {fault}}}")
