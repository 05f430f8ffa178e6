"""Reviews with a spurious cue: words of praise and complaint, and words that merely go along with the one or the other.

Why a reviewer is content stands in the review, said with some noise: good places get a bad word, too. Beside it stands
where the reviewer was, which has nothing to do with it but *agrees* with the label in a chosen share of the reviews. A
test set in which it agrees in another share is a shifted test.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_entries, check_in_range, check_shapes

__all__ = ["REVIEW_WORDS", "WORD_KINDS", "Reviews", "cued_reviews", "review_text"]

_COMPLAINT, _PRAISE = (
    "awful bland rude dreadful slow dirty".split(),
    "great tasty lovely superb friendly perfect".split(),
)
_AIRPORT, _DOWNTOWN = "airport mall highway parking".split(), "downtown terrace corner garden".split()
_FILLER = """we had ordered soup then waiter came table lunch menu again friend plate water bill seat door salad bread
    first two with after glass""".split()
OPINIONS, CUES, FILLERS = 4, 2, 4  # words of each sort in a review

#: All words; word 0 is a gap.
REVIEW_WORDS = ("", *_COMPLAINT, *_PRAISE, *_AIRPORT, *_DOWNTOWN, *_FILLER)

#: What each word is: 0 the gap, 1 an opinion, 2 a cue, 3 a filler.
WORD_KINDS = torch.tensor(
    [0, *[1] * len([*_COMPLAINT, *_PRAISE]), *[2] * len([*_AIRPORT, *_DOWNTOWN]), *[3] * len(_FILLER)]
)


class Reviews(NamedTuple):
    """Reviews and whether they are content.

    Attributes:
        tokens: ``(n, 10)`` words of `REVIEW_WORDS`.
        labels: ``(n,)`` 1 for a content reviewer, 0 otherwise.
        places: ``(n,)`` 1 for downtown, 0 for the airport: the cue.
    """

    tokens: Tensor
    labels: Tensor
    places: Tensor


def cued_reviews(n: int, agreement: float = 0.75, *, clarity: float = 0.8, seed: int = 0) -> Reviews:
    """Draw reviews: four words of opinion, two of the place, four that say nothing.

    Args:
        n: number of reviews.
        agreement: share of reviews in which the place agrees with the label, in [0, 1]; 0.5 says nothing.
        clarity: probability that a word of opinion agrees with the label, each by itself, in [0, 1].
        seed: of the draws.

    Example:
        >>> made = cued_reviews(4, agreement=1.0)
        >>> made.tokens.shape, torch.equal(made.labels, made.places)
        (torch.Size([4, 10]), True)
    """
    check_count(n=n)
    check_in_range(0, 1, agreement=agreement, clarity=clarity)
    check_count(0, seed=seed)
    draws = torch.Generator().manual_seed(seed)

    def chance(share: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=draws) < share

    def words(lists: tuple[list[str], ...], count: int, which: Tensor) -> Tensor:
        table = torch.tensor([[REVIEW_WORDS.index(word) for word in each] for each in lists])
        return table[which, torch.randint(table.shape[1], (n, count), generator=draws)]

    labels = torch.randint(2, (n,), generator=draws)
    places = torch.where(chance(agreement, n), labels, 1 - labels)
    opinion = torch.where(chance(clarity, n, OPINIONS), labels[:, None], 1 - labels[:, None])
    parts = [
        words((_COMPLAINT, _PRAISE), OPINIONS, opinion),
        words((_AIRPORT, _DOWNTOWN), CUES, places[:, None].expand(-1, CUES)),
        words((_FILLER,), FILLERS, torch.zeros(n, FILLERS, dtype=torch.long)),
    ]
    tokens = torch.cat(parts, 1)
    order = torch.rand(tokens.shape, generator=draws).argsort(1)
    return Reviews(tokens.gather(1, order), labels, places)


def review_text(tokens: Tensor) -> list[str]:
    """Words ``(n, L)`` of `REVIEW_WORDS` as text; gaps are not written."""
    check_shapes(tokens=(tokens, "n L", int))
    check_entries(0, len(REVIEW_WORDS) - 1, tokens=tokens)
    return [" ".join(REVIEW_WORDS[i] for i in row if i) for row in tokens.tolist()]
