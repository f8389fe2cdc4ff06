"""Published data sets that are not on this machine: enough of them to plan a run, and nothing to run it with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from rlbench.core import Box, Label, Modality, Split, Task
from rlbench.core.errors import DataError
from rlbench.tasks.captioned import Captioned
from rlbench.tasks.published import Published


@dataclass(frozen=True)
class Absent:
    """A published data set without its copy.

    Attributes:
        task: the data set.
        classes: its own, or as many numbered ones, where only the copy names them.
        templates: its own, or one.
        why: the error of its missing copy.
    """

    task: Published
    classes: tuple[Label, ...]
    templates: tuple[str, ...]
    why: str

    @property
    def modality(self) -> Modality:
        return self.task.modality

    @property
    def resolution(self) -> int:
        """As the data set has it; so are `views` and `logit_scale` (see `retrieval.head_of`)."""
        return getattr(self.task, "resolution", 0)

    @property
    def views(self) -> int:
        return getattr(self.task, "views", 1)

    @property
    def logit_scale(self) -> float | None:
        return getattr(self.task, "logit_scale", None)

    def size(self, split: Split) -> int | None:
        return self.task.source.test if split == "test" else 0

    def load(self, box: Box, start: int, stop: int, split: Split = "test") -> NoReturn:
        """Raises: DataError."""
        raise DataError(self.why)

    def fingerprint(self) -> str:
        return f"absent {self.task.source.title}"


def find_absent(task: Task) -> Task:
    """The task itself, or `Absent` in place of a published one that is missing, if its numbers are known."""
    if not isinstance(task, Published) or isinstance(task, Captioned) or not task.source.test:
        return task
    try:
        _ = task.folder
    except DataError as error:
        try:
            classes, templates = task.classes, task.templates
        except DataError:
            classes = tuple(Label(str(k), f"class {k}") for k in range(task.source.classes))
            templates = ("a photo of {}.",)
        return Absent(task, classes, templates, str(error)) if classes else task
    return task


def describe_absent(tasks: Iterable[Task]) -> list[str]:
    """One note that names the absent ones; none without any."""
    names = dict.fromkeys(one.task.source.title for one in tasks if isinstance(one, Absent))
    if not names:
        return []
    return [
        "not on this machine, so planned by the catalogue's classes and examples, without a pilot: "
        f"{', '.join(names)}; `rlbench data list` says where to get them"
    ]
