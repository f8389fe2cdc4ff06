"""MSR-VTT: clips and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlbench.core import Modality
from rlbench.core.media.clips import FILMS
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import Item, Source
from rlbench.tasks.trees import by_stem, once

_LIST = "MSRVTT_JSFUSION_test.csv"


@register("task", "msrvtt")
@dataclass(frozen=True, kw_only=True)
class MsrVtt(Captioned):
    """MSR-VTT's 1000 test clips with one caption each (1k-A): retrieval.

    Xu et al., 2016, https://doi.org/10.1109/CVPR.2016.571; the part of Yu et al., 2018, https://arxiv.org/abs/1808.02559.
    """

    kind: ClassVar[Modality] = "video"
    source: ClassVar[Source] = Source(
        title="MSR-VTT",
        url="https://cove.thecvf.com/datasets/839",
        licence="none stated; the videos are their owners'",
        folder="MSRVTT",
        layout=f"{_LIST}, and video<number>.mp4 in any folder",
        test=1_000,
    )

    def list_captioned(self) -> list[tuple[Item, Captions]]:
        path = next(
            (path for path in (self.folder / _LIST, self.folder / "annotation" / _LIST) if path.is_file()), None
        )
        if path is None:
            raise self.misplaced(f"file {_LIST}")
        rows = read_table(path, ("video_id", "sentence"))
        captions = once(((row["video_id"], (row["sentence"],)) for row in rows), path)
        return self.at_hand(captions, by_stem(self.folder, self.folder, FILMS, self.left))
