"""LeRobot data sets: frames of a camera as examples, labelled by the episode's task or by its subtasks.

Of every 1 / `per_second` seconds of an episode, the first labelled frame is an example. Its id is camera, episode and
frame, and its source is the episode. A subtask is what `language_persistent` says to be active at a frame's time, or
the frame's `subtask_index`: https://huggingface.co/docs/lerobot/lerobot-dataset-v3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from rlbench.core import Box, Modality, Split
from rlbench.core.errors import DataError, FieldError
from rlbench.core.media import lerobot as layout
from rlbench.core.media.clips import read_frames_at
from rlbench.core.media.stills import picture, pixels
from rlbench.core.registry import register
from rlbench.tasks.published import Item, Source
from rlbench.tasks.robots import Robot

TEMPLATE = "a photo of a robot that is told to {}."


@dataclass(frozen=True, kw_only=True)
class Episodes(Robot):
    """The task of a LeRobot data set.

    Attributes:
        medium: what the camera sees.
        camera: its key, or "" for the only one.
        labels: what the classes are.
        per_second: examples a second, at most.
    """

    medium: Modality
    camera: str
    labels: Literal["task", "subtask"]
    per_second: float
    given: Mapping[str, str] | tuple[str, ...] | None
    prompts: tuple[str, ...]

    source: ClassVar[Source] = Source(
        title="a LeRobot data set", url="your own", licence="your own", folder="", layout="meta, data and videos"
    )

    def __post_init__(self) -> None:
        if not 0 < self.per_second <= 1000:
            raise FieldError(f"lerobot: per_second is {self.per_second}; it must be above 0, up to 1000", "per_second")
        _ = self._camera  # raises DataError if the data set or the camera is missing

    @cached_property
    def _info(self) -> layout.Info:
        return layout.read_info(self.folder)

    @cached_property
    def _camera(self) -> layout.Camera:
        return layout.find_camera(self._info, self.camera)

    @cached_property
    def _listed(self) -> list[Item]:
        """All examples, in the order of episodes and frames."""
        rows, files = layout.read_episodes(self._info, [self._camera]), dict[str, dict[int, dict[str, Any]]]()
        for row in rows:
            files.setdefault(self._info.find_data(row), {})[int(row["episode_index"])] = row
        return [item for path, episodes in files.items() for item in self._list_file(path, episodes)]

    def _list_file(self, path: str, episodes: Mapping[int, Mapping[str, Any]]) -> Iterator[Item]:
        """Yields the examples of a Parquet file with some episodes."""
        columns = ("timestamp", "frame_index", "episode_index", "task_index")
        table = layout.read_columns(self.folder / path, columns, ("subtask_index", "language_persistent"))
        times, frames, numbers, _ = (table.column(one).to_pylist() for one in columns)
        step, seen = Fraction(self.per_second).limit_denominator(10**6) / self._info.fps, set[tuple[int, int]]()
        for row, (time, frame, number) in enumerate(zip(times, frames, numbers, strict=True)):
            turn = number, int(frame * step)
            if number not in episodes or turn in seen:
                continue
            label = self._find_label(table, row, time)
            if label is None:
                self._unused[f"frames without a {self.labels}"] += 1
                continue
            seen.add(turn)
            name, place = f"{self._camera.key}:episode {number}:frame {frame}", path
            part = (float(row),)
            if self._camera.film:
                place = self._info.find_film(dict(episodes[number]), self._camera.key)
                part = (float(episodes[number][f"videos/{self._camera.key}/from_timestamp"]) + time,)
            yield Item(name, place, label, f"episode {number}", part)

    def _find_label(self, table: Any, row: int, time: float) -> str | None:
        """The label of a frame; None if it has none. Raises: DataError."""
        if self.labels == "subtask" and "language_persistent" in table.column_names:
            said = [one for one in table.column("language_persistent")[row].as_py() or () if one["style"] == "subtask"]
            active = [one for one in said if np.float32(one["timestamp"]) <= np.float32(time)]  # as frames' times are
            return max(active, key=lambda one: float(one["timestamp"]))["content"] if active else None
        column = f"{self.labels}_index"
        if column not in table.column_names:
            raise DataError(f"{self.folder} has no subtasks: its frames have no language_persistent or {column}")
        return self._names.get(table.column(column)[row].as_py())

    @cached_property
    def _names(self) -> dict[int, str]:
        return layout.read_names(self._info, self.labels)

    def list_labels(self) -> Iterator[str]:
        return (item.label for item in self._listed)

    def list_items(self, split: Split) -> list[Item]:
        return self._listed if split == "test" else []

    def read_all(self, items: Sequence[Item], box: Box) -> list[np.ndarray]:
        """Reads examples, and every film once; see `read`."""
        found: dict[str, np.ndarray] = {}
        for path in sorted({item.path for item in items}):
            here = [item for item in items if item.path == path]
            for item, one in zip(here, self._read_file(path, here), strict=True):
                found[item.id] = pixels(one, box)
        return [found[item.id] for item in items]

    def _read_file(self, path: str, items: Sequence[Item]) -> list[Image.Image]:
        if self._camera.film:
            frames = read_frames_at(self.folder / path, [item.part[0] for item in items])
            return [Image.fromarray(frame) for frame in frames]
        column = layout.read_columns(self.folder / path, [self._camera.key]).column(self._camera.key)
        stored = [column[int(item.part[0])].as_py() for item in items]
        for item, one in zip(items, stored, strict=True):
            if not one.get("bytes"):
                raise DataError(f"{self.folder / path}: {item.id} has no picture, only its path; embed the pictures")
        return [picture(item.id, 3, bytes(one["bytes"])) for item, one in zip(items, stored, strict=True)]


@register("task", "lerobot")
def lerobot(
    *,
    data: str,
    camera: str = "",
    labels: Literal["task", "subtask"] = "task",
    modality: Literal["image", "thermal"] = "image",
    per_second: float = 1.0,
    classes: Mapping[str, str] | tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
) -> Episodes:
    """A LeRobot data set of version 3: frames of one camera, labelled by task or subtask.

    Args:
        data: the folder of the data set, which has meta, data and, mostly, videos.
        camera: such as observation.images.front; may be left out if there is only one.
        labels: the classes are the tasks of episodes, or the subtasks of frames.
        modality: what the camera sees.
        per_second: examples a second, at most.
        classes: names by text, or texts; default: the texts that occur, sorted. There must be two or more.
        templates: prompt templates; default: "a photo of a robot that is told to {}."

    Raises:
        FieldError, DataError: a value is not allowed, or the data set or the camera is missing.
    """
    return Episodes(
        root=data,
        medium=modality,
        camera=camera,
        labels=labels,
        per_second=per_second,
        given=classes,
        prompts=templates or (TEMPLATE,),
    )
