"""Speed and memory of the losses and of a whole training step, beside other people's code; called by ``make bench``.

Every figure is a median of passes that the sides take in turns in one process, so that what else the machine does hits
all. Memory is the peak of the allocator during one forward and backward pass, from torch's profiler. Results go to
``data/benchmarks.json``; ``benchmarks/page.py`` turns them into the book's page.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import DEVICE, Step, largest_resident_mib, machine, peak_of, seconds_of, take_turns, wait
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from cl_teach import files
from cl_teach.augment import simclr_augment
from cl_teach.core import clip_loss, nt_xent, sup_con, tiled_contrast
from cl_teach.core.tables import tile_side
from cl_teach.datasets import fashion_mnist
from cl_teach.losses.dcl import dcl
from cl_teach.models import ConvEncoder, ProjectionHead

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "benchmarks.json"
DIM, TEMPERATURE = 128, 0.1
SIZES = (16, 64, 256, 1024, 4096, 16384)
DIMS = (64, 128, 512, 1024)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The largest batch is measured in one dimension and precision only, and for sides whose tables fit: so many bytes.
LARGEST, ROOM = 16384, 8 * 2**30
PEERS = ("lightly", "pytorch-metric-learning", "open_clip_torch")
CURVE = (256, 1024, 4096, 16384, 65536)

Loss = Callable[[Tensor, Tensor], Tensor]


def open_clip_loss() -> nn.Module:
    """The loss module of open_clip alone; the package itself wants a dozen others at import."""
    spec = importlib.util.find_spec("open_clip")
    file = Path(next(iter(spec.submodule_search_locations))) / "loss.py"
    module_spec = importlib.util.spec_from_file_location("open_clip_loss", file)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.ClipLoss()


def cross_entropy(z1: Tensor, z2: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent as one writes it first."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = z @ z.mT / temperature
    logits.fill_diagonal_(float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z1)))


def labels_of(z: Tensor) -> Tensor:
    """Ten classes, evenly spread."""
    return torch.arange(len(z), device=z.device) % 10


def contests() -> dict[str, dict[str, Loss]]:
    """Loss by loss: ours first, then the others."""
    from lightly.loss import DCLLoss, NTXentLoss
    from pytorch_metric_learning.losses import SupConLoss

    clip, scale = open_clip_loss(), torch.tensor(1 / TEMPERATURE)
    lightly, lightly_dcl = NTXentLoss(temperature=TEMPERATURE), DCLLoss(temperature=TEMPERATURE)
    metric_learning = SupConLoss(temperature=TEMPERATURE)

    def theirs_sup_con(a: Tensor, b: Tensor) -> Tensor:
        return metric_learning(torch.cat([a, b]), labels_of(a).repeat(2))

    return {
        "NT-Xent": {
            "cl_teach": lambda a, b: nt_xent(a, b, TEMPERATURE),
            "lightly": lightly,
            "plain cross-entropy": cross_entropy,
        },
        "DCL": {"cl_teach": lambda a, b: dcl(a, b, TEMPERATURE), "lightly": lightly_dcl},
        "SupCon": {
            "cl_teach": lambda a, b: sup_con(torch.cat([a, b]), labels_of(a).repeat(2), TEMPERATURE),
            "pytorch-metric-learning": theirs_sup_con,
        },
        "CLIP": {
            "cl_teach": lambda a, b: clip_loss(a, b, scale.log()),
            "open_clip": lambda a, b: clip(F.normalize(a, dim=1), F.normalize(b, dim=1), scale),
        },
    }


def draw(n: int, dim: int = DIM, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two views of n samples."""
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(n, dim, generator=generator)
    z2 = 0.5 * z1 + torch.randn(n, dim, generator=generator)
    return z1.to(DEVICE, dtype).requires_grad_(), z2.to(DEVICE, dtype).requires_grad_()


def steps_of(sides: dict[str, Loss], z1: Tensor, z2: Tensor) -> dict[str, Step]:
    """A forward and backward pass of every side; the gradients are thrown away."""

    def step(loss: Loss) -> Step:
        return lambda: torch.autograd.grad(loss(z1, z2), (z1, z2))

    return {side: step(loss) for side, loss in sides.items()}


