"""A browser that may not leave this machine, and the built book served to it in two ways."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import ARGUMENTS, CHROMIUM, INSTALL
from visits import HTML


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all tests of a page follow one another, so that every page is opened once."""
    items.sort(key=lambda item: str(getattr(getattr(item, "callspec", None), "params", {}).get("visit", "")))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps silent."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="session")
def html() -> Path:
    """The built book."""
    if not (HTML / "index.html").is_file():
        pytest.fail("There is no built book in _build/html. Call `make book` first.")
    return HTML


@pytest.fixture(scope="session")
def server(html: Path) -> Iterator[str]:
    """The address of a server for the built book."""
    handler = functools.partial(QuietHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once a worker."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="install it with `make book`")
    if CHROMIUM is None:
        pytest.skip(f"The browser tests need Chromium: {INSTALL}.")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()
