"""A server for `rlbench run --model http://localhost:8000`, in one file: the standard library and numpy.

    python examples/http_server.py my_module:make --port 8000

`make()` returns a description and a function that classifies: inputs (N, *shape) -> scores (N, C) or labels (N,), as
the description's "answers" says. The protocol is in `rlbench.encoders.http`. Without MODULE:CALLABLE it serves a toy
model of two classes.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Classify = Callable[[np.ndarray], np.ndarray]


def toy() -> tuple[dict[str, Any], Classify]:
    """Grey pictures of 8 x 8 pixels: is the upper or the lower half brighter?"""
    about = {"protocol": 1, "modality": "image", "shape": [1, 8, 8], "answers": "scores", "classes": ["upper", "lower"]}

    def classify(x: np.ndarray) -> np.ndarray:
        return np.stack([x[:, 0, :4].mean((1, 2)), x[:, 0, 4:].mean((1, 2))], axis=1)

    return {**about, "name": "toy", "version": "1"}, classify


def read_inputs(body: bytes) -> np.ndarray:
    """The inputs (N, *shape) of a request. Raises: ValueError, KeyError, TypeError: the request is wrong."""
    inputs = json.loads(body)["inputs"]
    dtype = {"float32": "<f4", "uint8": "u1"}[inputs["dtype"]]
    return np.frombuffer(base64.b64decode(inputs["data"], validate=True), dtype).reshape(inputs["shape"])


def make_server(about: dict[str, Any], classify: Classify, port: int = 8000) -> ThreadingHTTPServer:
    """A server on this machine; port 0 takes a free one. `serve_forever()` starts it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, about)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                inputs = read_inputs(body)
            except (ValueError, KeyError, TypeError) as error:
                self.reply(400, {"error": f"{type(error).__name__}: {error}"})
                return
            self.reply(200, {about["answers"]: classify(inputs).tolist()})

        def reply(self, status: int, values: object) -> None:
            self.send(status, json.dumps(values).encode())

        def send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            try:
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait for the answer

        def log_message(self, format: str, *arguments: object) -> None:
            """Logs nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("make", nargs="?", metavar="MODULE:CALLABLE", help="makes the description and the classifier")
    parser.add_argument("--port", type=int, default=8000)
    chosen = parser.parse_args()
    make = toy
    if chosen.make:
        sys.path.insert(0, ".")
        module, _, name = chosen.make.partition(":")
        make = getattr(importlib.import_module(module), name)
    server = make_server(*make(), chosen.port)
    sys.stderr.write(f"serving http://127.0.0.1:{server.server_port}\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
