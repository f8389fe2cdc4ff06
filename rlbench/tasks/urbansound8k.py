"""UrbanSound8K: sounds of the city."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rlbench.core import Label, Modality, Split
from rlbench.core.errors import FieldError
from rlbench.core.registry import register
from rlbench.tasks.lists import drop_fraction, read_table
from rlbench.tasks.published import Item, Published, Source
from rlbench.tasks.trees import make_classes

_CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)


@register("task", "urbansound8k")
@dataclass(frozen=True, kw_only=True)
class UrbanSound8K(Published):
    """UrbanSound8K: ten kinds of city sound, up to four seconds long.

    Salamon et al., 2014, https://doi.org/10.1145/2647868.2655045. Slices of one recording share a source.

    Attributes:
        folds: the folds of the test split; the others are the train split.
    """

    folds: tuple[int, ...] = tuple(range(1, 11))

    kind: ClassVar[Modality] = "audio"
    seconds: float = field(default=4.0, init=False)
    source: ClassVar[Source] = Source(
        title="UrbanSound8K",
        url="https://urbansounddataset.weebly.com/urbansound8k.html",
        licence="CC BY-NC 3.0",
        folder="UrbanSound8K",
        layout="metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10",
        test=8_732,
    )

    def __post_init__(self) -> None:
        if not self.folds or not set(self.folds) <= set(range(1, 11)):
            raise FieldError(f"urbansound8k: folds is {list(self.folds)}; it must be one or more of 1 to 10")

    @property
    def classes(self) -> tuple[Label, ...]:
        return make_classes({name: name.replace("_", " ") for name in _CLASSES})

    @property
    def templates(self) -> tuple[str, ...]:
        return ("a sound of {}.",)

    def list_items(self, split: Split) -> list[Item]:
        meta = self.find_file("metadata/UrbanSound8K.csv")
        wanted = {"test": set(self.folds), "train": set(range(1, 11)) - set(self.folds), "val": set[int]()}[split]
        items = []
        for row in read_table(meta, ("slice_file_name", "fsID", "fold", "class")):
            name, fold, recording = row["slice_file_name"], row.parse_whole("fold"), drop_fraction(row["fsID"])
            items.append((fold, Item(name, f"audio/fold{fold}/{name}", row["class"], f"freesound-{recording}")))
        return [item for fold, item in items if fold in wanted]
