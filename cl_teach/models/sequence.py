"""Log-probabilities of token sequences: which positions count, and what each token there costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_generator, check_labels, check_module, check_shapes, check_type
from ..core.precision import full_precision

__all__ = ["continue_tokens", "predicting_states", "read_tokens", "response_log_probability", "token_log_probability"]


def predicting_states(time: int, last_prompt: Tensor, last_token: Tensor | None = None) -> Tensor:
    """Which positions predict a response token: from the prompt's last one to the one before the response's last.

    Args:
        time: T, length of the padded sequences.
        last_prompt: ``(n,)`` position of the prompt's last token.
        last_token: ``(n,)`` position of the response's last token; T - 1 if None, as with left padding.

    Returns:
        ``(n, T)`` boolean, with as many True in a row as the response has tokens.

    """
    check_count(time=time)
    check_shapes(last_prompt=(last_prompt, "n", int), last_token=(last_token, "n?", int))
    last_prompt = check_labels(last_prompt, name="last_prompt", num_classes=time)
    end = torch.full_like(last_prompt, time - 1) if last_token is None else last_token
    end = check_labels(end, len(last_prompt), name="last_token", num_classes=time)
    if bool((end <= last_prompt).any()):
        raise ValueError("last_token: expected a position after last_prompt in every row, got an empty response")
    position = torch.arange(time, device=last_prompt.device)
    return (position >= last_prompt[:, None]) & (position < end[:, None])


@full_precision
def token_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability ``(n, T)`` of every token, where position t of the logits predicts position t of the labels.

    Args:
        logits: ``(n, T, V)``.
        labels: ``(n, T)`` integers, the tokens one step later than those that were read.

    """
    check_shapes(logits=(logits, "n T V"), labels=(labels, "n T", int))
    labels = check_labels(labels.flatten(), name="labels, logits", num_classes=logits.shape[-1]).view_as(labels)
    return logits.log_softmax(-1).gather(2, labels[..., None]).squeeze(2)


@full_precision
def response_log_probability(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Sum ``(n,)`` of the log-probabilities of the response's tokens.

    Args:
        logits: ``(n, T, V)``; position t predicts token t + 1.
        tokens: ``(n, T)``.
        mask: ``(n, T)`` see `predicting_states`; the last column is False.

    """
    check_shapes(logits=(logits, "n T V"), tokens=(tokens, "n T", int), mask=(mask, "n T", bool))
    if tokens.shape[1] < 2:
        raise ValueError(f"logits, tokens: expected at least 2 tokens, the first is only read, got {tokens.shape[1]}")
    tokens = check_labels(tokens.flatten(), name="tokens, logits", num_classes=logits.shape[-1]).view_as(tokens)
    return (token_log_probability(logits[:, :-1], tokens[:, 1:]) * mask[:, :-1]).sum(1)


def read_tokens(model: nn.Module, tokens: Tensor, *, name: str = "tokens") -> tuple[Tensor, Tensor]:
    """Run a language model that somebody else brought, and answer in a sentence when it does not fit.

    Args:
        model: tokens ``(n, T)`` to states ``(n, T, d)`` and logits ``(n, T, V)``.
        tokens: ``(n, T)`` integers.
        name: under which the caller knows the tokens.

    Raises:
        ValueError: the model does not take these tokens, or gives something else.
    """
    check_module(model=model)
    check_type(str, name=name)
    check_shapes(**{name: (tokens, "n T", int)})
    tokens = check_labels(tokens.flatten(), name=name).view_as(tokens)
    try:
        found = model(tokens)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        says = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}, model: {type(model).__name__} does not take these tokens: {says}") from error
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ValueError(f"model: expected states and logits, {type(model).__name__} gives {type(found).__name__}")
    n, t = tokens.shape
    check_shapes(**{"model(tokens)[0]": (found[0], f"{n} {t} d"), "model(tokens)[1]": (found[1], f"{n} {t} V")})
    return found[0], found[1]


@torch.no_grad()
def continue_tokens(
    model: nn.Module, tokens: Tensor, length: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Write on: draw token after token from a language model.

    Args:
        model: tokens ``(n, T)`` to states and logits ``(n, T, V)``.
        tokens: ``(n, T)`` to begin with.
        length: how many are written.
        generator: of the draws.

    Returns:
        ``(n, T + length)`` int64, the given tokens first.
    """
    check_module(model=model)
    check_shapes(tokens=(tokens, "n T", int))
    check_count(length=length)
    check_generator(generator)
    tokens = check_labels(tokens.flatten(), name="tokens").view_as(tokens)
    for _ in range(length):
        chances = read_tokens(model, tokens)[1][:, -1].float().softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=generator)], dim=1)
    return tokens
