"""The built book and a page of it that is open in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"


@dataclass
class Visit:
    """An open page and everything that went wrong while it opened."""

    page: Any
    outside: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def settle(self) -> None:
        """Wait until the network is quiet and mathematics is typeset."""
        self.page.wait_for_load_state("load")
        self.page.evaluate("() => window.MathJax?.startup?.promise?.then(() => true)")


def open_page(browser: Any, base: str, name: str, *, settle: bool = True) -> Visit:
    """Open a page of the book with every outside request recorded and refused."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    visit = Visit(page)

    def guard(route: Any) -> None:
        url = route.request.url
        if url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            visit.outside.append(url)
            route.abort()

    context.route("**/*", guard)
    page.on("requestfailed", lambda request: visit.failed.append(f"{request.url} ({request.failure})"))
    page.on("response", lambda r: visit.failed.append(f"{r.url} ({r.status})") if r.status >= 400 else None)
    page.on("console", lambda m: visit.console.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: visit.console.append(str(error)))
    page.goto(f"{base}/{name}")
    if settle:
        visit.settle()
    return visit
