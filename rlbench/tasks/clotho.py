"""Clotho: sounds and captions."""

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
from rlbench.tasks.trees import by_stem, once

_LIST = "clotho_captions_evaluation.csv"
_FOLDERS = (".", "CLOTHO_retrieval_dataset")


@register("task", "clotho")
@dataclass(frozen=True, kw_only=True)
class Clotho(Captioned):
    """Clotho's evaluation part: 1045 sounds of 15 to 30 seconds with five captions each: retrieval.

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
        path = next((self.folder / f / _LIST for f in _FOLDERS if (self.folder / f / _LIST).is_file()), None)
        if path is None:
            raise self.misplaced(f"file {_LIST}")
        captions = [f"caption_{k}" for k in range(1, 6)]
        rows = read_table(path, ("file_name", *captions))
        said = once(((Path(row["file_name"]).stem, tuple(row[name] for name in captions)) for row in rows), path)
        return self.at_hand(said, by_stem(self.folder, self.folder / "evaluation", SOUNDS, self.left))
