"""AudioCaps: sounds of videos, with captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from rlbench.core import Modality
from rlbench.core.media.clips import FILMS
from rlbench.core.media.sounds import SOUNDS
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.lists import drop_fraction, read_table
from rlbench.tasks.published import Item, Source

_LISTS = ("test.csv", "dataset/test.csv", "audiocaps_test.csv")


@register("task", "audiocaps")
@dataclass(frozen=True, kw_only=True)
class AudioCaps(Captioned):
    """Retrieval on the AudioCaps test set: ten-second sounds with five captions each.

    Kim et al., 2019, https://aclanthology.org/N19-1011. Some videos are no longer online: the gallery is the sounds
    that the copy has, and different copies have different fingerprints.
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
        captions: dict[tuple[str, str], list[str]] = {}
        for row in read_table(self.find_file(*_LISTS), ("youtube_id", "start_time", "caption")):
            key = row["youtube_id"], drop_fraction(row["start_time"])
            captions.setdefault(key, []).append(row["caption"])
        files = self.index_files(self.folder, (*SOUNDS, *FILMS))
        paths = {key: next((files[stem] for stem in _list_stems(*key) if stem in files), None) for key in captions}
        return self.match_files(
            {"_".join(key): texts for key, texts in captions.items()},
            {"_".join(key): path for key, path in paths.items() if path is not None},
            {"_".join(key): key[0] for key in captions},
        )


def _list_stems(name: str, start: str) -> Iterator[str]:
    """Lists the names that copies give a clip."""
    for prefix in ("", "Y"):
        yield f"{prefix}{name}_{start}"
        yield f"{prefix}{name}"
