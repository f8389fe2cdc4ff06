"""What retrieval tasks share: media with captions, where a class is the set of captions of one medium."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rlbench.core import Label, Split
from rlbench.core.errors import DataError
from rlbench.tasks.published import Item, Published

Captions = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Captioned(Published):
    """A gallery of media and their captions: which caption belongs to which medium?

    A class is the set of all captions of one medium; media with the same captions share a class. Classes are sorted by
    the hash of the medium's id. `encoders.retrieval` ranks the captions.

    Attributes:
        at: an example is correct if one of its captions is among the first 1, 5 or 10.
    """

    at: Literal[1, 5, 10] = 1

    @property
    def form(self) -> str:
        return f"(R@{self.at})" if self.at > 1 else ""

    @abstractmethod
    def list_captioned(self) -> Sequence[tuple[Item, Captions]]:
        """Lists the media of the test split with their captions; labels are ignored. Raises: DataError."""

    @cached_property
    def _gallery(self) -> dict[Captions, list[Item]]:
        """The media by their captions."""
        pairs = self.list_captioned()
        if any(not captions for _, captions in pairs) or len(pairs) < 2:
            raise DataError(f"{self.folder} has {len(pairs)} media with captions; there must be two or more")
        gallery: dict[Captions, list[Item]] = {}
        for item, captions in sorted(pairs, key=lambda pair: hashlib.blake2b(pair[0].id.encode()).digest()):
            gallery.setdefault(captions, []).append(item)
        if len(gallery) < 2:
            raise DataError(f"{self.folder} has the same captions for all media, so that every answer would be right")
        return gallery

    @property
    def captions(self) -> tuple[Captions, ...]:
        """The captions of each class."""
        return tuple(self._gallery)

    @cached_property
    def _classes(self) -> tuple[Label, ...]:
        return tuple(Label(items[0].id, captions[0]) for captions, items in self._gallery.items())

    @property
    def classes(self) -> tuple[Label, ...]:
        """Named by their first captions."""
        return self._classes

    @property
    def templates(self) -> tuple[str, ...]:
        return ("{}",)

    def list_items(self, split: Split) -> list[Item]:
        if split != "test":
            return []
        return [replace(item, label=items[0].id) for items in self._gallery.values() for item in items]

    def match_files(
        self, captions: Mapping[str, Sequence[str]], files: Mapping[str, str], sources: Mapping[str, str] | None = None
    ) -> list[tuple[Item, Captions]]:
        """Lists the captioned media that have a file.

        Args:
            captions: the captions by stem.
            files: paths by stem.
            sources: the sources by stem; by default the stem.

        Raises:
            DataError: a file of a data set that is not partial is missing.
        """
        missing = [stem for stem in captions if stem not in files]
        if missing and not self.source.partial:
            raise DataError(f"{self.folder} lacks {len(missing)} of {len(captions)} media, such as {missing[0]}")
        return [
            (Item(stem, files[stem], "", (sources or {}).get(stem, stem)), tuple(texts))
            for stem, texts in captions.items()
            if stem in files
        ]

    def fingerprint(self) -> str:
        """A hash of the media and of their captions."""
        return hashlib.sha256(f"{super().fingerprint()} {self.captions}".encode()).hexdigest()[:16]
