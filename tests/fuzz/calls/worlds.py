"""Valid calls of the generators that no other table has: linear-Gaussian features and sprites."""

from __future__ import annotations

import torch

from cl_teach.datasets.gaussian import gaussian_moments, gaussian_views
from cl_teach.datasets.sprites import sprites

CALLS = {
    gaussian_views: [
        lambda: dict(n=5, strengths=[1.0, 2.0], augmentation=0.1, noise=0.1, seed=0, dim=3, rotate=True, device="cpu"),
        lambda: dict(n=5, strengths=torch.tensor([1.0, 2.0]), augmentation=[0.1, 0.5]),
    ],
    gaussian_moments: [
        lambda: dict(strengths=[1.0, 2.0], augmentation=0.1, noise=0.1, features=torch.eye(3, 2)),
        lambda: dict(strengths=torch.tensor([1.0, 2.0]), augmentation=torch.tensor([0.1, 0.5])),
    ],
    sprites: [
        lambda: dict(
            n=4, seed=0, size=16, fix={"color": 1}, correlate={"shape": ("size", 0.5)}, jitter=1.0, noise=0.02
        ),
        lambda: dict(n=4, size=16, fix={"color": torch.tensor([0, 1, 2, 0]), "shape": "circle"}, device="cpu"),
    ],
}
