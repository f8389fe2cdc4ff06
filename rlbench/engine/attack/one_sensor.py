"""Attacks that the pool cannot run, on one sensor of several: they get this sensor's input, and the others stay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlbench.core import Attack, Ball, Classifier, Span, Streams
from rlbench.core.errors import AttackError
from rlbench.engine.attack.judge import run_attack


@dataclass(frozen=True)
class SensorView:
    """A classifier of several sensors as a function of one of them.

    Attributes:
        classifier: of all sensors.
        x: (B, D) the inputs, of which the other sensors' are used.
        span: the coordinates of the sensor.
    """

    classifier: Classifier
    x: Tensor
    span: Span

    @property
    def batch_size(self) -> int:
        return self.classifier.batch_size

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """x (N, *span.shape) -> (N, C) logits; rows (N,): indices into the inputs, by default 0..N-1."""
        rows = torch.arange(len(x)) if rows is None else rows
        return self.classifier(insert(x, self.x[rows.to(self.x.device)], self.span), rows=rows)


def insert(part: Tensor, x: Tensor, span: Span) -> Tensor:
    """x (B, D) with part (B, *span.shape) at the coordinates of a sensor, differentiable in part."""
    return torch.cat([x[:, : span.start], part.flatten(1), x[:, span.stop :]], dim=1)


@dataclass(frozen=True)
class OneSensor:
    """An attack of one sensor in a product of balls of which only this sensor's has a radius above 0.

    Attributes:
        method: the attack.
    """

    method: Attack

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, ball: Ball, streams: Streams) -> Tensor:
        """x (B, D), y (B,) int64 -> x_adv like x. Raises: AttackError: of `run_attack`, or for several sensors."""
        spans = [span for span in ball.spans if span.radius > 0]
        if len(spans) > 1:
            raise AttackError(f"it moves one sensor at a time, not {', '.join(span.sensor for span in spans)}")
        for span in spans:
            own, part = replace(ball, radius=span.radius, spans=()), x[:, span.start : span.stop]
            view = SensorView(classifier, x, span)
            x = insert(run_attack(self.method, view, part.reshape(-1, *span.shape), y, own, streams), x, span)
        return x
