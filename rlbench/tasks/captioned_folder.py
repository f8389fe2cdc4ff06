"""A folder of media with captions, in labels.csv."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from rlbench.core import Modality
from rlbench.errors import DataError
from rlbench.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.folder import table
from rlbench.tasks.published import Item, Source


@dataclass(frozen=True, kw_only=True)
class CaptionedFolder(Captioned):
    """The task of a captioned folder."""

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

    def captioned(self) -> list[tuple[Item, Captions]]:
        items: dict[str, Item] = {}
        said: dict[str, list[str]] = {}
        for number, line in table(self.folder / "labels.csv", ("path", "split", "source", "caption")):
            if line["split"] != "test":
                continue
            path = line["path"]
            if not (self.folder / path).is_file():
                raise DataError(f"{self.folder / 'labels.csv'}:{number}: there is no file {path}")
            items[path] = Item(path, path, "", line["source"])
            said.setdefault(path, []).append(line["caption"])
        return [(item, tuple(said[path])) for path, item in items.items()]


@register("task", "captioned-folder")
def captioned_folder(
    *, data: str, modality: Literal["image", "thermal", "audio", "video"], at: Literal[1, 5, 10] = 1
) -> CaptionedFolder:
    """A folder of pictures, thermal images, recordings or clips with captions: retrieval.

    Args:
        data: the folder. labels.csv has path,split,source,caption; lines of one path are captions of one medium. Those
            of the split "test" are the gallery.
        modality: of the files.
        at: what is correct: one of its captions among the first 1, 5 or 10.

    Raises:
        DataError: the folder is missing. Its lists are checked when they are needed.
    """
    task = CaptionedFolder(root=data, medium=modality, at=at)
    assert task.folder
    return task
