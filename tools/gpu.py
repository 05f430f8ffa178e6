"""Everything that wants a GPU, in ten minutes: tests, precision, measurements, full-scale runs; called by ``make gpu``.

Every stage is a process of its own with a time limit, and all together have one (``--minutes``). A stage that fails or
takes too long is reported, and the others go on; the most valuable come first, so that a machine that is taken away
early has not been for nothing. What was stopped of the full-scale runs goes on with the next call.

Measurements go to ``data/benchmarks.json`` and ``data/peers.json``, records to ``data/evidence``, the page to
``book/performance.md``, the report to ``_build/gpu_report.md``. ``--out FOLDER`` puts the report and all that was
written there, too, as one archive. What is missing (lightly, Inf-CL, Triton) is left out with a sentence.

``--rehearse`` does the same on a processor at the smallest sizes and writes into a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".bench"  # where `make bench` installs them


class Stage(NamedTuple):
    """A part of the work.

    Attributes:
        name: as ``--only`` takes it.
        seconds: its time limit.
        what: for the report.
    """

    name: str
    seconds: int
    what: str


STAGES = (
    Stage("card", 30, "What the machine is"),
    Stage("tests", 130, "Tests marked `cuda`"),
    Stage("precision", 40, "Losses under autocast beside float64"),
    Stage("losses", 110, "Losses beside others, Inf-CL and Triton among them"),
    Stage("tiles", 60, "Sides of tiles, products alone, low temperature, large batches"),
    Stage("peers", 60, "Other libraries"),
    Stage("page", 15, "The performance page"),
    Stage("triton", 60, "Triton's kernels: right on this card, and their blocks"),
    Stage("simclr", 60, "SimCLR at full scale"),
    Stage("directpred", 150, "DirectPred at full scale"),
    Stage("dcl", 150, "DCL at full scale"),
)
# Runs that are not tuned, so that every seed counts: file of runs (None: the only one) and arms.
RUNS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "simclr": (None, ("simclr", "random")),
    "directpred": ("directpred", ("trained", "directpred", "no-predictor")),
    "dcl": ("dcl", ("NT-Xent at rate 0.0003", "DCL at rate 0.0003")),
}


class Missing(Exception):
    """What a stage needs is not installed."""


class Failed(Exception):
    """What a stage found is not as it should be; the report's lines."""


# --- the stages, each in a process of its own -------------------------------------------------------------------------


def card(folder: Path, small: bool) -> list[str]:
    """What the machine is."""
    import torch

    lines = [f"Python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}."]
    if torch.cuda.is_available():
        free, total = (x / 2**30 for x in torch.cuda.mem_get_info())
        lines.append(f"{torch.cuda.get_device_name()}, {free:.0f} of {total:.0f} GiB free.")
    else:
        lines.append(f"No GPU. {torch.get_num_threads()} threads.")
    for name in ("triton", "inf_cl", "lightly", "pytorch_metric_learning", "open_clip"):
        lines.append(f"- {name}: {'there' if importlib.util.find_spec(name) else 'not installed'}")
    return lines


def tests(folder: Path, small: bool) -> list[str]:
    """Only files with such tests are read: the others want packages of their own."""
    files = [f for f in sorted((ROOT / "tests" / "unit").rglob("test_*.py")) if "mark.cuda" in f.read_text("utf-8")]
    which = ["--collect-only"] if small else []
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "--tb=short", "-p", "no:cacheprovider", *which]
    done = subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        failed = [f"- {line}" for line in lines if line.startswith(("FAILED", "ERROR"))]
        why = [f"- {line[:300]}" for line in lines if line.startswith("E  ")]
        raise Failed("\n".join([lines[-1] if lines else done.stderr[-500:], "", *failed, "", *why]))
    return [lines[-1]]


