"""The data sets that CLIP_benchmark publishes as webdatasets on the Hugging Face hub, as a catalogue.

CLIP_benchmark: Cherti and Beaumont, 2022, https://doi.org/10.5281/zenodo.15403103. The catalogue is `names/wds.csv`;
numbers with a tilde are rounded. Most repositories state no licence, so that each set has the terms of its authors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from rlbench.core.errors import UnknownName
from rlbench.tasks.lists import read_table
from rlbench.tasks.published import Source
from rlbench.tasks.trees import NAMES

Kind = Literal["classification", "retrieval", "multilabel"]
UNPINNED = "main"
PATTERNS = ("*.txt", "test/*")  # of the paths that are downloaded; `*` also stands for folders
LAYOUT = "classnames.txt, zeroshot_classification_templates.txt, test/nshards.txt and test/0.tar, test/1.tar, ..."
LICENCE = "not stated"


@dataclass(frozen=True)
class WdsSet:
    """A data set of the catalogue.

    Attributes:
        name: in CLIP_benchmark, such as vtab/pets.
        kind: of its labels.
        classes: how many; "-" if unknown.
        test: how many test examples; "~" before a rounded number, "-" if unknown.
        revision: of the repository: a commit, or the beginning of one; UNPINNED where none is known.
    """

    name: str
    kind: Kind
    classes: str
    test: str
    revision: str

    @property
    def folder(self) -> str:
        """Its folder below RLBENCH_DATA, named as its repository."""
        return f"wds_{self.name.replace('/', '-')}"

    @property
    def repo(self) -> str:
        """Its repository on the hub."""
        return f"clip-benchmark/{self.folder}"

    @property
    def pinned(self) -> bool:
        """Whether its commit is known, so that a download gives the same data on any day."""
        return self.revision != UNPINNED

    @property
    def source(self) -> Source:
        """What a published data set says of itself."""
        return Source(
            title=f"wds/{self.name}",
            url=f"https://huggingface.co/datasets/{self.repo}",
            licence=LICENCE,
            folder=self.folder,
            layout=LAYOUT,
            classes=_number(self.classes),
            test=_number(self.test),
            rounded=self.test.startswith("~"),
            revision=self.revision,
        )


def _number(text: str) -> int:
    return 0 if text == "-" else int(text.removeprefix("~"))


@cache
def load_sets() -> dict[str, WdsSet]:
    """Loads the catalogue, by name."""
    columns = ("name", "kind", "classes", "test", "revision")
    rows = read_table(NAMES / "wds.csv", columns)
    return {
        row["name"]: WdsSet(row["name"], cast(Kind, row["kind"]), row["classes"], row["test"], row["revision"])
        for row in rows
    }


def find_set(name: str) -> WdsSet:
    """Finds a set by its name, such as vtab/pets. Raises: UnknownName."""
    sets = load_sets()
    if name not in sets:
        raise UnknownName("webdataset", name, sets)
    return sets[name]
