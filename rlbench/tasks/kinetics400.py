"""Kinetics-400: actions in clips of ten seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from rlbench.core import Box, Label, Modality, Split
from rlbench.core.media.clips import FILMS, views
from rlbench.core.registry import register
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import by_stem, class_tree, first_folder, fold_name, names, templates

_LISTS = ("annotations/val.csv", "val.csv", "annotations/kinetics_400_val.csv", "kinetics_400_val.csv")


@register("task", "kinetics400")
@dataclass(frozen=True, kw_only=True)
class Kinetics400(Published):
    """Kinetics-400's validation clips: 400 actions, one view a clip, or 15.

    Kay et al., 2017, https://arxiv.org/abs/1705.06950. One view is as many frames as the encoder's box has, evenly from
    the first to the last, their centre. LanguageBind's published 64.0% is of 15: 5 over time by 3 in space, whose
    probabilities are averaged (`heads.Viewed`), from https://github.com/PKU-YuanGroup/LanguageBind, v_cls/datasets.py
    and v_cls/zeroshot_cls.py. There pixels are normalised by ImageNet's mean and deviation, which the tower never saw
    in training; here by its own. A block of 256 clips in 15 views of 8 x 224 x 224 takes 18.5 GB.
    Videos vanish: the clips at hand are tested, and two copies have two fingerprints.

    Attributes:
        views: of a clip, 1 or 15.
    """

    views: Literal[1, 15] = 1

    kind: ClassVar[Modality] = "video"
    source: ClassVar[Source] = Source(
        title="Kinetics-400",
        url="https://github.com/cvdfoundation/kinetics-dataset",
        licence="annotations CC BY 4.0; the videos are their owners'",
        folder="kinetics400",
        layout="val/<class>/*.mp4; or annotations/val.csv, and val/<YouTube id>_<start>_<end>.mp4 with six digits each",
        partial=True,
    )

    @property
    def classes(self) -> tuple[Label, ...]:
        return names("kinetics400")

    @property
    def templates(self) -> tuple[str, ...]:
        return templates("openai80", "video")

    @property
    def form(self) -> str:
        return f"({self.views} views)" if self.views > 1 else ""

    def read(self, item: Item, box: Box) -> np.ndarray:
        return super().read(item, box) if self.views == 1 else views(self.folder / item.path, box, self.views // 3)

    def list_items(self, split: Split) -> list[Item]:
        if split != "test":
            return []
        root = self.folder
        path = next((root / name for name in _LISTS if (root / name).is_file()), None)
        if path is not None:
            return self._from_list(path)
        val = first_folder(root, ("val", "val_256"))
        if val is None:
            raise self.misplaced("folder val, nor a list")
        return [
            Item(Path(one.path).stem, one.path, one.label, Path(one.path).stem)
            for one in class_tree(root, val, self.classes, FILMS, self.left)
        ]

    def _from_list(self, path: Path) -> list[Item]:
        known = {fold_name(one.label): one.label for one in self.classes}
        files = by_stem(
            self.folder, first_folder(self.folder, ("val", "val_256", ".")) or self.folder, FILMS, self.left
        )
        items = []
        for row in read_table(path, ("label", "youtube_id", "time_start", "time_end")):
            label = row["label"]
            stem = f"{row['youtube_id']}_{row.whole('time_start'):06d}_{row.whole('time_end'):06d}"
            if stem in files:
                items.append(Item(stem, files[stem], known.get(fold_name(label), label), stem))
        return items
