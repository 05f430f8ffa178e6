"""Where Chromium is on this machine, and how it starts without leaving it."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
#: Nothing but what it is asked for: no updates, no look-ups, no first-run pages.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--no-first-run",
    "--no-pings",
]
INSTALL = "apt-get install chromium (or another system's package of Chromium or Google Chrome)"
