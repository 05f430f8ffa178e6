"""Tables of who met what, and items that a user never met."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_generator, check_labels, check_shapes

__all__ = ["draw_unseen"]


def draw_unseen(interactions: Tensor, users: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """For each user of a batch ``(B,)``, one item that the user never met, uniformly.

    Args:
        interactions: ``(I, J)`` boolean.
        users: ``(B,)`` integers below I.
        generator: on the CPU.

    Raises:
        ValueError: a user who met every item.
    """
    check_shapes(interactions=(interactions, "I J", bool))
    check_shapes(users=(users, "B", int))
    users = check_labels(users, name="users, interactions", num_classes=len(interactions))
    check_generator(generator)
    unseen = ~interactions[users]  # (B, J)
    if not unseen.any(1).all():
        who = int(users[~unseen.any(1)][0])
        raise ValueError(f"interactions, users: user {who} met every item, nothing is unseen")
    return torch.multinomial(unseen.float().cpu(), 1, generator=generator)[:, 0].to(users.device)
