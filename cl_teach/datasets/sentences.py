"""Sentences of which it is known what they mean: the same meaning in other words, and other meanings in the same words.

A meaning is four concepts: who, did, what, where. A concept can be said with three words, and a frame of function words
puts the four into order; ``template_sentences`` says every meaning several times. ``template_pairs`` sets apart what
goes together in real text: how many *concepts* two sentences share, and how many *words*.

Meanings come from a small world in which everybody has habits (who does what, to what, where), so that words for the
same concept stand beside the same words, as in real text: word vectors can be learned from nothing but the sentences.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_entries, check_in_range, check_shapes

__all__ = [
    "CONCEPTS",
    "SENTENCE_WORDS",
    "SentencePairs",
    "Sentences",
    "sentence_text",
    "template_pairs",
    "template_sentences",
]

_WHO = """doctor physician medic, child kid youngster, thief burglar robber, teacher instructor tutor, lawyer attorney
    counsel, king monarch ruler, woman lady dame, sailor seaman mariner, student pupil learner, boss manager chief,
    soldier trooper fighter, farmer grower planter"""
_DID = """bought purchased acquired, mended repaired fixed, ruined destroyed wrecked, found discovered located, sold
    traded peddled, lost misplaced mislaid, cleaned washed scrubbed, carried hauled transported, described depicted
    portrayed, praised lauded commended"""
_WHAT = """car automobile vehicle, picture painting canvas, stone rock boulder, gift present donation, book volume tome,
    coat jacket parka, lamp lantern light, sofa couch settee, bicycle bike cycle, rug carpet mat, ship boat vessel, hat
    cap bonnet"""
_WHERE = """shop store boutique, woods forest grove, street road lane, harbor port dock, hut cabin shack, city town
    metropolis, yard garden courtyard, school academy college, barn shed stable, hill mountain slope"""
_FRAMES = """the WHO DID the WHAT in the WHERE; the WHAT was DID by the WHO in the WHERE; in the WHERE the WHO DID the
    WHAT; in the WHERE the WHAT was DID by the WHO; it was the WHO who DID the WHAT in the WHERE; they say that the WHO
    DID the WHAT in the WHERE; last week the WHAT was DID by the WHO in the WHERE; we heard that in the WHERE the WHO
    had DID the WHAT"""

#: For each of who, did, what, where: its concepts, each a tuple of three words that mean the same.
CONCEPTS = tuple(tuple(tuple(concept.split()) for concept in kind.split(",")) for kind in (_WHO, _DID, _WHAT, _WHERE))
SYNONYMS = 3
_KINDS = ("WHO", "DID", "WHAT", "WHERE")
_SPLIT = [frame.split() for frame in _FRAMES.split(";")]
_CONTENT = [word for kind in CONCEPTS for concept in kind for word in concept]
_FUNCTION = list(dict.fromkeys(word for frame in _SPLIT for word in frame if word not in _KINDS))

#: All words; word 0 is a gap.
SENTENCE_WORDS = ("", *_CONTENT, *_FUNCTION)

_NUMBER = {word: i for i, word in enumerate(SENTENCE_WORDS)}
_SIZES = tuple(len(kind) for kind in CONCEPTS)
_LENGTH = max(map(len, _SPLIT))
# What stands at each place of a frame: a word, a gap (0), or minus one to minus four for one of the four concepts.
_PLACES = torch.tensor(
    [
        [-1 - _KINDS.index(word) if word in _KINDS else _NUMBER[word] for word in frame] + [0] * (_LENGTH - len(frame))
        for frame in _SPLIT
    ]
)
_FIRST = torch.tensor([1 + SYNONYMS * sum(_SIZES[:kind]) for kind in range(4)])  # first word of each kind


class Sentences(NamedTuple):
    """Sentences and what they mean.

    Attributes:
        tokens: ``(n, 12)`` words of `SENTENCE_WORDS`, 0 behind the end.
        concepts: ``(n, 4)`` who, did, what, where, as numbers of `CONCEPTS`.
        meaning: ``(n,)`` the same number for the same four concepts.
        wording: ``(n, 4)`` which of its three words stands for each concept.
        frame: ``(n,)`` which frame puts them into order.
    """

    tokens: Tensor
    concepts: Tensor
    meaning: Tensor
    wording: Tensor
    frame: Tensor


class SentencePairs(NamedTuple):
    """Pairs of sentences.

    Attributes:
        first: ``(n, 12)`` words of `SENTENCE_WORDS`.
        second: ``(n, 12)``.
        shared_concepts: ``(n,)`` how many of the four concepts are the same, 0 to 4.
        shared_words: ``(n,)`` how many of the words for the four concepts are the same.
    """

    first: Tensor
    second: Tensor
    shared_concepts: Tensor
    shared_words: Tensor


def template_sentences(meanings: int = 60, forms: int = 4, *, habits: float = 1.5, seed: int = 0) -> Sentences:
    """Different meanings, each said in several different ways.

    Args:
        meanings: number of different meanings.
        forms: sentences of each meaning, 1 to 648; their words and frames are drawn, no two are equal.
        habits: how much the concepts of a sentence depend on one another; 0 for not at all.
        seed: of the draws; the habits are always the same.

    Returns:
        ``meanings * forms`` sentences; those of one meaning follow one another.

    Example:
        >>> made = template_sentences(2, 2)
        >>> made.meaning.tolist(), made.tokens.shape
        ([0, 0, 1, 1], torch.Size([4, 12]))
    """
    check_count(1, _SIZES[0] * _SIZES[1] * _SIZES[2] * _SIZES[3] // 2, meanings=meanings)
    ways = SYNONYMS**4 * len(_PLACES)
    check_count(1, ways, forms=forms)
    check_in_range(0, 10, habits=habits)
    check_count(0, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    found: dict[tuple[int, ...], None] = {}
    for _ in range(1000):
        found |= dict.fromkeys(map(tuple, _draw_concepts(meanings, habits, draws).tolist()))
        if len(found) >= meanings:
            break
    else:
        raise ValueError(f"habits: {habits:g} leaves fewer than meanings={meanings} that are ever drawn; lower it")
    concepts = torch.tensor(list(found)[:meanings]).repeat_interleave(forms, 0)
    way = torch.rand(meanings, ways, generator=draws).topk(forms, dim=1).indices.flatten()  # no two alike
    frame = way % len(_PLACES)
    wording = torch.stack([way // (len(_PLACES) * SYNONYMS**k) % SYNONYMS for k in range(4)], 1)
    meaning = torch.arange(meanings).repeat_interleave(forms)
    return Sentences(_say(concepts, wording, frame), concepts, meaning, wording, frame)


def template_pairs(
    shared_concepts: Tensor, shared_words: Tensor, *, habits: float = 1.5, seed: int = 0
) -> SentencePairs:
    """Pairs that share so much meaning and so many words.

    Which concepts and words are shared is drawn; a concept that is not shared becomes another one of its kind, a shared
    concept whose word is not shared is said with another of its three words. Both frames are drawn.

    Args:
        shared_concepts: ``(n,)`` integers, 0 to 4.
        shared_words: ``(n,)`` integers, 0 to as many as the pair shares concepts: no word has two meanings.
        habits: see `template_sentences`.
        seed: of the draws.

    Example:
        >>> pairs = template_pairs(torch.tensor([4, 3]), torch.tensor([0, 3]))
        >>> pairs.first.shape
        torch.Size([2, 12])
    """
    check_shapes(shared_concepts=(shared_concepts, "n", int), shared_words=(shared_words, "n", int))
    check_entries(0, 4, shared_concepts=shared_concepts, shared_words=shared_words)
    if (shared_words > shared_concepts).any():
        raise ValueError("shared_words: expected at most shared_concepts, since no word has two meanings, got more")
    check_in_range(0, 10, habits=habits)
    check_count(0, seed=seed)
    draws, n = torch.Generator().manual_seed(seed), len(shared_concepts)
    shared_concepts, shared_words = shared_concepts.long().cpu(), shared_words.long().cpu()
    concepts, sizes = _draw_concepts(n, habits, draws), torch.tensor(_SIZES)
    rank = torch.rand(n, 4, generator=draws).argsort(1).argsort(1)  # a random order of the four
    same, same_word = rank < shared_concepts[:, None], rank < shared_words[:, None]
    other = (concepts + 1 + (torch.rand(n, 4, generator=draws) * (sizes - 1)).long()) % sizes
    wording = torch.randint(SYNONYMS, (n, 4), generator=draws)
    reworded = (wording + torch.randint(1, SYNONYMS, (n, 4), generator=draws)) % SYNONYMS
    fresh = torch.randint(SYNONYMS, (n, 4), generator=draws)
    frame = torch.randint(len(_PLACES), (2, n), generator=draws)
    second_concepts = torch.where(same, concepts, other)
    second_wording = torch.where(same_word, wording, torch.where(same, reworded, fresh))
    return SentencePairs(
        _say(concepts, wording, frame[0]),
        _say(second_concepts, second_wording, frame[1]),
        shared_concepts,
        shared_words,
    )


def sentence_text(tokens: Tensor) -> list[str]:
    """Words ``(n, L)`` of `SENTENCE_WORDS` as text; gaps are not written."""
    check_shapes(tokens=(tokens, "n L", int))
    check_entries(0, len(SENTENCE_WORDS) - 1, tokens=tokens)
    return [" ".join(SENTENCE_WORDS[i] for i in row if i) for row in tokens.tolist()]


def _say(concepts: Tensor, wording: Tensor, frame: Tensor) -> Tensor:
    """``(n, 12)`` words of concepts ``(n, 4)`` in these wordings ``(n, 4)`` and frames ``(n,)``."""
    content = _FIRST + SYNONYMS * concepts + wording  # (n, 4)
    places = _PLACES[frame]  # (n, 12)
    return torch.where(places < 0, content.gather(1, (-1 - places).clamp_min(0)), places)


def _draw_concepts(n: int, habits: float, draws: torch.Generator) -> Tensor:
    """``(n, 4)``: who is drawn alike, did and where depend on who, what on both who and did."""
    table = torch.Generator().manual_seed(0)  # the world is always the same
    who_did, who_what, who_where, did_what = (
        habits * torch.randn(_SIZES[a], _SIZES[b], generator=table) for a, b in ((0, 1), (0, 2), (0, 3), (1, 2))
    )

    def pick(logits: Tensor) -> Tensor:
        return torch.multinomial(logits.softmax(1), 1, generator=draws)[:, 0]

    who = torch.randint(_SIZES[0], (n,), generator=draws)
    did = pick(who_did[who])
    return torch.stack([who, did, pick(who_what[who] + did_what[did]), pick(who_where[who])], 1)
