"""MSR-VTT: clips with captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlbench.core import Modality
from rlbench.core.media.clips import FILMS
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import Item, Source
from rlbench.tasks.trees import collect_unique

_LIST = "MSRVTT_JSFUSION_test.csv"


@register("task", "msrvtt")
@dataclass(frozen=True, kw_only=True)
class MsrVtt(Captioned):
    """Retrieval on the 1000 test clips of MSR-VTT with one caption each (1k-A).

    Xu et al., 2016, https://doi.org/10.1109/CVPR.2016.571; the subset of Yu et al., 2018, https://arxiv.org/abs/1808.02559.
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
        path = self.find_file(_LIST, f"annotation/{_LIST}")
        rows = read_table(path, ("video_id", "sentence"))
        captions = collect_unique(((row["video_id"], (row["sentence"],)) for row in rows), path)
        return self.match_files(captions, self.index_files(self.folder, FILMS))
