"""The texts that an attacker may choose for a task's classes, and the meter of a classifier under that choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from rlbench.attacks.text.choices import Choice, ListChoice, NameChoice, choose_shared
from rlbench.attacks.text.edits import check_edits, edit_names
from rlbench.core import Edited, Encoder, Suite, Task
from rlbench.core.errors import AttackError, FieldError, RLBenchError
from rlbench.core.knowledge import knowledge_of
from rlbench.core.machine import full_float32
from rlbench.core.threat import text_of
from rlbench.encoders.black_box.classes import FixedClasses
from rlbench.encoders.defences.defended import Defence, Defended
from rlbench.encoders.edited import embed_names, embed_templates
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.retrieval import Paired
from rlbench.engine.attack.meter import Meter
from rlbench.engine.cells.keys import SHARED
from rlbench.tasks.words import list_class_words

MOST = 2_000_000  # prompts that are embedded for one choice
_BATCH = 64  # validation examples of a forward pass


@dataclass(frozen=True, eq=False)
class Texts:
    """What an attacker may choose: K texts, of which those of the task itself are some.

    Attributes:
        anchors: (K, D) unit embeddings.
        words: what an attacker wrote, as people read it: a class name, or a template; "" for the task's own texts.
        choose: how a text of each class is chosen, by example.
    """

    anchors: Tensor
    words: tuple[str, ...]
    choose: Choice

    def score(self, head: ZeroShot) -> ZeroShot:
        """The classifier whose logits (B, K) are the scores of these texts."""
        return replace(head, anchors=self.anchors)


class TextMeter(Meter):
    """A meter of a classifier for which an attacker chooses the texts, example by example.

    Args:
        head: gives the scores (B, K) of all texts.
        texts: the texts.
        labels: (n,) int64 classes of the examples, on the scores' device.
        n: number of examples.
        **options: the options of `Meter`.
    """

    def __init__(self, head: Callable[[Tensor], Tensor], texts: Texts, labels: Tensor, n: int, **options: Any) -> None:
        super().__init__(head, n, **options)
        self.head, self.texts, self.labels = head, texts, labels

    def twin(self, classify: Callable[[Tensor], Tensor]) -> Self:
        other = super().twin(classify)
        other.head = classify
        return other

    def _call(self, x: Tensor, rows: Tensor) -> Tensor:
        y = self.labels[rows.to(self.labels.device)]
        self.classify = lambda x: self.texts.choose(self.head(x).float(), y)
        return super()._call(x, rows)


def check_texts(suite: Suite) -> None:
    """Checks that a suite's task has the class names that its perturbations edit.

    Raises: FieldError: it has captions, or views; or its names are too short for so many edits, or not ASCII.
    """
    for edited in dict.fromkeys(filter(None, map(text_of, suite.perturbations))):
        about = f"{suite.path}: text: {edited}"
        if isinstance(suite.task, Paired) or hasattr(suite.task, "load_gallery"):
            raise FieldError(f"{about}: edits are of class names, and retrieval has none; choose a classification task")
        if getattr(suite.task, "views", 1) > 1:
            raise FieldError(f"{about}: edits are for whole clips, not for several views; set views: 1")
        if edited.text == "template":
            continue
        if edited.text == "typo-shared" and suite.task.size("val") == 0:
            raise FieldError(f"{about}: the task has no validation split, whose examples choose the names")
        try:
            check_edits([label.name for label in suite.task.classes], edited.edits)
        except FieldError as error:
            raise FieldError(f"{about}: {error}") from None


def explain_fixed_texts(head: ZeroShot) -> str:
    """Why an attacker can't choose the texts of a model, or "" if it can."""
    encoder = head.encoder
    if isinstance(encoder, FixedClasses) or knowledge_of(encoder) != "white-box":
        return "a black box has fixed classes, so no text can be edited"
    if _acts_on_logits(encoder):
        return "its defence acts on the logits of the classes, of which an edited text would be one more"
    if "randomised" in encoder.traits:
        return "its outputs are random, and texts are chosen for one output"
    return ""


