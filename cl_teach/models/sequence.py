"""Log-probabilities of token sequences: which positions count, and what each token there costs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import check_embeddings, check_labels, check_mask, check_same_shape

__all__ = ["predicting_states", "response_log_probability", "token_log_probability"]


def predicting_states(time: int, last_prompt: Tensor, last_token: Tensor | None = None) -> Tensor:
    """Which positions predict a response token: from the prompt's last one to the one before the response's last.

    Args:
        time: T, length of the padded sequences.
        last_prompt: ``(n,)`` position of the prompt's last token.
        last_token: ``(n,)`` position of the response's last token; T - 1 if None, as with left padding.

    Returns:
        ``(n, T)`` boolean, with as many True in a row as the response has tokens.

    Raises:
        TypeError, ValueError: wrong dtype; positions out of range, or an empty response.
    """
    check_labels(last_prompt, len(last_prompt), name="last_prompt", num_classes=time)
    end = torch.full_like(last_prompt, time - 1) if last_token is None else last_token
    check_labels(end, len(last_prompt), name="last_token", num_classes=time)
    if bool((end <= last_prompt).any()):
        raise ValueError("last_token: expected a position after last_prompt in every row, got an empty response")
    position = torch.arange(time, device=last_prompt.device)
    return (position >= last_prompt[:, None]) & (position < end[:, None])


def token_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability ``(n, T)`` of every token, where position t of the logits predicts position t of the labels.

    Args:
        logits: ``(n, T, V)``.
        labels: ``(n, T)`` int64, the tokens one step later than those that were read.

    Raises:
        TypeError, ValueError: wrong dtype; shapes do not fit, a label out of range, NaN.
    """
    check_embeddings(ndim=3, logits=logits)
    check_same_shape(labels=labels, logits=logits[..., 0])
    check_labels(labels.flatten(), labels.numel(), num_classes=logits.shape[-1])
    return logits.log_softmax(-1).gather(2, labels[..., None]).squeeze(2)


def response_log_probability(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Sum ``(n,)`` of the log-probabilities of the response's tokens.

    Args:
        logits: ``(n, T, V)``; position t predicts token t + 1.
        tokens: ``(n, T)``.
        mask: ``(n, T)`` see `predicting_states`; the last column is False.

    Raises:
        TypeError, ValueError: wrong dtype; shapes do not fit, NaN.
    """
    check_embeddings(ndim=3, logits=logits)
    check_mask(mask, tuple(tokens.shape), name="mask")
    check_same_shape(tokens=tokens, mask=mask, logits=logits[..., 0])
    return (token_log_probability(logits[:, :-1], tokens[:, 1:]) * mask[:, :-1]).sum(1)
