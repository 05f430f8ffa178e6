"""Make the landing page's playground and the README's picture: eight garments on a circle.

The playground shows two views of each garment, free to move, in places drawn by chance. For the picture a small encoder
with two outputs sees changed copies of the eight images and learns by `sup_con`, the label of a copy being which image
it was made from. Nothing is arranged by hand: every panel is what the encoder says at that step. Run it with
``python tools/make_hero.py``, or with the argument ``html`` for the playground alone, which needs no training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from cl_teach import figures
from cl_teach.augment import simclr_augment
from cl_teach.core import sup_con
from cl_teach.datasets import fashion_mnist
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import seed_everything

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
CLASSES = (0, 1, 3, 5, 7, 8, 9, 2)
STEPS = (0, 16, 160)
COPIES = 16
COLORS = (*figures.CYCLE, figures.GRAY)


def garments() -> Tensor:
    """Eight images, ``(8, 1, 28, 28)``."""
    data = fashion_mnist("train")
    return data.images[[int((data.labels == label).nonzero()[3]) for label in CLASSES]]


def playground() -> figures.Playground:
    """Two views of each garment, anywhere on the circle."""
    draw = torch.Generator().manual_seed(1)
    images = garments()
    views = simclr_augment(channels=1)(torch.cat([images, images]), generator=draw)  # (16, 1, 28, 28)
    places = torch.randperm(len(views), generator=draw) + 0.5 * torch.rand(len(views), generator=draw)
    angles = 2 * torch.pi * places.double() / len(views)  # apart enough to be seen, no two opposite each other exactly
    return figures.play("circle", angles=angles, temperature=0.2, chosen=None, pictures=views[:, 0])


def train() -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Returns the eight images, the owner of every copy, and the copies' embeddings by step."""
    seed_everything(0)
    images = garments()
    change, draw = simclr_augment(channels=1), torch.Generator().manual_seed(0)
    owner = torch.arange(len(images)).repeat_interleave(COPIES)
    shown = change(images[owner], generator=draw)  # the copies that are drawn stay the same
    encoder = ConvEncoder()
    model = torch.nn.Sequential(encoder, ProjectionHead(encoder.feature_dim, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    places = {}
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            model.eval()
            with torch.no_grad():
                places[step] = model(shown)
            model.train()
        loss = sup_con(model(change(images[owner], generator=draw)), owner, temperature=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return images, owner, places


def circle(ax: Axes, images: Tensor, owner: Tensor, z: Tensor, title: str) -> None:
    """Copies on the circle, each garment outside at the mean direction of its copies."""
    z = torch.nn.functional.normalize(z, dim=1)
    angle = torch.linspace(0, 2 * torch.pi, 200)
    ax.plot(angle.cos(), angle.sin(), color="#c8c8c8", lw=1, zorder=0)
    inside = 1 - 0.05 * (torch.arange(len(z)) % 3)  # three shallow rings, so that copies do not hide one another
    for i in range(len(images)):
        mine = owner == i
        ax.scatter(*(z[mine] * inside[mine, None]).T, s=22, color=COLORS[i], alpha=0.8, linewidths=0)
        center = torch.nn.functional.normalize(z[mine].mean(dim=0), dim=0) * 1.25
        picture = OffsetImage(1 - images[i, 0].numpy(), cmap="gray", zoom=0.85)
        frame = {"edgecolor": COLORS[i], "linewidth": 2, "boxstyle": "round,pad=0.1"}
        ax.add_artist(AnnotationBbox(picture, tuple(center.tolist()), frameon=True, bboxprops=frame, pad=0.1))
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    ax.set_title(title, loc="center")
    ax.axis("off")


def main() -> None:
    """Write hero.html and, unless only that is asked for, hero.png."""
    (STATIC / "hero.html").write_text(playground()._repr_html_() + "\n", encoding="utf-8")
    if sys.argv[1:] == ["html"]:
        return
    images, owner, places = train()
    figures.use_style()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), dpi=100)
    for ax, step in zip(axes, STEPS, strict=True):
        circle(ax, images, owner, places[step], f"after {step} steps" if step else "before training")
    figure.savefig(STATIC / "hero.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
