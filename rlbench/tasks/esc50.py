"""ESC-50: environmental sounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.tasks.lists import drop_fraction, read_table
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import load_names


@register("task", "esc50")
@dataclass(frozen=True, kw_only=True)
class Esc50(Published):
    """ESC-50: five-second recordings of fifty kinds of environmental sound.

    Piczak, 2015, https://doi.org/10.1145/2733373.2806390. As usual in zero-shot evaluation, all five folds are test
    examples by default. Clips of one field recording share a source.

    Attributes:
        folds: the folds of the test split; the others are the train split.
    """

    folds: tuple[int, ...] = (1, 2, 3, 4, 5)

    kind: ClassVar[Modality] = "audio"
    seconds: float = field(default=5.0, init=False)
    source: ClassVar[Source] = Source(
        title="ESC-50",
        url="https://github.com/karolpiczak/ESC-50",
        licence="CC BY-NC 3.0; each clip has its own",
        folder="ESC-50",
        layout="meta/esc50.csv and audio/*.wav",
        test=2_000,
    )

    def __post_init__(self) -> None:
        if not self.folds or not set(self.folds) <= set(range(1, 6)):
            raise FieldError(f"esc50: folds is {list(self.folds)}; it must be one or more of 1 to 5")

    @property
    def classes(self) -> tuple[Label, ...]:
        return load_names("esc50")

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a sound of {}.",)

    def list_items(self, split: Split) -> list[Item]:
        meta = self.find_file("meta/esc50.csv")
        wanted = {"test": set(self.folds), "train": set(range(1, 6)) - set(self.folds), "val": set[int]()}[split]
        items = []
        for row in read_table(meta, ("filename", "fold", "category", "src_file")):
            name, recording = row["filename"], drop_fraction(row["src_file"])
            items.append(
                (row.parse_whole("fold"), Item(name, f"audio/{name}", row["category"], f"freesound-{recording}"))
            )
        return [item for fold, item in items if fold in wanted]
