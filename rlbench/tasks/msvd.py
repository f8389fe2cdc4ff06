"""MSVD: clips with captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlbench.core import Modality
from rlbench.core.errors import DataError
from rlbench.core.media.clips import FILMS
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.lists import read_lines
from rlbench.tasks.pickles import unpickle
from rlbench.tasks.published import Item, Source
from rlbench.tasks.trees import collect_unique


@register("task", "msvd")
@dataclass(frozen=True, kw_only=True)
class Msvd(Captioned):
    """Retrieval on the 670 test clips of MSVD with about forty captions each.

    Chen and Dolan, 2011, https://aclanthology.org/P11-1020. The captions are a pickle of lists of words; a pickle that
    contains anything else is refused.
    """

    kind: ClassVar[Modality] = "video"
    source: ClassVar[Source] = Source(
        title="MSVD",
        url="https://www.cs.utexas.edu/users/ml/clamp/videoDescription/",
        licence="none stated; the videos are their owners'",
        folder="MSVD",
        layout="test_list.txt, raw-captions.pkl, and <id>_<start>_<end>.avi in any folder",
        test=670,
    )

    def list_captioned(self) -> list[tuple[Item, Captions]]:
        names, path = self.find_file("test_list.txt"), self.find_file("raw-captions.pkl")
        words = unpickle(path)
        captions = collect_unique(((name, _join_captions(words, name, path)) for name in read_lines(names)), names)
        # A name is a YouTube id, start and end: clips of one video share a source.
        sources = {name: name.rsplit("_", 2)[0] for name in captions}
        return self.match_files(captions, self.index_files(self.folder, FILMS), sources)


def _join_captions(captions: Any, name: str, path: Path) -> list[str]:
    """Joins the words of each caption of a clip. Raises: DataError."""
    try:
        return [" ".join(words) for words in captions[name]]
    except (LookupError, TypeError) as error:
        raise DataError(f"{path} has no captions of {name!r} as lists of words") from error
