"""VGGSound: sounds of videos, and the videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from rlbench.core import Label, Modality, Split
from rlbench.core.media.clips import FILMS
from rlbench.core.media.sounds import SOUNDS
from rlbench.core.registry import register
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import PAIRS, Item, Published, Source
from rlbench.tasks.trees import make_classes

_HEAD = ("id", "start", "class", "split")  # the file has no header


@register("task", "vggsound")
@dataclass(frozen=True, kw_only=True)
class VggSound(Published):
    """The VGGSound test set: 309 kinds of sound, in ten seconds of a video each.

    Chen et al., 2020, https://arxiv.org/abs/2004.14368. The classes are those of vggsound.csv, sorted. Some videos are
    no longer online: the clips that the copy has are the test split, and different copies have different fingerprints.

    Attributes:
        modality: audio, or video, the pictures of the films.
        audiovisual: takes only films that have a sound track, so that both sensors have the same clips.
    """

    modality: Literal["audio", "video"] = field(default="audio", metadata=PAIRS)
    audiovisual: bool = field(default=False, metadata=PAIRS)

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
        """The lines of the list: YouTube id, start in seconds, class, split."""
        rows = read_table(self.find_file("vggsound.csv"), _HEAD, head=_HEAD)
        return [(row["id"], row.parse_whole("start"), row["class"], row["split"]) for row in rows]

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_classes(sorted({label for _, _, label, _ in self._rows}))

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a sound of {}.",) if self.modality == "audio" else ("a video of {}.",)

    def list_items(self, split: Split) -> list[Item]:
        films_only = self.audiovisual or self.modality == "video"
        files = self.index_files(self.folder, FILMS if films_only else (*SOUNDS, *FILMS))
        rows = [(f"{name}_{start:06d}", name, label) for name, start, label, part in self._rows if part == split]
        items = [Item(stem, files[stem], label, name) for stem, name, label in rows if stem in files]
        return self.keep_sounding(items) if self.audiovisual else items