def precision(folder: Path, small: bool) -> list[str]:
    """Embeddings in bfloat16, as autocast makes them: what the loss does with them must be right to float32.

    Both sides get the same rounded embeddings: what bfloat16 takes away before the loss is not the loss's fault. The
    value has to be right to 1e-5, a gradient, which comes back in bfloat16, to 1e-2 of its largest entry.
    """
    import torch

    from cl_teach.core import clip_loss, info_nce, nt_xent, siglip_loss, sup_con
    from cl_teach.losses.dcl import dcl

    device = torch.device("cpu" if small else "cuda")
    rows = ["| loss | value | gradient |", "| --- | ---: | ---: |"]
    bad = list[str]()
    for n in (16,) if small else (64, 1024, 8192):
        labels = torch.arange(2 * n) % 10
        losses: dict[str, Callable[..., Any]] = {
            "NT-Xent": lambda a, b: nt_xent(a, b, 0.1),
            "NT-Xent at 0.01": lambda a, b: nt_xent(a, b, 0.01),
            "DCL": lambda a, b: dcl(a, b, 0.1),
            "InfoNCE": lambda a, b: info_nce(a, b, None, 0.1),
            "SupCon": lambda a, b, y=labels: sup_con(torch.cat([a, b]), y.to(a.device), 0.1),
            "CLIP": lambda a, b: clip_loss(a, b, 2.3),
            "SigLIP": lambda a, b: siglip_loss(a, b, 2.3, -10.0),
        }
        generator = torch.Generator().manual_seed(0)
        x, weight = torch.randn(2 * n, 64, generator=generator), torch.randn(128, 64, generator=generator) / 8
        for name, loss in losses.items():
            try:
                with torch.autocast(device.type, torch.bfloat16):
                    z = torch.nn.functional.linear(x.to(device), weight.to(device)).detach().requires_grad_()
                    found = loss(*z.chunk(2))
                (gradient,) = torch.autograd.grad(found, z)
                exact = z.detach().cpu().double().requires_grad_()
                expected = loss(*exact.chunk(2))
                (right,) = torch.autograd.grad(expected, exact)
            except Exception as error:
                bad.append(name)
                rows.append(f"| {name}, {n} pairs: {type(error).__name__}, {str(error)[:200]} | | |")
                continue
            value = float((found.detach().cpu().double() - expected.detach()).abs() / expected.detach().abs())
            apart = float((gradient.cpu().double() - right).abs().max() / right.abs().max())
            rows.append(f"| {name}, {n} pairs, {z.dtype} | {value:.0e} | {apart:.0e} |")
            if not (z.dtype is torch.bfloat16 and value < 1e-5 and apart < 1e-2):
                bad.append(name)
    if bad:
        raise Failed("\n".join([f"{len(bad)} not right to 1e-5 (value) and 1e-2 (gradient).", "", *rows]))
    return ["All right to 1e-5 (value) and 1e-2 of the largest entry (gradient, in bfloat16).", "", *rows]


def stored(folder: Path, name: str) -> dict[str, Any]:
    """A file of results."""
    file = folder / "data" / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def store(folder: Path, name: str, device: str, **parts: Any) -> None:
    """Replace parts of what is stored for a device."""
    from cl_teach import files

    results = stored(folder, name)
    results[device] = results.get(device, {}) | parts
    files.write_json(folder / "data" / name, results)


