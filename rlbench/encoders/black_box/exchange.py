"""What is sent to a server and what comes back: the description, a batch of inputs, its answers; each one checked."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlbench.core import Box, Modality
from rlbench.core.documents import load_json
from rlbench.core.errors import AnswerError, FieldError, RLBenchError, quote
from rlbench.core.validation import check_fields
from rlbench.encoders.black_box.classes import check_classes

PROTOCOL = 1
LARGEST = 1e30  # of a score, which float32 can tell


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a server says of itself.

    Attributes:
        protocol: 1.
        modality, shape, low, high, unit, rate: the box of its inputs.
        answers: "scores" (N, C), larger is more likely, or "labels" (N,).
        classes: names, in the order of the scores; a label is an index.
        dtype: of the inputs that it takes: "float32" in [low, high], or "uint8", 0 to 255 for low to high.
        batch: the most inputs of a request.
        name, version: of the model. Change the version when its answers change, or old answers are used.
    """

    protocol: int
    modality: Modality
    shape: tuple[int, ...]
    answers: Literal["scores", "labels"]
    classes: tuple[str, ...]
    name: str = ""
    version: str = ""
    low: float = 0.0
    high: float = 1.0
    unit: str = "intensity"
    rate: int = 0
    dtype: Literal["float32", "uint8"] = "float32"
    batch: int = 64

    def __post_init__(self) -> None:
        if self.protocol != PROTOCOL:
            raise FieldError(f"protocol is {self.protocol}; this rlbench speaks {PROTOCOL}")
        if not 1 <= self.batch <= 2**16:
            raise FieldError(f"batch is {self.batch}; it must be 1 to 65536")
        check_classes(self.classes, "the description")

    @property
    def box(self) -> Box:
        """Of the inputs."""
        return Box(shape=self.shape, low=self.low, high=self.high, unit=self.unit, rate=self.rate)


def parse_description(data: bytes, url: str) -> Description:
    """The description in the answer to GET. Raises: RLBenchError: it is none, or a field is wrong."""
    try:
        values = load_json(data.decode())
        if not isinstance(values, dict):
            raise ValueError(f"it is {quote(values)}, not an object")
        return Description(**check_fields(Description, values, ""))  # type: ignore[arg-type]
    except (ValueError, RLBenchError) as error:
        raise RLBenchError(f"{url}: the description that it answers to GET can't be used: {error}") from None


def to_wire(x: np.ndarray, about: Description) -> np.ndarray:
    """(B, *shape) float32 in the box -> the inputs as they are sent, little-endian."""
    if about.dtype == "float32":
        return np.ascontiguousarray(x, dtype="<f4")
    unit = (x.astype(np.float64) - about.low) / (about.high - about.low)
    return np.clip(np.round(255 * unit), 0, 255).astype(np.uint8)


def to_request(inputs: np.ndarray) -> bytes:
    """The body of a POST: {"inputs": {"dtype", "shape": [N, ...], "data": base64}}."""
    data = base64.b64encode(inputs.tobytes()).decode("ascii")
    dtype = "uint8" if inputs.dtype == np.uint8 else "float32"
    return json.dumps({"inputs": {"dtype": dtype, "shape": list(inputs.shape), "data": data}}).encode()


def parse_answers(data: bytes, n: int, about: Description, url: str) -> np.ndarray:
    """(n, C) float64 scores or (n,) int64 labels.

    Raises: AnswerError: it is not JSON, or not one answer per input for the described classes.
    """
    try:
        values = load_json(data.decode())
    except ValueError as error:
        raise AnswerError(f"{url} answered what is no JSON: {error}") from None
    rows = values.get(about.answers) if isinstance(values, dict) else None
    if not isinstance(rows, list):
        raise AnswerError(f"{url} answered {quote(values)}; it must answer {{{about.answers!r}: [...]}}")
    if len(rows) != n:
        raise AnswerError(f"{url} gave {len(rows)} answers for {n} inputs")
    return _scores(rows, about, url) if about.answers == "scores" else _labels(rows, about, url)


def _scores(rows: list[Any], about: Description, url: str) -> np.ndarray:
    for row in rows:
        if not isinstance(row, list) or len(row) != len(about.classes):
            many = f"{len(row)} scores" if isinstance(row, list) else quote(row)
            raise AnswerError(f"{url} answered {many} for an input; it has {len(about.classes)} classes")
        if not all(type(one) in (int, float) and abs(one) < LARGEST for one in row):
            raise AnswerError(f"{url} answered a score that is not a number below {LARGEST:g}")
    return np.array(rows, dtype=np.float64)


def _labels(rows: list[Any], about: Description, url: str) -> np.ndarray:
    last = len(about.classes) - 1
    for one in rows:
        if type(one) is not int or not 0 <= one <= last:
            raise AnswerError(f"{url} answered the label {quote(one)}; labels are whole numbers, 0 to {last}")
    return np.array(rows, dtype=np.int64)
