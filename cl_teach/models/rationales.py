"""A student that answers and explains, and a judge of explanations: small recurrent readers of padded tokens.

Token 0 starts a text, ends it and fills it up behind its end; what is written are tokens from 1 on. A text of zeros
only says nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_generator, check_in_range, check_shapes

__all__ = ["Discriminator", "Student", "check_texts"]


def check_texts(vocabulary: int, shape: str, **texts: Tensor) -> dict[str, Tensor]:
    """Check padded texts: integers of any width in [0, vocabulary), nothing behind a 0; returns them as int64.

    Args:
        vocabulary: number of tokens.
        shape: as in `check_shapes`, for all of them.
        **texts: by the caller's argument names.
    """
    for name, tokens in texts.items():
        check_shapes(**{name: (tokens, shape, int)})
        check_entries(0, vocabulary - 1, open_low=False, **{name: tokens})
        if ((tokens[..., :-1] == 0) & (tokens[..., 1:] != 0)).any():
            raise ValueError(f"{name}: expected zeros at the right end only, got a token behind a 0")
    return {name: tokens.long() for name, tokens in texts.items()}


class Student(nn.Module):
    """A recurrent reader of a question with two heads: the label, and a rationale token by token."""

    def __init__(self, vocabulary: int, classes: int, dim: int = 32) -> None:
        """Make the layers.

        Args:
            vocabulary: number of tokens, token 0 included.
            classes: number of labels K.
            dim: width of the states.
        """
        super().__init__()
        check_count(2, vocabulary=vocabulary)
        check_count(classes=classes, dim=dim)
        self.vocabulary, self.classes = vocabulary, classes
        self.embedding = nn.Embedding(vocabulary, dim)
        self.reader, self.writer = nn.GRU(dim, dim, batch_first=True), nn.GRU(dim, dim, batch_first=True)
        self.label_head, self.token_head = nn.Linear(dim, classes), nn.Linear(dim, vocabulary)

    def label(self, question: Tensor) -> Tensor:
        """``(n, K)`` logits of the labels of questions ``(n, S)``."""
        question = check_texts(self.vocabulary, "n S", question=question)["question"]
        return self.label_head(_read(self.reader, self.embedding, question))

    def forward(self, question: Tensor, rationales: Tensor) -> Tensor:
        """Next-token logits of R rationales of every question.

        Args:
            question: ``(n, S)``.
            rationales: ``(n, R, T)``.

        Returns:
            ``(n, R, T + 1, V)``; position t has seen the tokens before t, and the last one sees them all and says
            whether the text ends.
        """
        question = check_texts(self.vocabulary, "n S", question=question)["question"]
        rationales = check_texts(self.vocabulary, "n R T", rationales=rationales)["rationales"]
        check_shapes(question=(question, "n S", int), rationales=(rationales, "n R T", int))
        n, count, _ = rationales.shape
        start = _read(self.reader, self.embedding, question).repeat_interleave(count, 0)  # (n R, dim)
        before = nn.functional.pad(rationales.flatten(0, 1), (1, 0))  # (n R, T + 1), token 0 starts
        states, _ = self.writer(self.embedding(before), start[None])
        return self.token_head(states).unflatten(0, (n, count))

    @torch.no_grad()
    def write(
        self, question: Tensor, length: int, temperature: float = 0.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Write one rationale for every question ``(n, S)``, all at the same time.

        Args:
            question: ``(n, S)``.
            length: the longest one.
            temperature: of the draws; 0 takes the likeliest token.
            generator: of the draws.

        Returns:
            ``(n, length)``, 0 behind the end.
        """
        question = check_texts(self.vocabulary, "n S", question=question)["question"]
        check_count(length=length)
        check_in_range(0, 1e6, temperature=temperature)
        check_generator(generator)
        state = _read(self.reader, self.embedding, question)[None]
        token = question.new_zeros(len(question))
        ended, tokens = torch.zeros_like(token, dtype=torch.bool), []
        for _ in range(length):
            hidden, state = self.writer(self.embedding(token)[:, None], state)
            logits = self.token_head(hidden[:, 0]).float()
            # Below this temperature a draw is the likeliest token, and the quotient would leave float32.
            token = logits.argmax(1) if temperature < 1e-6 else _draw(logits / temperature, generator)
            token = token.masked_fill(ended, 0)
            ended = ended | (token == 0)
            tokens.append(token)
        return torch.stack(tokens, 1)


class Discriminator(nn.Module):
    """Reads a question, then a rationale, and gives one logit: how good the rationale looks."""

    def __init__(self, vocabulary: int, dim: int = 32) -> None:
        """Make the layers.

        Args:
            vocabulary: number of tokens, token 0 included.
            dim: width of the states.
        """
        super().__init__()
        check_count(2, vocabulary=vocabulary)
        check_count(dim=dim)
        self.vocabulary = vocabulary
        self.embedding, self.head = nn.Embedding(vocabulary, dim), nn.Linear(dim, 1)
        self.reader = nn.GRU(dim, dim, batch_first=True)

    def forward(self, question: Tensor, rationales: Tensor) -> Tensor:
        """``(n, R)`` logits of rationales ``(n, R, T)`` of questions ``(n, S)``."""
        question = check_texts(self.vocabulary, "n S", question=question)["question"]
        rationales = check_texts(self.vocabulary, "n R T", rationales=rationales)["rationales"]
        check_shapes(question=(question, "n S", int), rationales=(rationales, "n R T", int))
        n, count, _ = rationales.shape
        start = _read(self.reader, self.embedding, question).repeat_interleave(count, 0)
        states = _read(self.reader, self.embedding, rationales.flatten(0, 1), start)  # (n R, dim)
        return self.head(states).view(n, count)


def _read(reader: nn.GRU, embedding: nn.Embedding, tokens: Tensor, start: Tensor | None = None) -> Tensor:
    """State ``(n, dim)`` after the last token of each text ``(n, T)``; that of the start where a text is empty."""
    states, _ = reader(embedding(tokens), None if start is None else start[None])
    length = (tokens != 0).sum(1)
    last = states.gather(1, (length - 1).clamp_min(0)[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
    empty = torch.zeros_like(last) if start is None else start.to(last)
    return torch.where(length[:, None] == 0, empty, last)


def _draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    where = logits.device if generator is None else generator.device
    return torch.multinomial(logits.softmax(1).to(where), 1, generator=generator)[:, 0].to(logits.device)