def tiled_rivals() -> tuple[dict[str, dict[str, Callable[..., Any]]], list[str]]:
    """Other losses that write no table, as far as they are installed; and a sentence for each that is not."""
    import torch
    from torch.nn import functional as F

    found: dict[str, dict[str, Callable[..., Any]]] = {"NT-Xent": {}, "CLIP": {}}
    said = []
    if torch.cuda.is_available() and importlib.util.find_spec("triton"):
        from triton_contrast import triton_contrast

        def ours(a: Any, b: Any) -> Any:
            return triton_contrast(a, b, 10.0, stacked=True, positive=len(a), skip=0).mean()

        found["NT-Xent"]["cl_teach, Triton"] = ours
        found["CLIP"]["cl_teach, Triton"] = lambda a, b: triton_contrast(a, b, 10.0, positive=0).mean()
    else:
        said.append("Triton's kernels are not measured: they want a GPU and the package `triton`.")
    if torch.cuda.is_available() and importlib.util.find_spec("inf_cl"):
        from inf_cl import cal_flash_loss

        def theirs(a: Any, b: Any) -> Any:
            a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
            both = [cal_flash_loss(x, y, scale=10.0, head_dim=x.shape[1]) for x, y in ((a, b), (b, a))]
            return (both[0].mean() + both[1].mean()) / 2

        found["CLIP"]["Inf-CL"] = theirs
        said.append("Inf-CL multiplies in TensorFloat-32 (ten bits), ours in float32.")
    else:
        said.append("Inf-CL is not measured: it wants a GPU and the package `inf-cl`.")
    return found, said


def losses(folder: Path, small: bool) -> list[str]:
    """Loss by loss, each stored when it is done; rivals that fail are left out with what they said."""
    import measure
    import torch

    torch.set_num_threads(1)
    try:
        contests = measure.contests()
    except ImportError as error:
        contests = only_ours()
        said = [f"Of the other libraries only plain cross-entropy: {error}."]
    else:
        said = []
    tiled, more = tiled_rivals()
    said += more
    rivals = {side for sides in tiled.values() for side in sides}
    for name, sides in tiled.items():
        contests[name] = contests[name] | sides
    fits = measure.fits
    measure.fits = lambda loss, side, n: side in rivals or fits(loss, side, n)
    sizes = (16, 64) if small else (256, 1024, 4096, 16384, 65536)
    measure.LARGEST = sizes[-1]
    take_turns = measure.take_turns
    measure.take_turns = lambda steps, seconds, **more: take_turns(steps, seconds * (0.01 if small else 0.3), **more)
    device, rows = measure.DEVICE.type, []
    about = measure.machine([p for p in measure.PEERS if installed(p)])
    for name, sides in contests.items():
        z1, z2 = measure.draw(256)
        works, values = {}, {}
        for side, loss in sides.items():
            try:
                value = loss(z1, z2)
                torch.autograd.grad(value, (z1, z2))
            except Exception as error:  # somebody else's code on a card we do not know
                said.append(f"{name}, {side}, is left out: {type(error).__name__}, {str(error)[:200]}")
                continue
            works[side], values[side] = loss, float(value.detach())
            if abs(values[side] / values["cl_teach"] - 1) > 1e-3:
                said.append(f"{name}, {side}: the value is {values[side]:.6g}, ours {values['cl_teach']:.6g}.")
        for dims in ((128,), (1024,)) if not small else ((128,),):  # the tiled rivals are made for narrow rows
            measure.DIMS = dims
            here = {side: loss for side, loss in works.items() if dims == (128,) or side not in rivals}
            measure.contests = lambda name=name, here=here: {name: here}
            others = [side for side in here if side != "cl_teach"]
            measure.SIZES = tuple(n for n in sizes if any(measure.fits(name, side, n) for side in others))
            rows += measure.compare_losses((1,))
            store(folder, "benchmarks.json", device, losses=rows, machine=about)
    usual = [r for r in rows if (r["dim"], r["dtype"]) == (128, "float32")]
    table = ["| loss | pairs | side | ms | MiB |", "| --- | ---: | --- | ---: | ---: |"]
    table += [
        f"| {r['loss']} | {r['pairs']:,} | {r['side']} | {r['milliseconds']:.3g} | {r['peak_mib']:.3g} |" for r in usual
    ]
    return [*(f"- {each}" for each in said), "", *table]


def only_ours() -> dict[str, dict[str, Callable[..., Any]]]:
    """The contests without other libraries."""
    import measure

    from cl_teach.core import clip_loss, nt_xent

    return {
        "NT-Xent": {"cl_teach": lambda a, b: nt_xent(a, b, 0.1), "plain cross-entropy": measure.cross_entropy},
        "CLIP": {"cl_teach": lambda a, b: clip_loss(a, b, 2.302585)},
    }


