"""VGGSound: sounds of videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.errors import DataError
from rlbench.registry import register
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.readers import FILMS, SOUNDS
from rlbench.tasks.trees import by_stem, labelled, plain


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
        rows = list(plain(path))
        wrong = next((row for row in rows if len(row) != 4 or not row[1].strip().isdigit()), None)
        if wrong is not None:
            raise DataError(f"{path}: {','.join(wrong)!r} is not an id, a start in seconds, a class and a split")
        return [(name, int(start), label.strip(), split.strip()) for name, start, label, split in rows]

    @property
    def classes(self) -> tuple[Label, ...]:
        return labelled(sorted({label for _, _, label, _ in self._rows}))

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a sound of {}.",)

    def listed(self, split: Split) -> list[Item]:
        files = by_stem(self.folder, self.folder, (*SOUNDS, *FILMS))
        named = [(f"{name}_{start:06d}", name, label) for name, start, label, of in self._rows if of == split]
        return [Item(stem, Path(files[stem]).as_posix(), label, name) for stem, name, label in named if stem in files]
