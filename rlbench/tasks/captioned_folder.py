"""A folder of media with captions in labels.csv."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from rlbench.core import Modality
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.listing import check_paths, check_splits, is_file, parse_split
from rlbench.tasks.lists import Line, read_table
from rlbench.tasks.published import Item, Source


@dataclass(frozen=True, kw_only=True)
class CaptionedFolder(Captioned):
    """The retrieval task of a folder with labels.csv.

    Attributes:
        medium: the modality of the files.
        seconds: the length of sound for a log-mel box.
    """

    medium: Modality

    seconds: float = field(default=10.0, init=False)
    source: ClassVar[Source] = Source(
        title="a captioned folder",
        url="your own",
        licence="your own",
        folder="",
        layout="labels.csv with the columns path,split,source,caption",
    )

    @property
    def modality(self) -> Modality:
        return self.medium

    def list_captioned(self) -> list[tuple[Item, Captions]]:
        lines = list(read_table(self.folder / "labels.csv", ("path", "split", "source", "caption")))
        check_splits(lines)
        first: dict[str, Line] = {}
        for line in lines:
            first.setdefault(line["path"], line)
        check_paths(self.folder, first)
        items: dict[str, Item] = {}
        captions: dict[str, list[str]] = {}
        for line in lines:
            path, source = line["path"], line["source"]
            if parse_split(line) != "test":
                continue
            if path not in items and not is_file(self.folder / path):
                raise line.error(f"there is no file {path}")
            item = items.setdefault(path, Item(path, path, "", source))
            if item.source != source:
                raise line.error(f"the source of {path!r} is {source!r} here and {item.source!r} in an earlier line")
            captions.setdefault(path, []).append(line["caption"])
        return [(item, tuple(captions[path])) for path, item in items.items()]


@register("task", "captioned-folder")
def captioned_folder(
    *, data: str, modality: Literal["image", "thermal", "audio", "video"], at: Literal[1, 5, 10] = 1
) -> CaptionedFolder:
    """Retrieval on a folder of pictures, thermal images, recordings or clips with captions.

    Args:
        data: the folder. Its labels.csv has the columns path,split,source,caption; lines with the same path are
            captions of one medium. The media of the split "test" are the gallery.
        modality: the modality of the files.
        at: an example is correct if one of its captions is among the first `at` of the gallery.

    Raises:
        DataError: the folder is missing. labels.csv is checked when it is first read.
    """
    task = CaptionedFolder(root=data, medium=modality, at=at)
    _ = task.folder  # raises DataError if it is missing
    return task
