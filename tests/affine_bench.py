"""A bench of an affine encoder, with an attack and a corruption that can misbehave."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from rlbench.core import Adversarial, Box, Clean, Examples, Label, Suite, Threat, registry
from rlbench.core.batch import BatchSize
from rlbench.core.seeds import ExampleStreams, generator
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.block.bench import Bench
from rlbench.engine.block.evaluate import evaluate
from rlbench.engine.cells.groups import Group, groups

N = 40


class Affine:
    """Embeds (1, 2, 2) inputs by an affine map, without normalisation."""

    traits = frozenset()
    logit_scale = 10.0
    sha256: ClassVar[dict] = {}

    def __init__(self, box: Box) -> None:
        self.boxes = {"image": box}
        self.weights = torch.from_numpy(generator("affine").standard_normal((4, 4))).float()

    def embed(self, x: Tensor, modality: str) -> Tensor:
        box = self.boxes["image"]
        return ((x - box.low) / (box.high - box.low) - 0.5).flatten(1) @ self.weights


@dataclass(frozen=True)
class Points:
    """Random points with the classifier's own labels, except for every fifth."""

    encoder: Affine
    modality = "image"
    classes = tuple(Label(str(k), str(k)) for k in range(4))
    templates = ("{}",)

    def size(self, split: str) -> int:
        return N

    def load(self, box: Box, start: int, stop: int, split: str = "test") -> Examples:
        g = generator("points", start)
        x = torch.from_numpy(g.random((stop - start, *box.shape))).float() * (box.high - box.low) + box.low
        y = self.encoder.embed(x, "image").argmax(1)
        i = torch.arange(len(y))
        y = torch.where(i % 5 == 0, (y + 1 + i % 3) % 4, y)  # every fifth is a clean error
        ids = tuple(f"p{i}" for i in range(start, stop))
        return Examples(x, y, ids, ids)

    def fingerprint(self) -> str:
        return f"points {id(self.encoder)}"


@registry.register("attack", "crash")
@dataclass(frozen=True, kw_only=True)
class Crash:
    """Misbehaves in the way `how` in balls with a radius above `above`."""

    how: str = "raise"
    above: float = 0.0

    def __call__(self, classifier, x, y, ball, streams):
        if self.how == "idle" and ball.radius > self.above:
            return x
        classifier(x)
        if ball.radius <= self.above:
            return x
        if self.how == "raise":
            raise ZeroDivisionError("planned")
        if self.how == "inputs":
            x += 1
            y += 1
        answers = {
            "far": (x + 2 * ball.radius).clamp(ball.low, ball.high),
            "box": x + ball.radius,
            "nan": x.where(torch.rand_like(x) > 2, float("nan")),
            "shape": x[:, 0],
            "one": x[:1],
            "dtype": x.double(),
            "none": None,
            "tries": x,
            "inputs": x.clamp(ball.low, ball.high),
        }
        return answers[self.how]


@registry.register("corruption", "shift")
@dataclass(frozen=True, kw_only=True)
class Shift:
    """Adds a tenth of the severity, or misbehaves in the way `how`."""

    how: str = "add"
    modalities: ClassVar[frozenset] = frozenset({"image"})

    def __call__(self, x: Tensor, severity: int, streams: ExampleStreams) -> Tensor:
        assert x.min() >= 0 and x.max() <= 1
        out = (x + 0.1 * severity).clamp(0, 1)
        if self.how == "raise":
            raise KeyError("planned")
        return {"add": out, "box": out + 1, "nan": out / 0 * 0, "shape": out[:, 0], "dtype": out.double()}[self.how]


def bench(batch_size: int = 64, box: Box | None = None) -> Bench:
    encoder = Affine(box or Box(shape=(1, 2, 2)))
    suite = Suite(
        name="s",
        version=1,
        summary="",
        modality="image",
        task_name="points",
        task=Points(encoder),
        perturbations=(Clean(),),
        examples=N,
        seed=3,
        path="",
    )
    head = ZeroShot(encoder, "image", torch.eye(4))
    return Bench(suite, head, encoder.boxes["image"], suite.task.fingerprint(), "cpu", BatchSize(batch_size))


def adversarial(attack: str, eps: str, *, norm: str = "linf", ladder: tuple[str, ...] = (), **fields) -> Adversarial:
    return Adversarial(attack, Threat(norm, Fraction(eps)), tuple(sorted(fields.items())), tuple(map(Fraction, ladder)))


def done(bench: Bench, *perturbations) -> list:
    """The results of the last group of these perturbations."""
    clean = evaluate(bench, [Group()], 0, N, None, lambda rows: None)[0]
    group = groups(perturbations)[-1]
    return [clean] if group == Group() else evaluate(bench, [group], 0, N, clean, lambda rows: None)
