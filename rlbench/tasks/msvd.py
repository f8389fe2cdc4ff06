"""MSVD: clips and captions."""

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
from rlbench.tasks.trees import by_stem, once


@register("task", "msvd")
@dataclass(frozen=True, kw_only=True)
class Msvd(Captioned):
    """MSVD's 670 test clips with about forty captions each: retrieval.

    Chen and Dolan, 2011, https://aclanthology.org/P11-1020. The captions are a pickle of lists of words, and
    nothing else in it would be run.
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
        listed, path = self.folder / "test_list.txt", self.folder / "raw-captions.pkl"
        if not listed.is_file() or not path.is_file():
            raise self.misplaced("file test_list.txt, or raw-captions.pkl")
        said = unpickle(path)
        captions = once(((name, _sentences(said, name, path)) for name in read_lines(listed)), listed)
        # An id is YouTube's and two times, so that clips of one video are a source.
        sources = {name: name.rsplit("_", 2)[0] for name in captions}
        return self.at_hand(captions, by_stem(self.folder, self.folder, FILMS, self.left), sources)


def _sentences(captions: Any, name: str, path: Path) -> list[str]:
    """The captions of a clip, of lists of words. Raises: DataError."""
    try:
        return [" ".join(words) for words in captions[name]]
    except (LookupError, TypeError) as error:
        raise DataError(f"{path} has no captions, as lists of words, of {name!r}") from error
