"""Black boxes for tests: a local server in a thread, whose answers a test may spoil, and folders of ONNX files."""

from __future__ import annotations

import http.server
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from rlbench.encoders.black_box.classes import WithoutPrompts, scores_of_labels
from rlbench.encoders.linear import BOX, PLACES, weights

_spec = importlib.util.spec_from_file_location("http_server", Path(__file__).parents[1] / "examples" / "http_server.py")
assert _spec is not None and _spec.loader is not None
http_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(http_server)

W = weights().numpy().astype(np.float64)


def linear_scores(x: np.ndarray) -> np.ndarray:
    """The linear oracle's logits over 100, (N, 4)."""
    return (x.reshape(len(x), -1).astype(np.float64) - 0.5) @ W.T


@dataclass
class Served:
    """A running server.

    Attributes:
        url: of it.
        label: what it answers, "scores" or "labels".
        inputs: the number that it was sent.
        spoil: changes the bytes of an answer, or returns None to answer with status 500.
    """

    url: str
    label: str = "scores"
    inputs: int = 0
    requests: int = 0
    batches: list[int] = field(default_factory=list)
    spoil: Any = None
    delay: float = 0.0


class LinearBox(WithoutPrompts):
    """The linear oracle in this process, as a black box with fixed classes."""

    boxes: ClassVar[Any] = {"image": BOX}
    traits: ClassVar[Any] = frozenset({"non_differentiable"})
    sha256: ClassVar[Any] = {}
    classes = tuple(f"blob in the {place}" for place in PLACES)

    def __init__(self, knowledge: str) -> None:
        self.knowledge = knowledge

    def classify(self, x: Tensor, modality: str) -> Tensor:
        scores = torch.from_numpy(100 * linear_scores(x.numpy())).float()
        return scores if self.knowledge == "score" else scores_of_labels(scores.argmax(1), 4)


def make_score_box() -> LinearBox:
    return LinearBox("score")


def make_label_box() -> LinearBox:
    return LinearBox("label")


def describe(answers: str = "scores", **changes: object) -> dict[str, Any]:
    """The description of the linear oracle."""
    about: dict[str, Any] = {"protocol": 1, "modality": "image", "shape": [1, 8, 8], "answers": answers}
    return about | {"classes": list(LinearBox.classes), "name": "linear", "version": "1"} | changes


@contextmanager
def serve(about: dict[str, Any] | None = None, port: int = 0) -> Iterator[Served]:
    """The linear oracle behind the reference server."""
    about = about or describe()
    served = Served("", about["answers"])

    def classify(x: np.ndarray) -> np.ndarray:
        served.inputs, served.requests = served.inputs + len(x), served.requests + 1
        served.batches.append(len(x))
        threading.Event().wait(served.delay)
        x = x / 255 if x.dtype == np.uint8 else x
        scores = linear_scores(x)
        return scores if about["answers"] == "scores" else scores.argmax(1)

    server = http_server.make_server(about, classify, port)
    whole = server.RequestHandlerClass.reply

    def reply(handler: Any, status: int, values: object) -> None:
        data = None if served.spoil is None else served.spoil(json.dumps(values))
        if served.spoil is None:
            whole(handler, status, values)
            return
        handler.send(500 if data is None else 200, (data or "").encode())

    server.RequestHandlerClass.reply = reply
    server.daemon_threads = False  # `server_close` waits for the answers that nobody reads any more
    errors: list[BaseException | None] = []
    server.handle_error = lambda *request: errors.append(sys.exc_info()[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
    assert not errors, errors


def export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    name: str = "pixels",
    output: str = "features",
    fixed: bool = False,
) -> None:
    """Writes a torch module as an ONNX file with a batch of any size, or of the example's."""
    import warnings

    shapes = None if fixed else ({0: torch.export.Dim("batch", min=1, max=4096)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            model,
            (example,),
            str(path),
            input_names=[name],
            output_names=[output],
            dynamic_shapes=shapes,
            verbose=False,
        )


def write_folder(folder: Path, shape: Sequence[int], **changes: object) -> Path:
    """`onnx.yaml` for `vision.onnx` with the input `pixels` and the output `features`."""
    about: dict[str, Any] = {"modality": "image", "shape": list(shape)}
    about |= {"vision": {"file": "vision.onnx", "input": "pixels", "output": "features"}} | changes
    (folder / "onnx.yaml").write_text(yaml.safe_dump({k: v for k, v in about.items() if v is not None}))
    return folder


def write_graph(path: Path, inputs: Sequence[Any], nodes: Sequence[Any], weights: dict[str, np.ndarray]) -> None:
    """Writes an ONNX file with the output `features` (N, 6)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 6])
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), [output], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, str(path))


def write_vision(path: Path, w: Tensor, batch: int | None = None) -> None:
    """x (N, 3, 8, 8), called `pixels`, -> 3 tanh(x w)."""
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch or "n", 3, 8, 8])
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Tanh", ["z"], ["t"]),
        helper.make_node("Mul", ["t", "three"], ["features"]),
    ]
    write_graph(path, [x], nodes, {"w": w.numpy(), "three": np.array(3, np.float32)})


def write_words(path: Path, table: Tensor) -> None:
    """ids (N, 5) int64 -> the mean of the rows of the table whose ids are not 0."""
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Greater", ["ids", "zero"], ["some"]),
        helper.make_node("Cast", ["some"], ["flat_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat_mask", "last"], ["mask"]),
        helper.make_node("Mul", ["rows", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["features"]),
    ]
    numbers = {"zero": np.array(0), "last": np.array([2]), "one": np.array([1])}
    write_graph(path, [x], nodes, {"table": table.numpy(), **numbers})


@contextmanager
def answer_once(status: int, name: str, value: str) -> Iterator[str]:
    """The URL of a server that gives one answer, with this status and header."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"\x1f\x8b")

        def log_message(self, format: str, *arguments: object) -> None:
            """Logs nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
