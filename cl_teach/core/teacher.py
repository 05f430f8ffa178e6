"""A slow copy of a network: its weights are a running average of the student's."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .checks import check_in_range, check_module

__all__ = ["MomentumTeacher"]


class MomentumTeacher(nn.Module):
    r"""An exponential moving average of a student network, :math:`\theta' \leftarrow m\,\theta' + (1-m)\,\theta`.

    It starts as an exact copy, needs no gradient, and is called like the student. Buffers (BatchNorm statistics) are
    copied, not averaged: they are running averages already. With m = 0 the teacher is the student of the last update,
    with m = 1 it never moves; a mean memory of 1/(1 - m) updates lies between.

    The average is kept in at least float32: in half precision a step of 1 - m = 0.004 is smaller than the distance
    between neighboring numbers, and the teacher of a half-precision student would never move. `network` has the
    student's dtype, so that it takes what the student takes. It stays in evaluation mode or follows `train`, like any
    part of a module.

    Source: He et al., Momentum Contrast (2020), equation 2; Grill et al., Bootstrap Your Own Latent (2020), equation 1.
    """

    def __init__(self, student: nn.Module, momentum: float = 0.996) -> None:
        """Copy the student.

        Args:
            student: the network to follow.
            momentum: m in [0, 1].

        Raises:
            ValueError: ``momentum`` outside [0, 1].
        """
        super().__init__()
        check_module(student=student)
        check_in_range(0, 1, momentum=momentum)
        self.momentum = momentum
        self.network = copy.deepcopy(student).requires_grad_(False)
        # Only what is in half precision needs a second, wider copy.
        self.averages = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(parameter.float(), requires_grad=False)
                for name, parameter in self.network.named_parameters()
                if parameter.is_floating_point() and parameter.dtype.itemsize < 4
            }
        )

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move every weight a little toward the student's. Call it after the optimizer step.

        Raises:
            ValueError: the student's parameters do not match those of the copy.
        """
        check_module(student=student)
        mine, theirs = dict(self.network.named_parameters()), dict(student.named_parameters())
        if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in theirs.items()}:
            raise ValueError("student: its parameters differ in name or shape from those the teacher was made from")
        for name, parameter in mine.items():
            key = name.replace(".", "/")
            average = self.averages[key] if key in self.averages else parameter
            average.lerp_(theirs[name].to(average), 1 - self.momentum)
            if average is not parameter:
                parameter.copy_(average)
        for mine_b, theirs_b in zip(self.network.buffers(), student.buffers(), strict=True):
            mine_b.copy_(theirs_b)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The copy's output, without a graph."""
        return self.network(*args, **kwargs)
