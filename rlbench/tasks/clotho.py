"""Clotho: sounds with captions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from rlbench.core import Modality
from rlbench.core.media.sounds import SOUNDS
from rlbench.core.registry import register
from rlbench.tasks.captioned import Captioned, Captions
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import Item, Source
from rlbench.tasks.trees import collect_unique

_LIST = "clotho_captions_evaluation.csv"


@register("task", "clotho")
@dataclass(frozen=True, kw_only=True)
class Clotho(Captioned):
    """Retrieval on the Clotho evaluation set: 1045 sounds of 15 to 30 seconds with five captions each.

    Drossos et al., 2020, https://arxiv.org/abs/1910.09387.
    """

    kind: ClassVar[Modality] = "audio"
    seconds: float = field(default=30.0, init=False)
    source: ClassVar[Source] = Source(
        title="Clotho 2.1",
        url="https://zenodo.org/records/4783391",
        licence="captions under the Tampere University licence for non-commercial use; each sound has its own",
        folder="clotho",
        layout=f"{_LIST} and evaluation/*.wav",
        test=1_045,
    )

    def list_captioned(self) -> list[tuple[Item, Captions]]:
        path = self.find_file(_LIST, f"CLOTHO_retrieval_dataset/{_LIST}")
        columns = [f"caption_{k}" for k in range(1, 6)]
        rows = read_table(path, ("file_name", *columns))
        pairs = ((Path(row["file_name"]).stem, tuple(row[name] for name in columns)) for row in rows)
        captions = collect_unique(pairs, path)
        return self.match_files(captions, self.index_files(self.folder / "evaluation", SOUNDS))
