"""An ONNX file in onnxruntime: its inputs and outputs checked against what is declared, then run in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlbench.core.errors import AnswerError, CheckpointError, RLBenchError, first_line

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


@dataclass(frozen=True, eq=False)
class Session:
    """A model that is ready to run.

    Attributes:
        path: of the file.
        session: onnxruntime's.
        dtypes: of each input.
        output: the name of the output to return.
        batch: the number of rows that the file is fixed to; 0 for any.
    """

    path: Path
    session: Any
    dtypes: Mapping[str, Any]
    output: str
    batch: int

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, D) float32 from inputs with N rows each, cast to the file's dtypes. Raises: AnswerError."""
        n = len(next(iter(inputs.values())))
        size, parts = self.batch or max(n, 1), []
        for first in range(0, n, size):
            rows = {name: value[first : first + size] for name, value in inputs.items()}
            parts.append(self._run(rows, min(size, n - first)))
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    def _run(self, rows: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        spare = self.batch - n if self.batch else 0  # a fixed batch is filled with the first row
        filled = {
            name: np.concatenate([value, np.repeat(value[:1], spare, 0)]) if spare else value
            for name, value in rows.items()
        }
        cast = {name: np.ascontiguousarray(value, self.dtypes[name]) for name, value in filled.items()}
        try:
            found = np.asarray(self.session.run([self.output], cast)[0])
        except Exception as error:  # onnxruntime has no base class of errors
            raise AnswerError(f"{self.path.name} fails: {first_line(error)}") from error
        if found.ndim != 2 or len(found) != n + spare or found.dtype.kind != "f":
            raise AnswerError(
                f"{self.path.name}: the output {self.output} is {found.shape} {found.dtype} for {n + spare} inputs; it "
                f"must be ({n + spare}, D) floats"
            )
        return found[:n].astype(np.float32)


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RLBenchError(
            f"onnxruntime can't be imported ({first_line(error)}); run: pip install 'rlbind-bench[onnx]'"
        ) from error
    return onnxruntime


def open_session(path: Path, inputs: Mapping[str, tuple[int, ...]], output: str, providers: Sequence[str]) -> Session:
    """Opens a file.

    Args:
        path: of the file.
        inputs: the names of its inputs, with the shape of one row.
        output: the name of an output (N, D).
        providers: onnxruntime's, in the order of preference.

    Raises:
        RLBenchError: onnxruntime is not installed, or lacks a provider.
        CheckpointError: the file can't be loaded, or has other inputs or outputs.
    """
    library = _library()
    missing = [name for name in providers if name not in library.get_available_providers()]
    if missing:
        there = ", ".join(library.get_available_providers())
        raise RLBenchError(f"onnxruntime has no provider {missing[0]!r} here; providers may be {there}")
    options = library.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        session = library.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime has no base class of errors
        raise CheckpointError(f"{path} can't be loaded: {first_line(error)}") from error
    if (first := session.get_providers()[0]) != providers[0]:
        raise RLBenchError(f"onnxruntime can't start the provider {providers[0]!r} and would use {first} instead")
    batch = _check_inputs(path, session, inputs)
    outputs = [one.name for one in session.get_outputs()]
    if output not in outputs:
        raise CheckpointError(f"{path} has the outputs {', '.join(outputs)}; onnx.yaml declares {output}")
    return Session(path, session, {one.name: _DTYPES[one.type] for one in session.get_inputs()}, output, batch)


def _check_inputs(path: Path, session: Any, inputs: Mapping[str, tuple[int, ...]]) -> int:
    """The fixed number of rows, or 0. Raises: CheckpointError."""
    found = {one.name: one for one in session.get_inputs()}
    if set(found) != set(inputs):
        raise CheckpointError(
            f"{path} has the inputs {', '.join(sorted(found))}; onnx.yaml declares {', '.join(sorted(inputs))}: export "
            "one model per file, and name all of its inputs"
        )
    batch = 0
    for name, one in found.items():
        wanted = inputs[name]
        fits = len(one.shape) == 1 + len(wanted) and all(
            not isinstance(size, int) or size == want for size, want in zip(one.shape[1:], wanted, strict=True)
        )
        if one.type not in _DTYPES or not fits:
            sizes = ", ".join(map(str, one.shape))
            raise CheckpointError(
                f"{path}: the input {name} is ({sizes}) {one.type}; onnx.yaml declares (N, {_list(wanted)})"
            )
        batch = one.shape[0] if isinstance(one.shape[0], int) else batch
    return batch


def _list(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
