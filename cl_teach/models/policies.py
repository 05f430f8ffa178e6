"""Policies over few actions: a table of logits, a table seen through shared features, and one that writes tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_count,
    check_entries,
    check_generator,
    check_labels,
    check_positive,
    check_shapes,
    check_type,
)
from .language_model import LanguageModel
from .sequence import token_log_probability

__all__ = ["ActionPolicy", "PolicyMeasures", "TokenPolicy", "bumps", "measure"]


def bumps(actions: int = 100, count: int = 25, *, width: float = 1.0) -> Tensor:
    """``(actions, count)`` overlapping features: bump j is 1 at its center and falls off as a Gaussian.

    Args:
        actions: in a row.
        count: of centers, at equal distances.
        width: of a bump, in distances between neighboring centers.
    """
    check_count(2, actions=actions, count=count)
    check_positive(width=width)
    place, center = torch.linspace(0, 1, actions), torch.linspace(0, 1, count)
    return (-0.5 * ((place[:, None] - center) * (count - 1) / width).square()).exp()


class ActionPolicy(nn.Module):
    """A softmax over K actions in each of S states that starts exactly at a reference.

    Its logits are log-probabilities of the reference plus weights. Without features there is one weight an action, and
    what moves one action leaves all other logits alone. With features neighbors share weights: pushing an action down
    pushes its neighbors too, the policy generalizes.

    State: ``weights (S, K)`` or ``(S, F)``; ``log_reference (K,)``; ``features (K, F)`` or None.

    Args:
        reference: ``(K,)`` positive numbers, in the ratio of the probabilities.
        states: S.
        features: ``(K, F)``, see `bumps`; None for a table.
    """

    log_reference: Tensor
    features: Tensor | None

    def __init__(self, reference: Tensor, states: int = 20, *, features: Tensor | None = None) -> None:
        super().__init__()
        check_shapes(reference=(reference, "k"), features=(features, "k f?"))
        check_entries(0, float("inf"), open_low=True, reference=reference)
        check_count(states=states)
        self.register_buffer("log_reference", (reference / reference.sum()).log())
        self.register_buffer("features", None if features is None else features.to(reference))
        columns = len(reference) if features is None else features.shape[1]
        self.weights = nn.Parameter(torch.zeros(states, columns, dtype=reference.dtype, device=reference.device))

    def log_probabilities(self) -> Tensor:
        """``(S, K)`` of all actions in all states."""
        moved = self.weights if self.features is None else self.weights @ self.features.mT
        return (self.log_reference + moved).log_softmax(1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities ``(n, N)`` of ``actions (n, N)`` in ``states (n,)``."""
        check_shapes(states=(states, "n", int), actions=(actions, "n N", int))
        states = check_labels(states, name="states", num_classes=len(self.weights))
        flat = check_labels(actions.flatten(), name="actions", num_classes=len(self.log_reference))
        return self.log_probabilities()[states].gather(1, flat.view_as(actions))

    @torch.no_grad()
    def sample(self, states: Tensor, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``(len(states), n)`` actions."""
        check_shapes(states=(states, "n", int))
        states = check_labels(states, name="states", num_classes=len(self.weights))
        check_count(n=n)
        check_generator(generator)
        return torch.multinomial(self.log_probabilities()[states].exp(), n, replacement=True, generator=generator)


class TokenPolicy(nn.Module):
    """A policy that writes an action token by token, each of K kinds, after it has read its state.

    A small recurrent network adds to the reference's log-probabilities; its output layer starts at zero, so that the
    first policy is the reference, every token drawn by itself. All states and places share its weights.

    Args:
        reference: ``(K,)`` positive numbers, in the ratio of the probabilities of a token.
        states: S; a state is a token of its own, read first.
        length: T, tokens of an action.
        width: of the network.
    """

    log_reference: Tensor

    def __init__(self, reference: Tensor, states: int = 20, *, length: int = 9, width: int = 32) -> None:
        super().__init__()
        check_shapes(reference=(reference, "k"))
        check_entries(0, float("inf"), open_low=True, reference=reference)
        check_count(states=states, length=length, width=width)
        self.register_buffer("log_reference", (reference / reference.sum()).log())
        self.states, self.length = states, length
        self.model = LanguageModel(len(reference) + states, width)
        nn.init.zeros_(self.model.output.weight)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities ``(n, N)`` of ``actions (n, N, T)`` in ``states (n,)``: sums over the tokens."""
        check_shapes(states=(states, "n", int), actions=(actions, f"n N {self.length}", int))
        kinds = len(self.log_reference)
        states = check_labels(states, name="states", num_classes=self.states)
        written = check_labels(actions.flatten(), name="actions", num_classes=kinds).view(-1, self.length)
        first = (kinds + states).repeat_interleave(actions.shape[1])
        logits = self._logits(torch.cat([first[:, None], written[:, :-1]], dim=1))  # (n N, T, K)
        return token_log_probability(logits, written).sum(1).view(actions.shape[:2])

    @torch.no_grad()
    def sample(self, states: Tensor, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``(len(states), n, T)`` tokens."""
        check_shapes(states=(states, "n", int))
        states = check_labels(states, name="states", num_classes=self.states)
        check_count(n=n)
        check_generator(generator)
        tokens = (len(self.log_reference) + states).repeat_interleave(n)[:, None]
        for _ in range(self.length):
            chances = self._logits(tokens)[:, -1].softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=generator)], dim=1)
        return tokens[:, 1:].reshape(len(states), n, self.length)

    def _logits(self, tokens: Tensor) -> Tensor:
        return self.log_reference + self.model(tokens)[1][..., : len(self.log_reference)]


class PolicyMeasures(NamedTuple):
    """Means over states: expected ``reward``, ``divergence`` KL(pi || reference) and ``entropy``."""

    reward: float
    divergence: float
    entropy: float


@torch.no_grad()
def measure(policy: ActionPolicy, rewards: Tensor) -> PolicyMeasures:
    """What a policy over few actions with known ``rewards (K,)`` earns, exactly."""
    check_type(ActionPolicy, policy=policy)
    log_p = policy.log_probabilities()  # (S, K)
    check_shapes(rewards=(rewards, str(log_p.shape[1])))
    p = log_p.exp()
    leaving = (p * (log_p - policy.log_reference)).sum(1).mean()
    return PolicyMeasures((p @ rewards.to(p)).mean().item(), leaving.item(), -(p * log_p).sum(1).mean().item())
