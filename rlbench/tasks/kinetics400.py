"""Kinetics-400: actions in clips of ten seconds, and their sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from rlbench.core import Box, Label, Modality, Split
from rlbench.core.errors import FieldError
from rlbench.core.media.clips import FILMS, views
from rlbench.core.registry import register
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import PAIRS, Item, Published, Source
from rlbench.tasks.trees import fold_name, load_names, load_templates

_LISTS = ("annotations/val.csv", "val.csv", "annotations/kinetics_400_val.csv", "kinetics_400_val.csv")


@register("task", "kinetics400")
@dataclass(frozen=True, kw_only=True)
class Kinetics400(Published):
    """Kinetics-400 validation clips: 400 actions, in 1 or 15 views per clip.

    Kay et al., 2017, https://arxiv.org/abs/1705.06950. A single view is the centre crop of as many frames as the
    encoder's box has, evenly spaced from first to last. LanguageBind's published 64.0% is with 15 views, 5 in time by 3
    in space, whose probabilities are averaged (`heads.Viewed`): https://github.com/PKU-YuanGroup/LanguageBind,
    v_cls/datasets.py and v_cls/zeroshot_cls.py. That code normalises pixels by ImageNet's mean and deviation, which the
    tower was not trained with; rlbench uses the tower's own. A block of 256 clips in 15 views of 8 x 224 x 224 takes
    18.5 GB. Some videos are no longer online: the clips that the copy has are the test split, and different copies have
    different fingerprints.

    Attributes:
        views: views per clip, 1 or 15.
        modality: video, or audio, the clips' sound.
        audiovisual: takes only clips that have a sound track, so that both sensors have the same clips.
    """

    views: Literal[1, 15] = 1
    modality: Literal["video", "audio"] = field(default="video", metadata=PAIRS)
    audiovisual: bool = field(default=False, metadata=PAIRS)

    kind: ClassVar[Modality] = "video"
    source: ClassVar[Source] = Source(
        title="Kinetics-400",
        url="https://github.com/cvdfoundation/kinetics-dataset",
        licence="annotations CC BY 4.0; the videos are their owners'",
        folder="kinetics400",
        layout="val/<class>/*.mp4; or annotations/val.csv, and val/<YouTube id>_<start>_<end>.mp4 with six digits each",
        partial=True,
    )

    def __post_init__(self) -> None:
        if self.modality == "audio" and self.views > 1:
            raise FieldError(f"views is {self.views}; it is for video", "views")
        if self.modality == "audio":
            object.__setattr__(self, "seconds", 10.0)  # the length of a clip

    @property
    def classes(self) -> tuple[Label, ...]:
        return load_names("kinetics400")

    @property
    def templates(self) -> tuple[str, ...]:
        return load_templates("openai80", "video") if self.modality == "video" else ("a sound of {}.",)

    @property
    def form(self) -> str:
        return f"({self.views} views)" if self.views > 1 else ""

    def read(self, item: Item, box: Box) -> np.ndarray:
        return super().read(item, box) if self.views == 1 else views(self.folder / item.path, box, self.views // 3)

    def list_items(self, split: Split) -> list[Item]:
        if split != "test":
            return []
        lists = [self.folder / name for name in _LISTS if (self.folder / name).is_file()]
        items = self._read_list(lists[0]) if lists else self._list_folders()
        return self.keep_sounding(items) if self.audiovisual or self.modality == "audio" else items

    def _list_folders(self) -> list[Item]:
        tree = self.list_tree(self.find_folder("val", "val_256"), FILMS)
        return [Item(Path(one.path).stem, one.path, one.label, Path(one.path).stem) for one in tree]

    def _read_list(self, path: Path) -> list[Item]:
        known = {fold_name(one.label): one.label for one in self.classes}
        files = self.index_files(self.find_folder("val", "val_256", "."), FILMS)
        items = []
        for row in read_table(path, ("label", "youtube_id", "time_start", "time_end")):
            label = row["label"]
            stem = f"{row['youtube_id']}_{row.parse_whole('time_start'):06d}_{row.parse_whole('time_end'):06d}"
            if stem in files:
                items.append(Item(stem, files[stem], known.get(fold_name(label), label), stem))
        return items
