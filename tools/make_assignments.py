"""Make the assignments from their masters: student version, autograder archive, solution (``make assignments``).

A master is a plain text in ``assignments/<name>.py`` (percent format, with Otter's markers). From it come

- ``assignments/student/<name>/``: the notebook without solutions and the public tests, kept in the repository, from
  where the notebook's first cell fetches them in Colab;
- ``_build/assignments/<name>-autograder.zip``: for Gradescope, or for ``otter run`` on the teacher's machine;
- ``_build/assignments/<name>-solution.ipynb``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from address import current

ROOT = Path(__file__).resolve().parent.parent
MASTERS = ROOT / "assignments"
STUDENT, BUILD = MASTERS / "student", ROOT / "_build" / "assignments"

# The same for all assignments. Tests raise exceptions and lie in files: results parsed from stored outputs break when
# outputs are stripped, and Colab drops what is stored in a notebook's metadata. The requirements are what Gradescope's
# container installs beside the grader: hidden tests compare with the book's package.
CONFIGURATION = """\
# ASSIGNMENT CONFIG
name: {name}
init_cell: false
export_cell: false
python_version: 3.11
tests:
    files: true
    ok_format: false
requirements:
    - {torch}
    - cl-teach @ {address}/archive/refs/heads/main.zip
generate:
    pdf: false
    show_hidden: true
    show_stdout: true\
"""

FIRST_CELL = """\
import os

if not os.path.isdir("tests"):  # in Colab: bring the public tests, the book's package and the grader
    !git clone --quiet --depth 1 {address} cl_teach_repository
    !cp -r cl_teach_repository/assignments/student/{name}/tests .
    %pip install -q --no-deps ./cl_teach_repository
    import numpy

    %pip install -q {otter} "numpy=={{numpy.__version__}}"  # whatever else comes, the numerics stay as they are

import math

import otter
import torch

grader = otter.Notebook("{name}.ipynb")\
"""


def pin(package: str) -> str:
    """A pinned line of requirements.txt, so that students and graders get what the tests ran with."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return next(line.strip() for line in lines if line.startswith(f"{package}=="))


def names() -> list[str]:
    """The assignments there are."""
    return sorted(path.stem for path in MASTERS.glob("*.py"))


def master_notebook(name: str) -> nbformat.NotebookNode:
    """The master with its first code cell, as Otter wants it."""
    notebook = jupytext.read(MASTERS / f"{name}.py")
    first = nbformat.v4.new_code_cell(FIRST_CELL.format(address=current(), name=name, otter=pin("otter-grader")))
    notebook.cells.insert(1, first)  # after the introduction
    for cell in notebook.cells:
        if cell.cell_type == "raw":  # reading took the comment signs away, by which Otter knows its markers
            cell["source"] = f"# {cell['source']}"
    configuration = CONFIGURATION.format(name=name, torch=pin("torch"), address=current())
    notebook.cells.insert(0, nbformat.v4.new_raw_cell(configuration))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def make(name: str, student: Path, build: Path) -> None:
    """Write the three versions of one assignment into these folders."""
    with tempfile.TemporaryDirectory() as folder:
        master = Path(folder) / f"{name}.ipynb"
        nbformat.write(master_notebook(name), master)
        command = [sys.executable, "-m", "otter", "assign", str(master), f"{folder}/out", "--no-pdfs", "--no-run-tests"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"otter assign failed on assignments/{name}.py:\n{done.stdout}{done.stderr}")
        out = Path(folder) / "out"
        shutil.rmtree(student / name, ignore_errors=True)
        shutil.copytree(out / "student", student / name)
        number_cells(student / name / f"{name}.ipynb")
        build.mkdir(parents=True, exist_ok=True)
        shutil.copy(next((out / "autograder").glob("*.zip")), build / f"{name}-autograder.zip")
        shutil.copy(out / "autograder" / f"{name}.ipynb", build / f"{name}-solution.ipynb")


def number_cells(path: Path) -> None:
    """Give cells names that do not change from one call to the next."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
    nbformat.write(notebook, path)


def main() -> int:
    """Make all assignments."""
    for name in names():
        make(name, STUDENT, BUILD)
        print(f"{name}: assignments/student/{name}/ and _build/assignments/{name}-autograder.zip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
