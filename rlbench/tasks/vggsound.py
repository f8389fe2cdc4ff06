"""VGGSound: sounds of videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.media.clips import FILMS
from rlbench.core.media.sounds import SOUNDS
from rlbench.core.registry import register
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import by_stem, make_labels

_HEAD = ("id", "start", "class", "split")  # the file has no line of names


@register("task", "vggsound")
@dataclass(frozen=True, kw_only=True)
class VggSound(Published):
    """VGGSound's test part: 309 kinds of sound in ten seconds of a video.

    Chen et al., 2020, https://arxiv.org/abs/2004.14368. The class names are those of vggsound.csv, sorted. Videos
    vanish: the clips at hand are tested, and two copies have two fingerprints.
    """

    kind: ClassVar[Modality] = "audio"
    seconds: float = field(default=10.0, init=False)
    source: ClassVar[Source] = Source(
        title="VGGSound",
        url="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
        licence="annotations CC BY 4.0; the videos are their owners'",
        folder="vggsound",
        layout="vggsound.csv, and sounds or films named <YouTube id>_<start, six digits>.* in any folder",
        test=15_446,
        partial=True,
    )

    @cached_property
    def _rows(self) -> list[tuple[str, int, str, str]]:
        """(YouTube id, start in seconds, class, split)."""
        path = self.folder / "vggsound.csv"
        if not path.is_file():
            raise self.misplaced("file vggsound.csv")
        rows = read_table(path, _HEAD, head=_HEAD)
        return [(row["id"], row.whole("start"), row["class"], row["split"]) for row in rows]

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_labels(sorted({label for _, _, label, _ in self._rows}))

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a sound of {}.",)

    def list_items(self, split: Split) -> list[Item]:
        files = by_stem(self.folder, self.folder, (*SOUNDS, *FILMS), self.left)
        named = [(f"{name}_{start:06d}", name, label) for name, start, label, of in self._rows if of == split]
        return [Item(stem, Path(files[stem]).as_posix(), label, name) for stem, name, label in named if stem in files]
