"""Contrastive training on several devices, as a program: ``torchrun --nproc-per-node 2 -m cl_teach.distributed``.

It trains SimCLR on a data set of the package with `cl_teach.training.pretrain` and says how good the features are. With
``--checkpoint run.pt`` the same command again goes on where the file ends. Started with ``python -m`` it runs in one
process.

What a program of your own needs is imported from here: `process_group` joins the processes that torchrun started, and
`gather` collects embeddings with a gradient that finds its way back. `pretrain` calls it by itself.

Batch normalization is the exception to "several processes do what one does": on a CPU its statistics are those of one
process's part. On GPUs ``torch.nn.SyncBatchNorm`` takes its place. Group normalization (``--norm group``) has no such
trouble.
"""

from __future__ import annotations

import argparse
import csv
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record

from .training.processes import gather, process_group, rank, world_size

__all__ = ["gather", "process_group"]

DATA = ("fashion_mnist", "fashion_mnist_full", "cifar10", "digits", "sprites")
PRECISIONS = {"full": False, "mixed": True, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _OneVoice(argparse.ArgumentParser):
    """Every process parses the arguments; only the first one says anything."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if os.environ.get("RANK", "0") == "0":
            super()._print_message(message, file)


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = _OneVoice(
        prog=f"{'torchrun --nproc-per-node N' if 'RANK' in os.environ else 'python'} -m cl_teach.distributed",
        description="Train SimCLR in one process a device, with the negatives of all; print how good the features are.",
        epilog="In several processes: torchrun --nproc-per-node 2 -m cl_teach.distributed [options]. "
        "The same command with the same --checkpoint goes on where the file ends; more --epochs extend a finished run.",
        formatter_class=_Defaults,
    )
    add = parser.add_argument
    add("--data", choices=DATA, default="fashion_mnist", help="the first and the last two need no download")
    add(
        "--root",
        type=Path,
        default=None,
        help="folder of downloaded data (default: $CL_TEACH_DATA or ~/.cache/cl_teach)",
    )
    add("--encoder", choices=("small", "resnet18"), default="small", help="resnet18 needs torchvision")
    add("--norm", choices=("batch", "group"), default="batch", help="normalization in encoder and head")
    add("--epochs", type=int, default=5, help="passes over the data")
    add("--batch-size", type=int, default=256, help="images in a step, over all processes together")
    add("--chunk", type=int, default=None, help="embed so many views at a time, with --norm group")
    add("--learning-rate", type=float, default=2e-3, help="falls to zero along a cosine")
    add("--weight-decay", type=float, default=1e-4, help="of AdamW")
    add("--temperature", type=float, default=0.2, help="of NT-Xent")
    add("--crop", type=float, default=0.3, help="smallest share of the area that a crop keeps")
    add("--precision", choices=tuple(PRECISIONS), default="full", help="mixed: bfloat16 where the device has it")
    add("--seed", type=int, default=0, help="of weights, order and views")
    add("--checkpoint", type=Path, default=None, help="file to write to, and to go on from")
    add("--csv", type=Path, default=None, help="file for epoch, loss and kNN accuracy")
    return parser


def _load(options: argparse.Namespace, split: str) -> tuple[Tensor, Tensor]:
    from . import datasets

    if options.data == "sprites":
        drawn = datasets.sprites(8000 if split == "train" else 2000, seed=0 if split == "train" else 1)
        return drawn.images, drawn.factors["shape"]
    name, full = options.data.removesuffix("_full"), {"full": True} if options.data.endswith("_full") else {}
    data = getattr(datasets, name)(split, root=options.root, **full)
    return data.images, data.labels


def train(options: argparse.Namespace) -> None:
    """One run; every process calls it."""
    from .augment import simclr_augment
    from .core import nt_xent
    from .models import ConvEncoder, ProjectionHead, cifar_resnet18
    from .training import online_knn, pretrain, seed_everything

    seed_everything(options.seed)  # the same initial weights in every process
    images, labels = _load(options, "train")
    channels, side = images.shape[1], images.shape[-1]
    encoder: Any = (
        ConvEncoder(channels, side, norm=options.norm)
        if options.encoder == "small"
        else cifar_resnet18(channels, norm=options.norm)
    )
    head = ProjectionHead(encoder.feature_dim, 64, hidden=256, norm=options.norm)
    watch = online_knn(encoder, (images, labels), _load(options, "test"))
    table: list[tuple[Any, ...]] = [("epoch", "loss", "knn")]

    def note(epoch: int, loss: float, metrics: dict[str, float]) -> None:
        table.append((epoch, loss, metrics["knn"]))
        print(f"epoch {epoch}: loss {loss:.3f}, kNN accuracy {metrics['knn']:.3f}", flush=True)
        if options.csv is not None:
            with options.csv.open("a" if epoch > 1 else "w", newline="") as file:
                csv.writer(file).writerows(table[-1:] if epoch > 1 else table)

    history = pretrain(
        encoder,
        head,
        images,
        loss=lambda z1, z2: nt_xent(z1, z2, options.temperature),
        augment=simclr_augment(scale=(options.crop, 1.0)),
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        seed=options.seed,
        chunk=options.chunk,
        amp=PRECISIONS[options.precision],
        checkpoint=options.checkpoint,
        checkpoint_every=50,
        after_epoch=watch,
        on_epoch=note,
    )
    if rank() == 0:
        final = history.losses[-1].item()
        print(
            f"{len(history.losses)} steps in {world_size()} processes, loss {final:.3f}, "
            f"kNN accuracy {history.metrics[-1]['knn']:.3f}"
        )


@record
def main() -> None:
    """Read the arguments, join the others, train."""
    parser = _parser()
    options = parser.parse_args()
    try:
        with process_group() if "LOCAL_RANK" in os.environ else nullcontext():
            train(options)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        parser.exit(2, f"{parser.prog}: {cast(Exception, error)}\n")


if __name__ == "__main__":
    main()
