"""HTTP requests with a time limit, retries with growing pauses, and a limit of an answer's size."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlbench.core.errors import AnswerError, first_line, quote

SIZE = 2**28  # the most bytes of an answer
LONGEST = 120.0  # the most seconds of a pause that a server may ask for
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another try may help


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: another host must not get the inputs or the token."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Transport:
    """Sends requests to one URL.

    Attributes:
        url: of the server.
        timeout: seconds to wait for an answer.
        retries: further tries after a failure that another try may mend.
        pause: seconds before the first of them; it doubles each time, and is longer where the server asks for that.
    """

    url: str
    timeout: float = 30.0
    retries: int = 3
    pause: float = 0.5

    def get(self) -> bytes:
        """The answer to GET. Raises: AnswerError."""
        return self._send(None, lambda: None)

    def post(self, body: bytes, book: Callable[[], None]) -> bytes:
        """The answer to POST; `book` is called before every try, and may raise. Raises: AnswerError."""
        return self._send(body, book)

    def _send(self, body: bytes | None, book: Callable[[], None]) -> bytes:
        for k in range(self.retries + 1):
            book()
            asked = 0.0
            try:
                return self._try(body)
            except urllib.error.HTTPError as error:
                said, final = f"answered with status {error.code} {error.reason}", error.code not in AGAIN
                asked = _read_pause(error.headers.get("Retry-After", ""))
                if goal := error.headers.get("Location"):
                    said += f", a redirect to {quote(goal)}, which is not followed; give that URL"
                error.close()
            except TimeoutError:
                said, final = f"gave no answer within {self.timeout:g} s", False
            except (OSError, http.client.HTTPException, ValueError) as error:
                cause = getattr(error, "reason", error)
                late = isinstance(cause, TimeoutError)
                said = f"gave no answer within {self.timeout:g} s" if late else f"can't be asked: {_explain(cause)}"
                final = isinstance(error, ValueError)
            if final or k == self.retries:
                times = f" ({k + 1} tries)" if k else ""
                raise AnswerError(f"{self.url} {said}{times}")
            time.sleep(max(asked, self.pause * 2**k))
        raise AssertionError("unreachable")

    def _try(self, body: bytes | None) -> bytes:
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        if token := os.environ.get("RLBENCH_HTTP_TOKEN"):
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.url, body, headers)
        with urllib.request.build_opener(_Stay).open(request, timeout=self.timeout) as answer:
            data: bytes = _read_until(answer, time.monotonic() + self.timeout)
            if (coding := answer.headers.get("Content-Encoding", "identity")) != "identity":
                raise ValueError(f"its answer is compressed ({quote(coding)}); turn the server's compression off")
        return data


def _read_pause(text: str) -> float:
    """The seconds of a header Retry-After, at most LONGEST; 0 for a date or none."""
    return min(float(text), LONGEST) if text.strip().isdecimal() else 0.0


def _read_until(answer: Any, end: float) -> bytes:
    """The body.

    Raises:
        TimeoutError: it takes too long.
        ConnectionError: the connection was cut before its end.
        ValueError: it is too large.
    """
    parts, size = list[bytes](), 0
    while part := answer.read1(2**16):
        parts.append(part)
        size += len(part)
        if size > SIZE:
            raise ValueError(f"its answer has more than {SIZE:,} bytes")
        if time.monotonic() > end:
            raise TimeoutError
    if missing := answer.length:  # by Content-Length; read1 does not compare
        raise ConnectionError(f"its answer was cut off, {missing:,} bytes before the end")
    return b"".join(parts)


def _explain(error: object) -> str:
    if isinstance(error, BaseException):
        return getattr(error, "strerror", None) or first_line(error)
    return str(error)
