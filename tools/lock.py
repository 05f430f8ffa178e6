"""Write requirements.txt: the direct requirements and what they bring, each pinned to what is installed.

Run it with ``make lock`` after changing `DIRECT` and installing by hand what it names. The CUDA packages stay
out: torch brings those that fit the machine by itself.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent

#: What the project itself calls, by purpose.
DIRECT: dict[str, tuple[str, ...]] = {
    "cl_teach and its chapters": (
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "tqdm",
        "rjsmin",
        "ipywidgets",
        "Pygments",
    ),
    "running notebooks": ("ipykernel", "jupyter-client", "nbclient", "nbconvert", "nbformat", "zopfli"),
    "the book": ("jupyter-book", "sphinx-exercise", "sphinx-proof", "sphinxcontrib-bibtex"),
    "the book as a PDF and as slides": ("beautifulsoup4", "pikepdf", "markdown-it-py", "mdit-py-plugins", "jinja2"),
    "tests": ("pytest", "pytest-xdist", "hypothesis", "nbval", "playwright", "axe-playwright-python", "pypdf"),
    "assignments": ("otter-grader", "jupytext"),
    "style, types, spelling": ("ruff", "mypy", "codespell"),
    "installing cl_teach itself": ("setuptools", "wheel"),
}

#: Left to torch, which asks for them only where there is a GPU for them.
LEFT_OUT = re.compile(r"^(nvidia-|cuda-|triton$)")

HEADER = """\
# What `make book`, `make test` and `make chapters` install into .venv: every package pinned.
# Written by `make lock` (tools/lock.py) from the versions installed in .venv; change it there, not here.
# cl_teach itself asks for lower bounds only: see pyproject.toml.
"""


def canonical(name: str) -> str:
    """Spell a package name the way registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: list[str]) -> dict[str, str]:
    """Follow the requirements of `names` on this machine; returns canonical name -> installed version."""
    found: dict[str, str] = {}
    todo: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        key = canonical(name)
        if (key, extras) in seen or LEFT_OUT.match(key):
            continue
        seen.add((key, extras))
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is required but not installed in .venv: install it, then call `make lock` again.")
        found[key] = dist.version
        for text in dist.requires or []:
            requirement = Requirement(text)
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}
            )
            if wanted:
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found


def main() -> None:
    """Write requirements.txt."""
    direct = [name for names in DIRECT.values() for name in names]
    versions = closure(direct)
    lines = [HEADER]
    for purpose, names in DIRECT.items():
        lines.append(f"# {purpose}")
        lines += [f"{canonical(name)}=={versions.pop(canonical(name))}" for name in names]
        lines.append("")
    lines.append("# what those bring with them")
    lines += [f"{name}=={version}" for name, version in sorted(versions.items())]
    (ROOT / "requirements.txt").write_text("\n".join(lines) + "\n")
    print(f"requirements.txt: {len(direct)} direct requirements, {len(versions)} that they bring.")


if __name__ == "__main__":
    main()
