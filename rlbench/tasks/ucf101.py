"""UCF-101: actions in short clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import DataError
from rlbench.core.registry import register
from rlbench.tasks.lists import read_lines
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import load_names, load_templates

_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", ".")


@register("task", "ucf101")
@dataclass(frozen=True, kw_only=True)
class Ucf101(Published):
    """UCF-101: clips of 101 actions.

    Soomro et al., 2012, https://arxiv.org/abs/1212.0402; names of Radford et al., 2021, https://arxiv.org/abs/2103.00020,
    with the 80 templates in LanguageBind's wording for clips. Clips of one group (one person and place) share a source.

    Attributes:
        fold: one of the three official splits.
    """

    fold: Literal[1, 2, 3] = 1

    kind: ClassVar[Modality] = "video"
    source: ClassVar[Source] = Source(
        title="UCF-101",
        url="https://www.crcv.ucf.edu/data/UCF101.php",
        licence="none stated; cite the paper",
        folder="UCF101",
        layout="UCF-101/<class>/v_*.avi and ucfTrainTestlist/testlist01.txt",
        test=3_783,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return load_names("ucf101")

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80", "video")

    def list_items(self, split: Split) -> list[Item]:
        if split == "val":
            return []
        path = self.find_file(*(f"{folder}/{split}list0{self.fold}.txt" for folder in _LISTS))
        videos = self.find_folder("UCF-101", "videos", ".").relative_to(self.folder)
        items = []
        for line in read_lines(path):
            label, _, clip = line.split(" ")[0].partition("/")
            if not clip:
                raise DataError(f"{path}: {line!r} is not <class>/<clip>")
            stem = Path(clip).stem
            items.append(Item(stem, (videos / label / clip).as_posix(), label, stem.rpartition("_")[0]))
        return items
