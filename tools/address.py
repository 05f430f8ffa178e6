"""Write the project's public address, which stands in pyproject.toml, into everything that is made from it.

Call it as ``python tools/address.py https://github.com/owner/name``, or as ``make address URL=...``.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Until the address is known. No GitHub account can have this name.
PLACEHOLDER = "https://github.com/your_name_here/cl-teach"

ADDRESS = re.compile(r"https://github\.com/[\w-]+/[\w.-]*\w")


def current(root: Path = ROOT) -> str:
    """The address in pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def colab_link(address: str, notebook: str, branch: str = "main") -> str:
    """The Colab page of a notebook, given by its path in the repository."""
    slug = address.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{slug}/blob/{branch}/{notebook}"


def text_files(root: Path = ROOT) -> list[Path]:
    """The files besides notebooks that carry the address."""
    names = ["pyproject.toml", "_config.yml", "README.md", "CONTRIBUTING.md", "CITATION.cff"]
    return [root / n for n in names if (root / n).is_file()] + sorted((root / "book").glob("*.md"))


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every chapter and assignment."""
    return sorted(p for folder in ("chapters", "assignments") for p in (root / folder).rglob("*.ipynb"))


def forms(address: str) -> list[str]:
    """The two ways in which an address appears: whole, and behind Colab's own."""
    return [address, "colab.research.google.com/github/" + address.removeprefix("https://github.com/") + "/"]


def rewrite(root: Path, new: str) -> list[Path]:
    """Replace the old address by the new one everywhere; returns the files that changed."""
    old = current(root)
    pairs = list(zip(forms(old), forms(new), strict=True))
    changed = []
    for path in text_files(root):
        before = path.read_text(encoding="utf-8")
        after = before
        for a, b in pairs:
            after = re.sub(re.escape(a) + r"(?![\w-])" if not a.endswith("/") else re.escape(a), b, after)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    for path in notebooks(root):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        touched = False
        for cell in notebook["cells"]:
            lines = cell["source"] if isinstance(cell["source"], list) else cell["source"].splitlines(True)
            for i, line in enumerate(lines):
                fresh = line
                for a, b in pairs:
                    fresh = fresh.replace(a, b)
                touched = touched or fresh != line
                lines[i] = fresh
            cell["source"] = lines
        if touched:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            changed.append(path)
    return changed


def main(arguments: list[str]) -> None:
    """Command line."""
    if len(arguments) != 1:
        sys.exit("Say which: python tools/address.py https://github.com/owner/name")
    new = arguments[0].rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(new):
        sys.exit(f"The address must look like https://github.com/owner/name, got {arguments[0]!r}.")
    changed = rewrite(ROOT, new)
    for path in changed:
        print(f"  {path.relative_to(ROOT)}")
    print(f"{len(changed)} file(s) now say {new}.")


if __name__ == "__main__":
    main(sys.argv[1:])
