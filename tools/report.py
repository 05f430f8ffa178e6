"""File an issue on GitHub from a workflow that failed; called by ``make report TITLE=...``.

Reads what GitHub Actions sets: ``GITHUB_API_URL``, ``GITHUB_SERVER_URL``, ``GITHUB_REPOSITORY``, ``GITHUB_RUN_ID``, and
``GITHUB_TOKEN``, which the workflow hands over. An open issue of the same title gets a comment instead of a twin.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any

NEEDED = ("GITHUB_API_URL", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_TOKEN")


def call(method: str, path: str, content: dict[str, str] | None = None) -> Any:
    """One request to the API of the repository."""
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}",
        data=None if content is None else json.dumps(content).encode(),
        method=method,
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def report(title: str) -> str:
    """Open an issue, or comment on the open one; returns its address."""
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format(**os.environ)
    body = {"body": f"It failed here: {run}"}
    for issue in call("GET", "issues?state=open&per_page=100"):
        if issue["title"] == title:
            call("POST", f"issues/{issue['number']}/comments", body)
            return issue["html_url"]
    return call("POST", "issues", {"title": title, **body})["html_url"]


def main() -> int:
    """Report the title given on the command line."""
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        print(f"make report works inside a workflow of GitHub Actions; not set: {', '.join(missing)}", file=sys.stderr)
        return 1
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        print('Say what failed: make report TITLE="A chapter fails in Colab"', file=sys.stderr)
        return 1
    print(report(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
