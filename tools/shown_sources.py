"""Write the sources that chapters show as they are now: ``python tools/shown_sources.py``.

A cell that does nothing but ``show(...)`` has an output that follows from the package alone, so it need not wait until
the chapter is executed again.
"""

from __future__ import annotations

import ast
from typing import Any

import nbformat
from execute_chapters import CHAPTERS, find
from nbformat import NotebookNode

from cl_teach import files
from cl_teach.source import shown


def only_shows(code: str) -> list[ast.Call]:
    """The calls of `show` in a cell; none, if it does anything else."""
    calls = [statement.value for statement in ast.parse(code).body if isinstance(statement, ast.Expr)]
    fine = all(isinstance(call, ast.Call) and ast.unparse(call.func) == "show" for call in calls)
    return calls if fine and len(calls) == len(ast.parse(code).body) else []


def refresh(notebook: NotebookNode) -> list[int]:
    """Put current sources into the outputs of a notebook; returns the numbers of the cells that changed."""
    names: dict[str, Any] = {}
    changed = []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or "%pip" in cell.source:
            continue
        if "setup" in cell.metadata.get("tags", []):
            imports = [x for x in ast.parse(cell.source).body if isinstance(x, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), "imports", "exec"), names)
            continue
        for call, output in zip(only_shows(cell.source), cell.outputs, strict=False):
            try:
                data = eval(compile(ast.Expression(_as_shown(call)), "show", "eval"), names | {"shown": shown})
            except NameError:  # shows something that the chapter itself defines
                continue
            if output.data != data:
                output.data = nbformat.from_dict(data)
                changed.append(index)
    return changed


def _as_shown(call: ast.Call) -> ast.Call:
    function = ast.copy_location(ast.Name("shown", ast.Load()), call)
    return ast.copy_location(ast.Call(function, call.args, call.keywords), call)


def main() -> None:
    """Every chapter."""
    for path in find([]):
        notebook = nbformat.read(path, as_version=4)
        if changed := refresh(notebook):
            text = nbformat.writes(notebook)
            files.write_text(path, text if text.endswith("\n") else text + "\n")
            print(f"{path.relative_to(CHAPTERS)}: cells {', '.join(map(str, changed))}")


if __name__ == "__main__":
    main()
