"""The takeover certificate: what a fused model gets right whatever any one of its sensors says, without an attack.

A lower bound on the accuracy under any attack on one sensor, or fault of it, of any size: it may replace the sensor's
embedding by any unit vector.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from rlbench.core.errors import FieldError
from rlbench.encoders.fused import Fused
from rlbench.encoders.heads import ZeroShot

_CHANGING = frozenset({"randomised", "dynamic", "stateful"})  # traits of encoders whose answers change


@runtime_checkable
class Certified(Protocol):
    """What a fusion adds if it can prove that no change of one sensor alters an answer."""

    def certify(self, logits: Tensor, y: Tensor, reach: Tensor) -> Tensor:
        """Which examples stay correct whatever any one sensor says.

        Args:
            logits: (M, N, C) clean answers.
            y: (N,) int64 labels.
            reach: (C, C), see `find_reach`.

        Returns:
            (N,) bool; False also within rounding.
        """


def find_reach(anchors: Tensor, scale: float) -> Tensor:
    """By how much the logit of class t can exceed that of class y, at most: scale * |A_y - A_t|.

    An embedding is a unit vector u, so scale * u . (A_t - A_y) is at most this, for u along A_t - A_y.

    Args:
        anchors: (C, D) unit rows.
        scale: of the logits.

    Returns:
        (C, C) float64, symmetric.
    """
    rows = anchors.double()
    reach: Tensor = scale * (rows[:, None] - rows).norm(dim=2)
    return reach


def find_obstacle(classifier: Fused) -> str:
    """Why a classifier has no takeover certificate; "" if it has one."""
    if not isinstance(classifier.fusion, Certified):
        return f"fusion {type(classifier.fusion).__name__} has no certificate; choose sum, mean, median or majority"
    if changing := classifier.encoder.traits & _CHANGING:
        return f"the encoder is {', '.join(sorted(changing))}; the certificate is for answers that do not change"
    for sensor, head in classifier.heads.items():
        own = [name for name in ("answer", "predict") if hasattr(head.encoder, name)]
        if sensor not in classifier.missing and (type(head) is not ZeroShot or own):
            return f"{sensor}: the certificate is for zero-shot logits of one embedding, without a defence"
    return ""


def certify_takeover(classifier: Fused, x: Tensor, y: Tensor) -> Tensor:
    """Which examples stay right whatever any one sensor says.

    Args:
        classifier: of several sensors, with a fusion that has a certificate: sum, mean, median or majority.
        x: (N, D) in the joint box.
        y: (N,) int64 labels.

    Returns:
        (N,) bool.

    Raises:
        FieldError: the fusion has no certificate, or a sensor's logits are not those of one embedding.
    """
    if obstacle := find_obstacle(classifier):
        raise FieldError(obstacle)
    heads = [classifier.heads[sensor] for sensor in classifier.present]
    with torch.no_grad():
        logits = torch.stack([classifier.classify(x, sensor) for sensor in classifier.present])
    # Sensors may have prompts of their own; the largest reach holds for each of them.
    reach = torch.stack([find_reach(head.anchors, head.logit_scale) for head in heads]).amax(0)
    return cast(Certified, classifier.fusion).certify(logits, y, reach)