def products(n: int, dim: int, side: int, symmetric: bool) -> Step:
    """The matrix products of the tiled loss and nothing else: one forward, one again and one backward."""
    rows = n * (2 if symmetric else 1)
    a, b = torch.randn(rows, dim, device=DEVICE), torch.randn(rows, dim, device=DEVICE)
    grad, tile = torch.zeros_like(a), a.new_empty(side, side)  # which divides the number of rows

    def run() -> None:
        for again in (False, True):
            for i in range(0, rows, side):
                for j in range(i if symmetric else 0, rows, side):
                    torch.mm(a[i : i + side], b[j : j + side].mT, out=tile)
                    if again:
                        grad[i : i + side].addmm_(tile, b[j : j + side])
                        if not symmetric or i != j:
                            grad[j : j + side].addmm_(tile.mT, a[i : i + side])

    return run


def compare_losses(threads: tuple[int, ...]) -> list[dict[str, Any]]:
    """Time and memory of every loss at every size, dimension, precision and number of threads, all sides in turn."""
    rows = []
    usual = torch.get_num_threads()
    settings = [
        (n, dim, dtype, count)
        for n in SIZES
        for dim in DIMS
        for dtype in DTYPES
        for count in threads
        if n < LARGEST or (dim, dtype) == (DIM, "float32")
    ]
    progress = tqdm([(name, *setting) for name in contests() for setting in settings], desc="losses")
    for name, n, dim, dtype, count in progress:
        progress.set_postfix_str(f"{name}, {n} pairs, {dim} dimensions, {dtype}, {count} threads")
        torch.set_num_threads(count)
        sides = {side: loss for side, loss in contests()[name].items() if fits(name, side, n)}
        steps = steps_of(sides, *draw(n, dim, DTYPES[dtype]))
        times = take_turns(steps, 1.0, least=1 if n >= 4096 else 3)
        for side, step in steps.items():
            row = {"loss": name, "pairs": n, "dim": dim, "dtype": dtype, "threads": count, "side": side}
            row["milliseconds"] = 1e3 * times[side]
            if count == threads[0]:  # memory does not depend on the others
                row["peak_mib"] = peak_of(step) / 2**20
            rows.append(row)
    torch.set_num_threads(usual)
    return rows


def fits(loss: str, side: str, n: int) -> bool:
    """Whether a side that writes its table out has room for it; so many entries of four bytes at the peak."""
    tables = {"cl_teach": 0, "open_clip": 4}.get(side, 48 if loss == "SupCon" else 16)
    return tables * 4 * n**2 <= ROOM


def unchecked(z1: Tensor, z2: Tensor) -> Tensor:
    """NT-Xent by the same code, with no argument looked at."""
    return tiled_contrast(z1, z2, 1 / TEMPERATURE, stacked=True, positive=len(z1), skip=(0,)).mean()


def price_of_checks() -> list[dict[str, Any]]:
    """What all checks, and the care for long vectors and precisions, add to NT-Xent."""
    rows = []
    for n in SIZES[:4]:
        steps = steps_of({"checked": lambda a, b: nt_xent(a, b, TEMPERATURE), "unchecked": unchecked}, *draw(n))
        times = take_turns(steps, 4.0, most=4000)
        rows.append({"pairs": n, "processor": machine()["processor"]} | {k: 1e3 * t for k, t in times.items()})
    return rows


def compare_with_products() -> list[dict[str, Any]]:
    """The tiled losses against their own matrix products, in turn."""
    rows, ours = [], {"NT-Xent": lambda a, b: nt_xent(a, b, TEMPERATURE)}
    ours["CLIP"] = lambda a, b: clip_loss(a, b, -torch.tensor(TEMPERATURE).log())
    for name, loss in ours.items():
        for n in (1024, 4096):
            for dim in DIMS:
                z1, z2 = draw(n, dim)
                steps = steps_of({"whole": loss}, z1, z2)
                steps["products"] = products(n, dim, tile_side(z1), name == "NT-Xent")
                times = take_turns(steps, 3.0)
                row = {"loss": name, "pairs": n, "dim": dim, "milliseconds": 1e3 * times["whole"]}
                rows.append(row | {"products_milliseconds": 1e3 * times["products"]})
    return rows


