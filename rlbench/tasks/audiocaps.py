"""AudioCaps: sounds of videos and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from rlbench.core import Modality
from rlbench.core.media.clips import FILMS
from rlbench.core.media.sounds import SOUNDS
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.lists import read_table, without_fraction
from rlbench.tasks.published import Item, Source
from rlbench.tasks.trees import by_stem

_LISTS = ("test.csv", "dataset/test.csv", "audiocaps_test.csv")


@register("task", "audiocaps")
@dataclass(frozen=True, kw_only=True)
class AudioCaps(Captioned):
    """AudioCaps' test part: sounds of ten seconds with five captions each: retrieval.

    Kim et al., 2019, https://aclanthology.org/N19-1011. Videos vanish: the sounds at hand are the gallery, and two
    copies have two fingerprints.
    """

    kind: ClassVar[Modality] = "audio"
    seconds: float = field(default=10.0, init=False)
    source: ClassVar[Source] = Source(
        title="AudioCaps",
        url="https://github.com/cdjkim/audiocaps",
        licence="captions MIT; the videos are their owners'",
        folder="audiocaps",
        layout="test.csv, and sounds or films named <YouTube id>.* or <YouTube id>_<start>.* in any folder",
        test=975,
        partial=True,
    )

    def list_captioned(self) -> list[tuple[Item, Captions]]:
        path = next((self.folder / name for name in _LISTS if (self.folder / name).is_file()), None)
        if path is None:
            raise self.misplaced("file test.csv")
        said: dict[tuple[str, str], list[str]] = {}
        for row in read_table(path, ("youtube_id", "start_time", "caption")):
            key = row["youtube_id"], without_fraction(row["start_time"])
            said.setdefault(key, []).append(row["caption"])
        files = by_stem(self.folder, self.folder, (*SOUNDS, *FILMS), self.left)
        named = {key: next((files[stem] for stem in _stems(*key) if stem in files), None) for key in said}
        return self.at_hand(
            {"_".join(key): captions for key, captions in said.items()},
            {"_".join(key): found for key, found in named.items() if found is not None},
            {"_".join(key): key[0] for key in said},
        )


def _stems(name: str, start: str) -> Iterator[str]:
    """How copies name a clip."""
    for prefix in ("", "Y"):
        yield f"{prefix}{name}_{start}"
        yield f"{prefix}{name}"
