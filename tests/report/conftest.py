"""A browser for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[dev]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file, and checks at the end that the console has no error and that only files were requested."""
    messages: list[str] = []
    asked: set[str] = set()
    opened: set[str] = set()
    pages = []

    def go(file: Path, **options: Any) -> Any:
        one = browser.new_page(**options)
        pages.append(one)
        one.set_default_timeout(20_000)
        one.on("console", lambda message: messages.append(message.text))
        one.on("pageerror", lambda error: messages.append(str(error)))
        one.on("request", lambda request: asked.add(request.url))
        one.goto(file.as_uri())
        opened.add(file.as_uri())
        return one

    yield go
    for one in pages:
        one.close()
    assert messages == [] and {url for url in asked if not url.startswith("data:")} == opened
