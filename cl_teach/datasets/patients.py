r"""Patients with a report, an X-ray and an ECG: three signals of ten hidden factors, and only one tells of them all.

The report tells of all factors, the X-ray not of the last three, the ECG not of the first three. Report and X-ray are
vectors, :math:`\tanh(zW/3)` plus noise. The ECG is a waveform: in every lead four beats, each a sum of the waves P, Q,
R, S and T, whose heights and places the factors change in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_in_range

__all__ = ["Patients", "patients"]

FACTORS, WIDTH, LEADS, BEATS, BEAT = 10, 30, 3, 4, 24
HIDDEN_FROM_XRAY, HIDDEN_FROM_ECG = slice(7, None), slice(0, 3)
# Height, place and width of P, Q, R, S and T in a beat of length 1.
WAVES = ((0.25, 0.18, 0.035), (-0.2, 0.34, 0.02), (1.0, 0.40, 0.025), (-0.3, 0.46, 0.02), (0.4, 0.70, 0.06))
HEIGHTS, PLACES = 0.6, 0.03  # how much the factors change a wave


class Patients(NamedTuple):
    """Signals of the same patients.

    Attributes:
        report: ``(n, 30)``.
        xray: ``(n, 30)``.
        ecg: ``(n, 3, 96)`` leads and time; four segments of it are four beats.
        factors: ``(n, 10)`` what is behind them.
    """

    report: Tensor
    xray: Tensor
    ecg: Tensor
    factors: Tensor


def patients(n: int, *, noise: float = 0.1, world: int = 0, seed: int = 0) -> Patients:
    """Draw patients.

    Args:
        n: number of patients.
        noise: deviation of the noise of report and X-ray; a quarter of it in the ECG.
        world: seed of the three fixed maps from factors to signals.
        seed: of the patients.

    Example:
        >>> people = patients(5)
        >>> people.report.shape, people.ecg.shape
        (torch.Size([5, 30]), torch.Size([5, 3, 96]))
    """
    check_count(n=n)
    check_in_range(0, 1e6, noise=noise)
    check_count(0, world=world, seed=seed)
    maps = torch.randn(3, FACTORS, WIDTH, generator=torch.Generator().manual_seed(world))
    maps[1, HIDDEN_FROM_XRAY] = 0
    maps[2, HIDDEN_FROM_ECG] = 0
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, FACTORS, generator=generator)
    report, xray, change = torch.tanh(factors @ maps / 3)  # (n, 30) each
    report, xray = (x + noise * torch.randn(n, WIDTH, generator=generator) for x in (report, xray))

    height, place, width = torch.tensor(WAVES).unbind(1)  # (5,)
    taller, later = change.view(n, 2, LEADS, len(WAVES)).unbind(1)  # (n, 3, 5)
    t = torch.arange(BEAT) / BEAT
    bumps = torch.exp(-((t - (place + PLACES * later)[..., None]) ** 2) / (2 * width[:, None] ** 2))
    beat = (height[:, None] * (1 + HEIGHTS * taller[..., None]) * bumps).sum(2)  # (n, 3, BEAT)
    ecg = beat.repeat(1, 1, BEATS) + noise / 4 * torch.randn(n, LEADS, BEATS * BEAT, generator=generator)
    return Patients(report, xray, ecg, factors)
