"""A folder where every example has a file for each of several sensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import DataError, FieldError
from rlbench.core.registry import register
from rlbench.tasks.folder import read_classes, read_templates
from rlbench.tasks.listing import check_paths, check_splits, is_file, parse_split
from rlbench.tasks.lists import Line, read_lines, read_table
from rlbench.tasks.published import Item, Published, Source


@dataclass(frozen=True, kw_only=True)
class PairedFolder(Published):
    """One sensor of a folder with labels.csv, whose examples have the same ids in every sensor.

    Attributes:
        sensor: the column of labels.csv with the paths of this sensor's files.
        rate: the sample rate of sound in Hz, for a box without its own rate.
        seconds: the length of sound for a log-mel box.
    """

    sensor: Modality
    rate: int = field(default=16_000)
    seconds: float = field(default=1.0)

    source: ClassVar[Source] = Source(
        title="a folder of pairs",
        url="your own",
        licence="your own",
        folder="",
        layout="labels.csv with the columns id,label,split,source and a column of paths for each sensor",
    )

    @property
    def modality(self) -> Modality:
        return self.sensor

    @cached_property
    def _classes(self) -> tuple[Label, ...]:
        return read_classes(self.folder, None)

    @property
    def classes(self) -> tuple[Label, ...]:
        """Those of classes.csv, the same for every sensor."""
        return self._classes

    @cached_property
    def _templates(self) -> tuple[str, ...]:
        own = self.folder / f"prompts_{self.sensor}.txt"
        return read_templates(self.folder, read_lines(own) if own.is_file() else None)

    @property
    def templates(self) -> tuple[str, ...]:
        """The lines of prompts_SENSOR.txt, or, without it, of prompts.txt."""
        return self._templates

    @cached_property
    def _lines(self) -> dict[str, Line]:
        """The lines of labels.csv by path of this sensor's file, all of them checked. Raises: DataError."""
        lines: dict[str, Line] = {}
        for line in read_table(self.folder / "labels.csv", ("id", "label", "split", "source", self.sensor)):
            path = line[self.sensor]
            if path in lines:
                raise line.error(f"{path!r} appears twice")
            if not is_file(self.folder / path):
                raise line.error(f"{line['id']!r} has no {self.sensor}: there is no file {path}")
            lines[path] = line
        check_splits(lines.values())
        check_paths(self.folder, lines)
        return lines

    def list_items(self, split: Split) -> list[Item]:
        items = [
            Item(line["id"], path, line["label"], line["source"])
            for path, line in self._lines.items()
            if parse_split(line) == split
        ]
        if split == "test" and not items:
            raise DataError(f"data has nothing to test: no line of {self.folder}/labels.csv has the split 'test'")
        return items


@register("task", "paired-folder")
def paired_folder(
    *,
    data: str,
    modality: Literal["image", "thermal", "depth", "audio", "video"],
    rate: int = 16_000,
    seconds: float = 1.0,
) -> PairedFolder:
    """One sensor of a folder of things that several sensors saw at the same moment.

    Args:
        data: the folder. labels.csv has the columns id,label,split,source and, for each sensor, a column of paths that
            is named after the modality; every line has a file of every sensor. classes.csv has the columns label,name;
            prompts_SENSOR.txt or prompts.txt has the prompt templates.
        modality: the sensor.
        rate: the sample rate of audio in Hz, for a box without its own rate.
        seconds: the length of audio for a log-mel box.

    Raises:
        DataError: the folder is missing. Its lists are checked when they are first read.
        FieldError: rate or seconds are not positive.
    """
    for name, value in (("rate", rate), ("seconds", seconds)):
        if not 0 < value < float("inf"):
            raise FieldError(f"paired-folder: {name} is {value}; it must be positive", name)
    task = PairedFolder(root=data, sensor=modality, rate=rate, seconds=seconds)
    _ = task.folder  # raises DataError if it is missing
    return task
