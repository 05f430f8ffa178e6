"""Execute chapters and store their outputs, several at a time.

``python tools/execute_chapters.py`` runs all of them, ``... 1_foundations/01_learning_by_comparison`` one.
Every notebook runs in its own folder with fixed seeds for hashing, no progress bars, and its share of cores.
What is stored has no times, no widget states, sequential execution counts, and pictures of few bytes (`pictures`).
``--compress`` makes the pictures of stored chapters smaller and runs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pictures
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from cl_teach import files

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA_KEPT = {"tags", "mystnb"}
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def find(names: list[str]) -> list[Path]:
    """Turn what the user wrote into paths; no name means every chapter."""
    if not names:
        return sorted(p for p in CHAPTERS.glob("*/*.ipynb"))
    paths = []
    for name in names:
        stem = name.removeprefix("chapters/").removesuffix(".ipynb")
        path = CHAPTERS / f"{stem}.ipynb"
        if not path.is_file():
            known = ", ".join(str(p.relative_to(CHAPTERS).with_suffix("")) for p in find([])) or "none yet"
            sys.exit(f"There is no chapter {stem!r}. Known chapters: {known}.")
        paths.append(path)
    return paths


def clean_outputs(outputs: list[NotebookNode], count: int) -> list[NotebookNode]:
    """Drop widget views and progress bars, join neighboring streams, keep everything else."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            # A progress bar rewrites its line with carriage returns, on stderr.
            if output.name == "stderr" and ("\r" in output.text or "it/s]" in output.text):
                continue
            output.text = ANSI.sub("", output.text)
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        elif "data" in output:
            if WIDGET_MIME in output.data:
                continue
            output.metadata = {}
        if output.output_type == "execute_result":
            output.execution_count = count
        kept.append(output)
    return kept


def clean(notebook: NotebookNode) -> None:
    """Leave only what should be stored."""
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    count = 0
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:03d}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in CELL_METADATA_KEPT})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = clean_outputs(cell.outputs, count)


def execute(path: Path, timeout: int, cores: int) -> tuple[Path, float, str]:
    """Run one chapter; returns its path, its seconds, and what went wrong ("" if nothing did)."""
    notebook = nbformat.read(path, as_version=4)
    env = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": str(cores),
        # idle threads sleep: on a busy machine spinning ones keep the working one from its core
        "OMP_WAIT_POLICY": "PASSIVE",
        "MKL_NUM_THREADS": str(cores),
        "OPENBLAS_NUM_THREADS": str(cores),
        # the kernel of this environment, whatever else the user has registered
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""),
    }
    env.pop("MPLBACKEND", None)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    started = time.perf_counter()
    problem = ""
    try:
        client.execute(env=env)
    except CellExecutionError as error:
        index = next(
            (
                i
                for i, cell in enumerate(notebook.cells)
                if cell.cell_type == "code" and any(o.output_type == "error" for o in cell.outputs)
            ),
            -1,
        )
        problem = f"cell {index} failed:\n{ANSI.sub('', str(error)).strip()}"
    except (CellTimeoutError, DeadKernelError) as error:
        problem = f"{type(error).__name__}: {str(error).strip()[:2000]}"
    seconds = time.perf_counter() - started
    if not problem:
        clean(notebook)
        nbformat.validate(notebook)
        text = pictures.compress(nbformat.writes(notebook), jobs=cores)
        files.write_text(path, text if text.endswith("\n") else text + "\n")
    return path, seconds, problem


def compress(paths: list[Path]) -> None:
    """Make the stored pictures of chapters smaller, in place; says what that saved."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        better = pictures.compress(text, jobs=os.cpu_count() or 2)
        if better != text:
            files.write_text(path, better)
        print(f"  {len(text) / 1e6:.2f} -> {len(better) / 1e6:.2f} MB  {path.relative_to(CHAPTERS)}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Execute chapters and store their outputs.")
    parser.add_argument("names", nargs="*", help="for example 1_foundations/01_learning_by_comparison")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="chapters at a time")
    parser.add_argument("--timeout", type=int, default=900, help="seconds that one cell may take")
    parser.add_argument("--compress", action="store_true", help="only make stored pictures smaller")
    args = parser.parse_args()
    paths = find(args.names)
    if not paths:
        sys.exit("There is no chapter in chapters/ yet.")
    if args.compress:
        compress(paths)
        return
    jobs = max(1, min(args.jobs, len(paths)))
    cores = max(1, (os.cpu_count() or 2) // jobs)
    print(f"Executing {len(paths)} chapter(s), {jobs} at a time, {cores} core(s) each.", flush=True)
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for path, seconds, problem in pool.map(lambda p: execute(p, args.timeout, cores), paths):
            name = path.relative_to(CHAPTERS).with_suffix("")
            size = path.stat().st_size / 1e6
            state = "FAILED, stored outputs left as they were" if problem else f"{size:.2f} MB"
            print(f"  {seconds:6.1f} s  {name}  {state}", flush=True)
            if problem:
                failed.append(f"\n{name}: {problem}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