def _acts_on_logits(encoder: Encoder) -> bool:
    """Whether an encoder changes the logits of the classes, so that they are no scores of single texts."""
    predicts = getattr(encoder, "predict", None) is not None
    if isinstance(encoder, Defended):
        return bool(getattr(encoder, "needs_classes", False)) or type(encoder.defence).answer is not Defence.answer
    return predicts or getattr(encoder, "answer", None) is not None


_FOUND: list[tuple[ZeroShot, Edited, Texts]] = []  # the last ones of this process
_KEPT = 4


@full_float32()
def find_texts(head: ZeroShot, task: Task, edited: Edited) -> Texts:
    """The texts that an attacker may choose; the process keeps them for the next call.

    Args:
        head: the classifier of the task.
        task: with class names, templates and, for typo-shared, validation examples.
        edited: the choice.

    Raises:
        FieldError: the model's texts are fixed, or too many prompts would be embedded.
        AttackError: the text tower fails on some of these texts.
    """
    for own, one, texts in _FOUND:
        if own is head and one == edited:
            return texts
    if reason := explain_fixed_texts(head):
        raise FieldError(f"{edited}: {reason}")
    try:
        texts = _make(head, task, edited)
    except (FieldError, AttackError):
        raise
    except RLBenchError as error:
        raise AttackError(str(error)) from error
    _FOUND[:] = [*_FOUND[-_KEPT + 1 :], (head, edited, texts)]
    return texts


def _make(head: ZeroShot, task: Task, edited: Edited) -> Texts:
    own, device = head.anchors, head.anchors.device
    if edited.text == "template":
        single = embed_templates(head.encoder, task.classes, task.templates).to(device)
        words = [text for text in ("", *task.templates) for _ in task.classes]
        return Texts(torch.cat([own, single]), tuple(words), ListChoice(1 + len(task.templates)))
    if edited.text == "typo-shared":
        return _share(head, task, find_texts(head, task, replace(edited, text="typo-any")))
    names = edit_names([label.name for label in task.classes], edited.edits, dictionary=list_class_words())
    prompts = len(task.templates) * sum(map(len, names))
    if prompts > MOST:
        raise FieldError(f"{edited} needs {prompts:,} prompts, at most {MOST:,}; use fewer templates, or template")
    rows, owners = embed_names(head.encoder, task.classes, names, task.templates)
    rows = rows.to(device).index_copy(0, _first(owners).to(device), own)  # the task's own anchors, to the last bit
    return Texts(rows, tuple(word for _, *others in names for word in ("", *others)), NameChoice(owners))


def _share(head: ZeroShot, task: Task, names: Texts) -> Texts:
    """One list of these names for all inputs, which validation examples choose, and the task's own."""
    assert isinstance(names.choose, NameChoice)
    owners, (f, y) = names.choose.owners, _embed_validation(head, task)
    chosen = choose_shared(f @ names.anchors.T, y, owners.to(y.device))
    listed = [*_first(owners).tolist(), *chosen.tolist()]
    return Texts(names.anchors[listed], tuple(names.words[k] for k in listed), ListChoice(2))


def _first(owners: Tensor) -> Tensor:
    """(C,) int64, the first text of each class, for (K,) classes in ascending order."""
    sizes = owners.bincount()
    return sizes.cumsum(0) - sizes


def _embed_validation(head: ZeroShot, task: Task) -> tuple[Tensor, Tensor]:
    """Unit embeddings (N, D) of the first validation examples, and their labels (N,)."""
    size, device = task.size("val"), head.anchors.device
    examples = task.load(head.box, 0, SHARED if size is None else min(size, SHARED), "val")
    with torch.no_grad():
        f = torch.cat([head.embed(part.to(device)) for part in torch.split(examples.x, _BATCH)])
    return f, examples.y.to(device)