def installed(package: str) -> bool:
    """Whether a package has a version here."""
    import importlib.metadata

    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tiles(folder: Path, small: bool) -> list[str]:
    """How the tiles of this card should be, and how far they go."""
    import measure
    import torch

    from cl_teach.core import nt_xent, tiling

    torch.set_num_threads(1)
    device, lines = measure.DEVICE.type, []
    sizes = (256,) if small else (4096, 16384, 65536)
    sides = (64, 128) if small else (1024, 2048, 4096, 8192, 16384)
    lines += ["| pairs | side | ms | MiB |", "| ---: | ---: | ---: | ---: |"]
    for n in sizes:
        z1, z2 = measure.draw(n)

        def step(side: int, a: Any = z1, b: Any = z2) -> None:
            with tiling(side):
                torch.autograd.grad(nt_xent(a, b, 0.1), (a, b))

        steps = {str(side): lambda side=side, step=step: step(side) for side in sides}
        times = measure.take_turns(steps, 0.02 if small else 3.0)
        for side in steps:
            lines.append(f"| {n:,} | {side} | {1e3 * times[side]:.3g} | {measure.peak_of(steps[side]) / 2**20:.3g} |")
    measure.DIMS = (128,)
    take_turns = measure.take_turns
    measure.take_turns = lambda steps, seconds, **more: take_turns(steps, seconds * (0.002 if small else 0.3), **more)
    if not small:
        store(folder, "benchmarks.json", device, products=measure.compare_with_products())
    store(folder, "benchmarks.json", device, low_temperature=measure.at_low_temperature())
    rows = []
    for n in (64, 256) if small else (1024, 4096, 16384, 65536, 262144):
        z1, z2 = measure.draw(n)

        def whole(a: Any = z1, b: Any = z2) -> None:
            torch.autograd.grad(nt_xent(a, b, 0.1), (a, b))

        whole()
        seconds = measure.seconds_of(whole)
        rows.append({"pairs": n, "seconds": seconds, "resident_mib": measure.peak_of(whole) / 2**20})
        store(folder, "benchmarks.json", device, curve=rows)
    lines += ["", "| pairs | seconds | MiB |", "| ---: | ---: | ---: |"]
    return lines + [f"| {r['pairs']:,} | {r['seconds']:.3g} | {r['resident_mib']:.3g} |" for r in rows]


def triton(folder: Path, small: bool) -> list[str]:
    """Are the kernels right on this card, and which blocks are fast?"""
    import measure
    import torch

    if not importlib.util.find_spec("triton"):
        raise Missing("the package `triton` is not installed")
    os.environ |= {"TRITON_INTERPRET": "1"} if small else {}  # Triton looks at it when it is imported
    import triton_contrast as kernels

    n, d, pair = (10, 16, kernels.SMALL) if small else (1000, 128, kernels.BLOCKS[0])
    lines = ["| table | scale | apart from float64 |", "| --- | ---: | ---: |"]
    for scale in (10.0, 200.0):
        for name, table in {"NT-Xent": kernels.NT_XENT | {"positive": n}, "CLIP": {"positive": 0}}.items():
            apart = kernels.deviation(n, n, d, scale, pair, **table)
            lines.append(f"| {name} | {scale:g} | {apart:.0e} |")
            if apart > 1e-6 * max(scale, 5):
                raise Failed("\n".join([*lines, "", "The last one is too far apart."]))
    lines += ["", "| pairs | block | ms |", "| ---: | --- | ---: |"]
    for n in (16,) if small else (4096, 16384, 65536):
        z1, z2 = measure.draw(n, 16 if small else 128)
        for block in kernels.BLOCKS:

            def step(a: Any = z1, b: Any = z2, block: Any = block) -> None:
                loss = kernels.triton_contrast(a, b, 10.0, stacked=True, positive=len(a), skip=0, block=block).mean()
                torch.autograd.grad(loss, (a, b))

            try:
                step()
                lines.append(
                    f"| {n:,} | {block} | {1e3 * measure.take_turns({'': step}, 0.01 if small else 0.5)['']:.3g} |"
                )
            except Exception as error:  # too large for this card, say
                lines.append(f"| {n:,} | {block} | {type(error).__name__} |")
    return lines


