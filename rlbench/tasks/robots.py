"""What robots' recordings share: a modality, classes and templates that the suite may give, and parts left out."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from rlbench.core import Box, Label, Modality
from rlbench.core.errors import DataError
from rlbench.tasks.folder import describe_untested, read_classes
from rlbench.tasks.published import Item, Published


class Robot(Published):
    """A recording of a robot, as a base of dataclasses with these fields.

    Attributes:
        medium: what the sensor sees or hears.
        given: the classes; None for the labels that occur, sorted.
        prompts: the templates.
    """

    medium: Modality
    given: Mapping[str, str] | tuple[str, ...] | None
    prompts: tuple[str, ...]

    @abstractmethod
    def list_labels(self) -> Iterable[str]:
        """The labels that occur. Raises: DataError."""

    @property
    def modality(self) -> Modality:
        return self.medium

    @cached_property
    def _classes(self) -> tuple[Label, ...]:
        found = read_classes(self.folder, self.given or tuple(sorted(set(self.list_labels()))))
        self._check_names(found)
        return found

    def _check_names(self, classes: Iterable[Label]) -> None:
        """Raises: DataError: two names differ in case, spaces or underscores at most, or one is empty."""
        seen: dict[str, str] = {}
        for one in classes:
            name = " ".join(one.name.replace("_", " ").casefold().split())
            if not name:
                raise DataError(f"{self.folder}: the label {one.label!r} has no text; name the classes by classes")
            if name in seen:
                raise DataError(
                    f"{self.folder}: the classes {seen[name]!r} and {one.label!r} have one name, {one.name!r}; spell "
                    "the labels of one class alike, or name two classes differently by classes"
                )
            seen[name] = one.label

    @property
    def classes(self) -> tuple[Label, ...]:
        return self._classes

    @property
    def templates(self) -> tuple[str, ...]:
        return self.prompts

    @cached_property
    def _unused(self) -> Counter[str]:
        """How many frames or messages are left out, by reason."""
        return Counter()

    def read(self, item: Item, box: Box) -> np.ndarray:
        """Reads an example at the box, float32 in [0, 1]. Raises: DataError, naming the file or the message."""
        return self.read_all([item], box)[0]

    def notes(self) -> tuple[str, ...]:
        """Notes that are not errors: what is left out, classes without examples.

        Raises: DataError: the first picture can't be read as it was declared.
        """
        items = self.items()
        if items and self.medium in ("image", "thermal"):
            self.read(items[0], Box(shape=(3, 32, 32)))
        left = [f"{count:,} {what} are left out" for what, count in sorted(self._unused.items()) if count]
        return (*left, *describe_untested(self.classes, items))
