r"""Drawn heartbeats in four nested levels: patients, their trials, the windows of a trial, the time stamps of a window.

A window holds one beat, a sum of Gaussian bumps for the waves P, Q, R, S, T and a plateau for the ST segment between
the last two:

.. math:: x_t = g\sum_k a_k e^{-(t-c_k)^2/2s_k^2} + b\sin(2\pi t + \phi) + o + \varepsilon_t, \qquad t \in [0, 1] .

The patient draws the amplitudes :math:`a_k` and places :math:`c_k`, the trial the gain g and the drift (b, phi, o) of
the baseline, the window its noise and where the beat lies in it. In ill patients the ST segment is raised. So it is
known what belongs together at which level, and diagnosis depends on a small part of the window.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_count,
    check_device,
    check_generator,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_type,
)

__all__ = ["HeartBeats", "few_patients", "heart_beats"]

# Amplitude, place and width of P, Q, R, S, T and the ST segment in a beat of length 1.
_WAVES = ((0.15, 0.20, 0.03), (-0.12, 0.36, 0.012), (1.0, 0.40, 0.016), (-0.25, 0.44, 0.014), (0.35, 0.70, 0.05))
_ST_SEGMENT = (0.0, 0.55, 0.05)


class HeartBeats(NamedTuple):
    """Windows and where they come from, ordered by patient, then trial.

    Attributes:
        windows: ``(n, length, 1)`` float32.
        patients: ``(n,)`` ids from 0.
        trials: ``(n,)`` ids from 0, unique over all patients.
        labels: ``(n,)`` 1 for an ill patient, else 0.
    """

    windows: Tensor
    patients: Tensor
    trials: Tensor
    labels: Tensor


def heart_beats(
    patients: int = 12,
    trials: int = 4,
    beats: int = 6,
    *,
    length: int = 64,
    noise: float = 0.15,
    st_shift: float = 0.2,
    shift: float = 0.0,
    wander: float = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> HeartBeats:
    """Draw windows of one beat each; for unseen patients use another seed.

    Args:
        patients: number of patients; every second one is ill.
        trials: recordings of each patient.
        beats: windows of each trial.
        length: time stamps of a window, at least 8.
        noise: standard deviation in every time stamp.
        st_shift: how much illness raises the ST segment, greater than 0.
        shift: how far the beat of a window may lie from its place, as a share of the window in [0, 1]. Without it beats
            are aligned, and windows can be compared stamp by stamp.
        wander: how much the baseline (b and o) differs between trials, as a multiple of 0.1.
        seed: of all draws.
        device: where the tensors go; they are drawn on the CPU.

    Returns:
        ``patients * trials * beats`` windows.
    """
    check_count(patients=patients, trials=trials, beats=beats)
    check_count(8, length=length)
    check_in_range(0, math.inf, noise=noise, wander=wander)
    check_in_range(0, 1, shift=shift)
    check_positive(st_shift=st_shift)
    check_count(0, seed=seed)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    amplitude, place, width = torch.tensor([*_WAVES, _ST_SEGMENT]).unbind(1)  # (6,)
    ill = torch.arange(patients) % 2
    amplitude = amplitude * (1 + 0.3 * normal(patients, 6))  # (patients, 6)
    amplitude[:, -1] = st_shift * ill + 0.05 * normal(patients)
    place = place + 0.012 * normal(patients, 6)
    t = torch.linspace(0, 1, length)

    gain = 1 + 0.15 * normal(patients, trials, 1, 1)
    phase = 2 * math.pi * torch.rand(patients, trials, 1, generator=generator)
    drift = 0.1 * normal(patients, trials, 1) * torch.sin(2 * math.pi * t + phase)
    baseline = wander * (drift + 0.1 * normal(patients, trials, 1))  # (patients, trials, length)
    spread = noise * normal(patients, trials, beats, length)

    moved = shift * (2 * torch.rand(patients, trials, beats, 1, generator=generator) - 1)
    since = (t - moved)[..., None, :] - place[:, None, None, :, None]  # (patients, trials, beats, 6, length)
    bumps = torch.exp(-(since**2) / (2 * width[:, None] ** 2))
    beat = (amplitude[:, None, None, :, None] * bumps).sum(3)  # (patients, trials, beats, length)
    windows = gain * beat + baseline[:, :, None] + spread

    patient = torch.arange(patients).repeat_interleave(trials * beats)
    trial = torch.arange(patients * trials).repeat_interleave(beats)
    result = (windows.reshape(-1, length, 1), patient, trial, ill[patient])
    return HeartBeats(*(x.to(device) for x in result))


def few_patients(data: HeartBeats, per_class: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Rows of all windows of a few patients drawn at random, as many ill ones as healthy ones.

    Args:
        data: windows of at least so many ill and healthy patients.
        per_class: number of each.
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(rows,)`` int64, increasing.
    """
    check_type(HeartBeats, data=data)
    check_shapes(**{"data.patients": (data.patients, "n", int), "data.labels": (data.labels, "n", int)})
    patients = check_labels(data.patients, name="data.patients").cpu()
    labels = check_labels(data.labels, name="data.labels", num_classes=2).cpu()
    check_count(per_class=per_class)
    check_generator(generator)
    chosen = []
    for label in (0, 1):
        names = patients[labels == label].unique()
        if len(names) < per_class:
            raise ValueError(
                f"data, per_class: expected at most {len(names)} patients with label {label}, got {per_class}"
            )
        chosen.append(names[torch.randperm(len(names), generator=generator)[:per_class]])
    return torch.isin(patients, torch.cat(chosen)).nonzero()[:, 0]