def peers(folder: Path, small: bool) -> list[str]:
    """Row by row, each stored when it is done."""
    import warnings

    import torch

    warnings.filterwarnings("ignore")  # the others' warnings about each other
    torch.set_num_threads(1)
    if not PEERS.is_dir():
        raise Missing("the other libraries are not installed: `make bench` does that")
    import peers as module

    rows, said, shown = [], [], ["| what | size | theirs, ms | ours, ms |", "| --- | --- | ---: | ---: |"]
    for row in module.ROWS[:1] if small else module.ROWS:
        if small:
            row = row._replace(sizes={"tiny": (16,)})
        try:
            rows += list(module.measure(row, 0.01 if small else 0.5))
        except (Exception, SystemExit) as error:
            said.append(f"{row.name}: {type(error).__name__}, {str(error)[:200]}")
            continue
        packages = [p for p in sorted({r["package"] for r in rows}) if installed(p)]
        store(folder, "peers.json", module.DEVICE.type, machine=module.machine(packages), rows=rows)
    for r in rows:
        times = r["milliseconds"]
        shown.append(f"| {r['name']}, {r['package']} | {r['size']} | {times['peer']:.3g} | {times['ours']:.3g} |")
    return [*(f"- {each}" for each in said), "", *shown]


def page(folder: Path, small: bool) -> list[str]:
    """From what is stored; parts that are not measured on a GPU are empty."""
    import page as module

    from cl_teach import files

    results = stored(folder, "benchmarks.json")
    lacking = {"losses", "low_temperature", "curve", "machine"} - results.get("cpu" if small else "cuda", {}).keys()
    if lacking:
        raise Failed(f"Not written: {', '.join(sorted(lacking))} not measured.")
    for result in results.values():
        for name, empty in {"products": [], "input": {}}.items():
            result.setdefault(name, empty)
    files.write_json(folder / "data" / "benchmarks.json", results)
    file = folder / "book" / "performance.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, module.page(results, stored(folder, "peers.json")))
    return [f"{len(file.read_text(encoding='utf-8').splitlines())} lines."]


