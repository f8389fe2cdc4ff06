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
from rlbench.tasks.trees import first_folder, names, templates

_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", ".")


@register("task", "ucf101")
@dataclass(frozen=True, kw_only=True)
class Ucf101(Published):
    """UCF-101: clips of 101 actions.

    Soomro et al., 2012, https://arxiv.org/abs/1212.0402; names of Radford et al., 2021, https://arxiv.org/abs/2103.00020,
    with the 80 templates as LanguageBind words them for clips. Clips of one group (one person and place) are a source.

    Attributes:
        fold: which of the three official splits.
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
        return names("ucf101")

    @property
    def templates(self) -> tuple[str, ...]:
        return templates("openai80", "video")

    def list_items(self, split: Split) -> list[Item]:
        if split == "val":
            return []
        root, name = self.folder, f"{split}list0{self.fold}.txt"
        path = next((root / folder / name for folder in _LISTS if (root / folder / name).is_file()), None)
        videos = first_folder(root, ("UCF-101", "videos", "."))
        if path is None or videos is None:
            raise self.misplaced(f"file ucfTrainTestlist/{name}")
        items = []
        for line in read_lines(path):
            label, _, clip = line.split(" ")[0].partition("/")
            if not clip:
                raise DataError(f"{path}: {line!r} is not <class>/<clip>")
            stem = Path(clip).stem
            items.append(
                Item(stem, (videos.relative_to(root) / label / clip).as_posix(), label, stem.rpartition("_")[0])
            )
        return items
