"""Show the source of what a chapter calls: equation and code stand side by side and cannot drift apart."""

from __future__ import annotations

import ast
import functools
import html
import inspect
import textwrap
from types import ModuleType


def show(obj: object, *more: object, docstring: bool = False, fold_over: int = 30) -> None:
    """Display the source of functions, methods, classes or modules, highlighted and folded where long.

    In Jupyter, Colab and the book this is Markdown output with a Python fence; outside of IPython it is
    printed.

    Args:
        obj: a function, method, property, class or module written in Python.
        *more: further ones, shown one after the other.
        docstring: True keeps the docstrings. The chapter's text says what they say, so they are left out
            otherwise.
        fold_over: source with more lines than this is folded into `<details>`.

    Raises:
        TypeError: obj has no Python source (a built-in, an instance), or fold_over is no integer.
        ValueError: fold_over is negative.
    """
    data = shown(obj, *more, docstring=docstring, fold_over=fold_over)
    if not _in_ipython():
        print(data["text/plain"], end="")
        return
    from IPython.display import display

    display(data, raw=True)


def shown(obj: object, *more: object, docstring: bool = False, fold_over: int = 30) -> dict[str, str]:
    """What `show` displays, by MIME type; the arguments are those of `show`."""
    if isinstance(fold_over, bool) or not isinstance(fold_over, int):
        raise TypeError(f"fold_over: expected an integer, got {fold_over!r}")
    if fold_over < 0:
        raise ValueError(f"fold_over: expected at least 0, got {fold_over}")
    code = [source(item, docstring=docstring) for item in (obj, *more)]
    blocks = [_markdown(item, text, fold_over) for item, text in zip((obj, *more), code, strict=True)]
    return {"text/markdown": "\n".join(blocks), "text/plain": "\n".join(code)}


def source(obj: object, *, docstring: bool = False) -> str:
    """The text that `show` displays: a comment with the file, then the dedented source, with a final newline.

    Args:
        obj: a function, method, property, class or module written in Python.
        docstring: True keeps the docstrings.

    Raises:
        TypeError: obj has no Python source.
    """
    target = _unwrap(obj)
    try:
        text = inspect.getsource(target)  # type: ignore[arg-type]
    except (TypeError, OSError):
        what = f"{obj!r:.80}"
        raise TypeError(
            f"obj: expected a function, method, class or module written in Python, got {what} "
            f"({type(obj).__name__}), which has no Python source"
        ) from None
    text = textwrap.dedent(text)
    if not docstring:
        text = _without_docstrings(text)
    return f"# {_location(target)}\n{text.strip(chr(10))}\n"


def _unwrap(obj: object) -> object:
    """The thing whose source is meant: a property's getter, a decorated function's inside."""
    if isinstance(obj, property):
        obj = obj.fget
    elif isinstance(obj, functools.cached_property):
        obj = obj.func
    return inspect.unwrap(obj) if callable(obj) else obj


def _location(obj: object) -> str:
    """Path of the file inside its package, such as cl_teach/core/contrast.py."""
    module = obj if isinstance(obj, ModuleType) else inspect.getmodule(obj)
    if module is None or module.__name__ == "__main__":
        return "this notebook" if _in_ipython() else "this file"
    path = module.__name__.replace(".", "/")
    return f"{path}/__init__.py" if hasattr(module, "__path__") else f"{path}.py"


def _without_docstrings(text: str) -> str:
    """Cut the lines of all docstrings, of nested classes and functions too.

    By line numbers of the syntax tree, because `ast.unparse` would lose the comments.
    """
    lines = text.splitlines()
    drop: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        doc = node.body[0]
        first, last = doc.lineno - 1, (doc.end_lineno or doc.lineno) - 1
        before, after = lines[first][: doc.col_offset], lines[last].encode()[doc.end_col_offset :].decode()
        if before.strip() or after.strip().startswith(";"):
            continue  # shares its line with code, as in `def f(): "doc"`
        if len(node.body) == 1 and not isinstance(node, ast.Module):
            lines[first] = before + "..."  # something must remain for the syntax to hold
            drop.update(range(first + 1, last + 1))
            continue
        drop.update(range(first, last + 1))
        follow = last + 1
        while follow < len(lines) and not lines[follow].strip():
            drop.add(follow)
            follow += 1
    return "\n".join(line for number, line in enumerate(lines) if number not in drop)


def _markdown(obj: object, code: str, fold_over: int) -> str:
    fence = "```"
    while fence in code:
        fence += "`"
    block = f"{fence}python\n{code}{fence}\n"
    location, text = code.split("\n", 1)
    count = text.count("\n")
    if count <= fold_over:
        return block
    name = getattr(_unwrap(obj), "__qualname__", getattr(obj, "__name__", "source"))
    summary = f"<code>{html.escape(name)}</code>: {count} lines of {html.escape(location[2:])}"
    # Blank lines around the fence: without them CommonMark takes it for part of the HTML block.
    return f"<details><summary>{summary}</summary>\n\n{block}\n</details>\n"


def _in_ipython() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None