def experiment(name: str, folder: Path, small: bool, seconds: int) -> list[str]:
    """Runs of one experiment; what is not finished goes on with the next call."""
    only, arms = RUNS[name]
    environment = os.environ | {"CL_TEACH_SCALE": "smoke" if small else "full", "OMP_NUM_THREADS": "1"}
    jobs = 1 if small else min(6, os.cpu_count() or 1)
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--root", str(folder), "--jobs", str(jobs)]
    command += ["--seconds", str(max(seconds - 12, 1))]
    command += ["--only", f"{only}-{'smoke' if small else 'full'}"] if only else []
    done = subprocess.run([*command, "--arms", *arms], cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    if done.returncode:
        raise Failed(f"```\n{done.stderr[-1500:]}\n```")
    lines = [line for line in done.stdout.splitlines() if " seed " in line or "interval" in line or "the time" in line]
    runs = sum(" seed " in line for line in lines)
    return [f"{runs} runs.", "", *(f"- {line}" for line in lines if " seed " not in line)]


# --- all of it --------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """How a stage went: ``"done"``, ``"left out"``, ``"failed"``, ``"over time"`` or ``"no time left"``."""

    stage: Stage
    how: str
    seconds: float
    lines: list[str]


def work(name: str, folder: Path, small: bool, seconds: int) -> None:
    """In the process of a stage: do it, and leave its lines and how it went."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    if PEERS.is_dir():
        sys.path.append(str(PEERS))
    stages = {f.__name__: f for f in (card, tests, precision, losses, tiles, peers, page, triton)}
    try:
        lines = experiment(name, folder, small, seconds) if name in RUNS else stages[name](folder, small)
        how = "done"
    except Missing as error:
        how, lines = "left out", [str(error)]
    except Failed as error:
        how, lines = "failed", [str(error)]
    (folder / "_build" / "gpu" / f"{name}.json").write_text(json.dumps({"how": how, "lines": lines}), encoding="utf-8")


def start(stage: Stage, folder: Path, small: bool, left: float) -> Outcome:
    """Run a stage in a process of its own and end it, with all it started, when its time is over."""
    limit = min(stage.seconds, left)
    notes = folder / "_build" / "gpu"
    notes.mkdir(parents=True, exist_ok=True)
    answer, log = notes / f"{stage.name}.json", notes / f"{stage.name}.log"
    answer.unlink(missing_ok=True)
    if limit < 5:
        return Outcome(stage, "no time left", 0.0, [])
    command = [sys.executable, __file__, "--stage", stage.name, "--folder", str(folder), "--limit", str(int(limit))]
    environment = os.environ | {"TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    if small:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*command, *(["--rehearse"] if small else [])],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit)
            how = "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            how = "over time"
    seconds = time.monotonic() - begun
    if answer.is_file():
        found = json.loads(answer.read_text(encoding="utf-8"))
        return Outcome(stage, found["how"], seconds, found["lines"])
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return Outcome(stage, how, seconds, ["```", *tail, "```"])


def report(outcomes: list[Outcome]) -> str:
    """As Markdown."""
    lines = ["# GPU", "", "| stage | | seconds |", "| --- | --- | ---: |"]
    lines += [f"| {o.stage.what} | {o.how} | {o.seconds:.0f} |" for o in outcomes]
    for o in outcomes:
        lines += ["", f"## {o.stage.what}: {o.how}", "", *o.lines]
    return "\n".join([*lines, ""])


def keep(folder: Path, out: Path, since: float) -> None:
    """The report, and one archive of everything that was written since."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "_build" / "gpu_report.md", out)
    parts = (folder / "data", folder / "book" / "performance.md", folder / "_build" / "gpu", folder / "_build/evidence")
    with zipfile.ZipFile(out / "gpu_results.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            for file in [part] if part.is_file() else sorted(part.rglob("*")):
                if file.is_file() and file.stat().st_mtime >= since:
                    archive.write(file, file.relative_to(folder))


def main() -> int:
    """Run all stages, or some; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="on a processor, small, into a temporary folder")
    parser.add_argument("--only", nargs="+", choices=[s.name for s in STAGES], help="only these stages")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it")
    parser.add_argument("--out", type=Path, help="put the report and an archive of what was written there, too")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        work(given.stage, given.folder, given.rehearse, given.limit)
        return 0
    if not given.rehearse:
        import torch

        if not torch.cuda.is_available():
            print("There is no GPU here that torch can use. `--rehearse` shows on a processor that everything runs.")
            return 1
    folder = Path(tempfile.mkdtemp(prefix="gpu-rehearsal-")) if given.rehearse else ROOT
    begun, wall, outcomes = time.monotonic(), time.time(), []
    for stage in STAGES:
        if given.only and stage.name not in given.only:
            continue
        print(f"{stage.what} ...", flush=True)
        outcomes.append(start(stage, folder, given.rehearse, 60 * given.minutes - (time.monotonic() - begun)))
        print(f"  {outcomes[-1].how}, {outcomes[-1].seconds:.0f} s", flush=True)
        # Every stage may be the last.
        (folder / "_build" / "gpu_report.md").write_text(report(outcomes), encoding="utf-8")
        if given.out:
            keep(folder, given.out, wall)
    print(report(outcomes).split("\n\n## ")[0])
    print(f"More in {folder / '_build' / 'gpu_report.md'}")
    return int(any(o.how in ("failed", "over time") for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
