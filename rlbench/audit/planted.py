"""The binarization test, S12: does the attack find an adversarial point that is known to exist?

Zimmermann et al., 2022, https://arxiv.org/abs/2206.13991. Around each example, the test makes a two-class
problem on the encoder's own embedding: random points inside the ball are class 0, one corner of the ball is class 1,
and a linear readout separates them. The corner is adversarial by construction, so a working attack finds such a point;
random points do not, because the readout's threshold lies close to the corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlbench.audit.lab import Lab
from rlbench.core import Ball, registry
from rlbench.core.badges import Finding
from rlbench.core.errors import AttackError
from rlbench.core.seeds import ExampleStreams
from rlbench.core.threat import project
from rlbench.engine.attack.judge import attack_and_judge

EXAMPLES = 24
INNER = 48  # points of class 0: fewer than an embedding's dimensions, so that a readout exists
REACH = 0.9  # share of the radius that they fill
THRESHOLD = 0.75  # of the distance from the largest inner score to the corner's
FOUND = 0.95  # share of the planted points that the attack must find


@dataclass(frozen=True, eq=False)
class Readouts:
    """One two-class classifier per example: logits (0, scale * (w . embedding - b)), through the encoder's `answer`.

    Attributes:
        lab: with the encoder.
        weights: (M, D), the w.
        offsets: (M,), the b.
        batch_size: the most examples of a forward pass.
    """

    lab: Lab
    weights: Tensor
    offsets: Tensor
    batch_size: int

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(B, *shape) -> (B, 2)."""
        rows = torch.arange(len(x)) if rows is None else rows
        at = rows.to(self.weights.device)
        scores = (_embed(self.lab, x) * self.weights[at]).sum(1) - self.offsets[at]
        logits = self.lab.bench.classifier.logit_scale * torch.stack([torch.zeros_like(scores), scores], dim=1)
        answer = getattr(self.lab.bench.encoder, "answer", None)
        return answer(logits) if answer else logits


def _embed(lab: Lab, x: Tensor) -> Tensor:
    parts = torch.split(x, lab.bench.batch_size)
    return torch.cat([lab.bench.classifier.embed(part) for part in parts])


def _points(x: Tensor, ball: Ball, streams: ExampleStreams) -> Tensor:
    """(INNER + 1, *shape) points around x (1, *shape): x itself, INNER - 1 random points inside the ball, a corner."""
    inner = REACH * streams.child("inner").uniform((INNER, *x.shape[1:]))[0].to(x)
    inner[0] = 0
    corner = streams.child("corner").uniform(tuple(x.shape[1:])).to(x).sign()
    return project(x + ball.radius * torch.cat([inner, corner]), x, ball)


def _readout(inner: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Fisher's discriminant of (K, D) and (D,), scaled so that class 0's mean is at -1 of the threshold: w (D,), b."""
    mean = inner.mean(0)
    centred = (inner - mean).double()
    scatter = centred.T @ centred / len(inner)
    ridge = 1e-3 * scatter.diagonal().mean().clamp_min(1e-18)
    eye = torch.eye(len(scatter), dtype=torch.float64, device=scatter.device)
    w = torch.linalg.solve(scatter + ridge * eye, (corner - mean).double())
    scores, top = centred @ w, float((corner - mean).double() @ w)
    threshold = float(scores.max()) + THRESHOLD * (top - float(scores.max()))
    scale = 1 / max(abs(threshold), 1e-12)
    return (scale * w).float(), torch.tensor(scale * (threshold + float(mean.double() @ w)))


def _fit(lab: Lab, x: Tensor, streams: ExampleStreams) -> tuple[Readouts, Tensor]:
    """The readout of each example, and (M,) bool, whether the corner and no inner point is class 1."""
    weights, offsets, valid = [], [], []
    for row in range(len(x)):
        with torch.no_grad():
            points = _embed(lab, _points(x[row : row + 1], lab.ball, streams.take([row])))
        w, b = _readout(points[:-1], points[-1])
        scores = points @ w - b
        valid.append(bool(scores[-1] > 0) and bool((scores[:-1] < 0).all()))
        weights.append(w)
        offsets.append(b.to(w))
    size = lab.bench.batch_size
    return Readouts(lab, torch.stack(weights), torch.stack(offsets), size), torch.tensor(valid)


def s12(lab: Lab) -> Finding:
    """Runs pgd, and apgd-ce on what is left, on the planted two-class problems."""
    if lab.declares_randomness:
        return Finding(id="S12", status="skip", said="the encoder declares that it is randomised")
    if getattr(lab.bench.encoder, "needs_classes", False):
        return Finding(id="S12", status="skip", said="the defence acts on the task's classes, not on embeddings")
    x = lab.x[:EXAMPLES]
    streams = ExampleStreams(lab.bench.seed, lab.examples.ids[:EXAMPLES], "audit binarization")
    readouts, valid = _fit(lab, x, streams)
    rows = valid.nonzero()[:, 0]
    if len(rows) < len(x) / 2:
        text = f"only {len(rows)} of {len(x)} corners can be separated from the inside of the ball"
        return Finding(id="S12", status="skip", said=text)
    readouts = Readouts(lab, readouts.weights[rows], readouts.offsets[rows], readouts.batch_size)
    broken = torch.zeros(len(rows), dtype=torch.bool)
    for name in ("pgd", "apgd-ce"):
        left = (~broken).nonzero()[:, 0]
        part = Readouts(lab, readouts.weights[left], readouts.offsets[left], readouts.batch_size)
        try:
            broken[left] = _find_broken(part, name, x[rows[left]], lab, streams.take(rows[left].tolist()))
        except AttackError as error:
            return Finding(id="S12", status="fail", said=str(error))
    text = f"{int(broken.sum())} of {len(rows)} planted points were found"
    return Finding(id="S12", status="fail" if float(broken.float().mean()) < FOUND else "pass", said=text)


def _find_broken(readouts: Readouts, name: str, x: Tensor, lab: Lab, streams: ExampleStreams) -> Tensor:
    """(M,) bool, the examples of which an attack finds an adversarial point."""
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if not len(x):
        return y.bool().cpu()
    method = registry.make("attack", name)
    return ~attack_and_judge(method, readouts, x, y, lab.ball, streams).judgement.correct