def at_low_temperature() -> list[dict[str, Any]]:
    """Where exponentials underflow: plain cross-entropy against ours at temperature 0.005."""
    sides = {
        "cl_teach": lambda a, b: nt_xent(a, b, 0.005),
        "plain cross-entropy": partial(cross_entropy, temperature=0.005),
    }
    times = take_turns(steps_of(sides, *draw(1024)), 5.0)
    return [{"side": side, "milliseconds": 1e3 * seconds} for side, seconds in times.items()]


def curve() -> list[dict[str, Any]]:
    """One pass of NT-Xent at growing batch sizes, each in a process of its own: seconds and resident memory."""
    rows = []
    for n in tqdm(CURVE, desc="curve"):
        command = [sys.executable, __file__, "--one", str(n), "--threads", str(torch.get_num_threads())]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    return rows


def one(n: int) -> dict[str, Any]:
    """One size of the curve."""
    z1, z2 = draw(n)
    seconds = seconds_of(lambda: nt_xent(z1, z2, TEMPERATURE).backward())
    return {"pairs": n, "seconds": seconds, "resident_mib": largest_resident_mib()}


def input_speed(repeats: int) -> dict[str, float]:
    """Share of augmentation in a SimCLR step, and images a second beside lightly's transform with a DataLoader."""
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader
    from torchvision.transforms.functional import to_pil_image

    images = fashion_mnist().images[:2048]
    batch, found = 256, {}
    for kind, data in {
        "28x28 gray": images,
        "32x32 color": F.interpolate(images, (32, 32)).expand(-1, 3, -1, -1).contiguous(),
    }.items():
        channels, side = data.shape[1:3]
        torch.manual_seed(0)
        encoder = ConvEncoder(in_channels=channels, image_size=side)
        network = nn.Sequential(encoder, ProjectionHead(encoder.feature_dim, 64, hidden=256, layers=3))
        optimizer = torch.optim.AdamW(network.parameters())
        augment = simclr_augment(channels=channels, scale=(0.3, 1.0))

        def train(views: Tensor, network: nn.Module = network, optimizer: Any = optimizer) -> None:
            z1, z2 = network(views).chunk(2)
            optimizer.zero_grad()
            nt_xent(z1, z2, 0.2).backward()
            optimizer.step()

        normalize = None if channels == 1 else {"mean": [0.5] * 3, "std": [0.25] * 3}
        # The same changes that ours makes; a gray picture has no color to jitter.
        options = {"input_size": side, "min_scale": 0.3, "normalize": normalize}
        if channels == 1:
            options |= {"cj_prob": 0.0, "random_gray_scale": 0.0}
        options |= {"gaussian_blur": 0.5}
        views = Pictures([to_pil_image(x) for x in data], SimCLRTransform(**options))
        loader = DataLoader(views, batch_size=batch, shuffle=True, drop_last=True)
        times: dict[str, list[float]] = {"augment": [], "ours": [], "lightly": []}
        for _ in tqdm(range(repeats), desc=kind, leave=False):
            start = time.perf_counter()
            for rows in torch.randperm(len(data)).split(batch):
                before = time.perf_counter()
                x = torch.cat([augment(data[rows]), augment(data[rows])])
                times["augment"].append(time.perf_counter() - before)
                train(x)
            times["ours"].append(time.perf_counter() - start)
            start = time.perf_counter()
            for view in loader:
                train(torch.cat(view))
            times["lightly"].append(time.perf_counter() - start)
        ours, theirs = statistics.median(times["ours"]), statistics.median(times["lightly"])
        found[kind] = {
            "augmentation_share": statistics.median(times["augment"]) * (len(data) // batch) / ours,
            "images_per_second": len(data) / ours,
            "lightly_images_per_second": len(data) / theirs,
        }
    return found


SIDES = ("cl_teach", "lightly, 0 workers", "lightly, 2 workers")


def step_speed(repeats: int) -> list[dict[str, Any]]:
    """A whole step with the encoder of the papers, each side in a process of its own, in turn."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in tqdm(range(repeats), desc="ResNet-18"):
        for side in SIDES:
            command = [sys.executable, __file__, "--step", side, "--threads", str(torch.get_num_threads())]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[side].append(json.loads(output.splitlines()[-1]))
    return [
        {
            "side": side,
            "images_per_second": statistics.median(row["images_per_second"] for row in rows),
            "mib": statistics.median(row["mib"] for row in rows),
            "runs": repeats,
            "processor": machine()["processor"],
        }
        for side, rows in found.items()
    ]


def one_step_speed(side: str) -> dict[str, float]:
    """Images a second of SimCLR with ResNet-18 on pictures of CIFAR-10's shape, and the largest memory.

    Ours is `pretrain` as a reader calls it; the other side is the loop of lightly's documentation, with its transform
    at the same settings and its loss.
    """
    from cl_teach.models import cifar_resnet18
    from cl_teach.training import pretrain

    batch, steps = (64, 4) if DEVICE.type == "cpu" else (512, 40)
    gray = fashion_mnist().images.repeat(3, 1, 1, 1)[: batch * steps]
    data = F.interpolate(gray, (32, 32)).expand(-1, 3, -1, -1).contiguous()
    torch.manual_seed(0)
    encoder = cifar_resnet18()
    head = ProjectionHead(512, DIM, hidden=512)
    marks = [time.perf_counter()]

    def note(*_: Any) -> None:
        wait()
        marks.append(time.perf_counter())

    if side == "cl_teach":
        augment = simclr_augment(preset="cifar10")
        options = {"epochs": 1, "batch_size": batch, "progress": False, "on_step": note}
        pretrain(encoder, head, data, loss=lambda a, b: nt_xent(a, b, TEMPERATURE), augment=augment, **options)
    else:
        from lightly.loss import NTXentLoss
        from lightly.transforms import SimCLRTransform
        from torch.utils.data import DataLoader
        from torchvision.transforms.functional import to_pil_image

        options = {"cj_strength": 0.5, "gaussian_blur": 0.0, "min_scale": 0.08, "normalize": None}
        transform, loss = SimCLRTransform(input_size=32, **options), NTXentLoss(temperature=TEMPERATURE)
        pictures = Pictures([to_pil_image(x) for x in data], transform)
        loader = DataLoader(pictures, batch, shuffle=True, drop_last=True, num_workers=int(side.split()[1]))
        network = nn.Sequential(encoder, head).to(DEVICE)
        optimizer = torch.optim.AdamW(network.parameters())
        marks[0] = time.perf_counter()
        for first, second in loader:
            z1, z2 = network(torch.cat([first, second]).to(DEVICE)).chunk(2)
            optimizer.zero_grad()
            loss(z1, z2).backward()
            optimizer.step()
            note()
    # The first step prepares: buffers, kernels, workers.
    seconds = marks[-1] - marks[1]
    used = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else largest_resident_mib()
    return {"images_per_second": batch * (len(marks) - 2) / seconds, "mib": used}


class Pictures(Dataset):
    """What one does with lightly: a list of pictures, two transformed views of each."""

    def __init__(self, pictures: list[Any], transform: Any) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> Any:
        return self.transform(self.pictures[i])


def main() -> None:
    """Measure everything and write the results of this device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parts_of_it = ("losses", "products", "low_temperature", "checks", "input", "step", "curve")
    parser.add_argument("--only", choices=parts_of_it, help="one part")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(one(options.one)))
        return
    if options.step:
        print(json.dumps(one_step_speed(options.step)))
        return
    parts: dict[str, Callable[[], Any]] = {
        "losses": lambda: compare_losses((options.threads,) if DEVICE.type == "cuda" else (options.threads, 2)),
        "products": compare_with_products,
        "low_temperature": at_low_temperature,
        "checks": price_of_checks,
        "input": lambda: input_speed(5),
        "step": lambda: step_speed(3),
        "curve": curve,
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    result = results.setdefault(DEVICE.type, {})
    for name, measure in parts.items():
        if options.only in (None, name):
            result[name] = measure()
    if options.only is None or "machine" not in result:  # one part measured anew is no reason to rename the others
        result["machine"] = machine(PEERS)
    files.write_json(RESULTS, results)
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
