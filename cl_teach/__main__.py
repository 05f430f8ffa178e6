"""``python -m cl_teach``: what there is, and how to begin."""

from __future__ import annotations

import argparse
import platform

import torch

from . import __version__
from .training import device

BEGIN = """\
Begin with a few lines:

    from cl_teach.augment import simclr_augment
    from cl_teach.datasets import fashion_mnist
    from cl_teach.evaluation import embed, knn_accuracy
    from cl_teach.losses import nt_xent
    from cl_teach.models import ConvEncoder, ProjectionHead
    from cl_teach.training import pretrain

    train, test, encoder = fashion_mnist("train"), fashion_mnist("test"), ConvEncoder()
    pretrain(encoder, ProjectionHead(encoder.feature_dim), train.images, loss=nt_xent,
             augment=simclr_augment(scale=(0.3, 1.0)), epochs=5, batch_size=256)
    print(knn_accuracy(embed(encoder, train.images), train.labels, embed(encoder, test.images), test.labels))

or with a program:

    python -m cl_teach.distributed --help     train SimCLR, in one process or (with torchrun) in many
    python -m cl_teach.survey                 the methods of the book, and where each is implemented

What is where:

    cl_teach.core, losses, theory, views, labels, language, crossmodal, graphs, signals, alignment     the methods
    cl_teach.training, augment, evaluation, models, datasets, figures, evidence                        the tools
"""


def main() -> None:
    """Print where this runs and how to begin."""
    parser = argparse.ArgumentParser(prog="python -m cl_teach", description=__doc__, add_help=True)
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args()
    where = torch.cuda.get_device_name() if device().type == "cuda" else "the processor"
    print(
        f"cl_teach {__version__}, torch {torch.__version__}, Python {platform.python_version()}, running on {where}.\n"
    )
    print(BEGIN, end="")


if __name__ == "__main__":
    main()
