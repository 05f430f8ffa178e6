"""Sentences about sprites and about nothing."""

import pytest
import torch

from cl_teach.datasets.captions import CAPTION_WORDS, abstract_sentences, as_text, sprite_captions
from cl_teach.datasets.sprites import SPRITE_FACTORS, sprites

VISIBLE = {word for values in SPRITE_FACTORS.values() for word in values}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_vocabulary_has_a_gap_and_no_word_twice():
    assert CAPTION_WORDS[0] == "" and len(set(CAPTION_WORDS)) == len(CAPTION_WORDS) == 1 + 26 + 36


def test_a_caption_names_exactly_the_values_of_its_sprite():
    made = sprites(50, seed=3, size=16)
    for said in (tuple(SPRITE_FACTORS), ("size", "color")):
        captions = sprite_captions(made.factors, said, fillers=4, generator=generator())
        assert captions.shape == (50, len(said) + 4)
        for i, text in enumerate(as_text(captions)):
            words = text.split()
            assert words[: len(said)] == [SPRITE_FACTORS[name][made.factors[name][i]] for name in said]
            assert not set(words[len(said) :]) & VISIBLE


def test_abstract_sentences_hold_visible_words_by_accident_only():
    rates = []
    for accident in (0.0, 0.15, 1.0):
        words = abstract_sentences(2000, ("shape", "color"), accident=accident, generator=generator())
        visible = (words >= 1) & (words <= 26)
        assert not visible[:, 2:].any()
        rates.append(visible[:, :2].float().mean().item())
    assert rates[0] == 0 and rates[1] == pytest.approx(0.15, abs=0.02) and rates[2] == 1


def test_one_seed_gives_one_set_and_gaps_are_not_written():
    a, b, c = (abstract_sentences(5, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert as_text(torch.tensor([[0, 1, 0]])) == ["circle"]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: sprite_captions({}, generator=generator()), ValueError, "factors"),
        (lambda: sprite_captions({"shape": torch.tensor([6])}, ["shape"], generator=generator()), ValueError, "shape"),
        (lambda: sprite_captions({"shape": torch.ones(1)}, ["shape"], generator=generator()), TypeError, "shape"),
        (lambda: sprite_captions({"mood": torch.tensor([0])}, ["mood"], generator=generator()), ValueError, "mood"),
        (lambda: sprite_captions({}, [], generator=generator()), ValueError, "said"),
        (lambda: abstract_sentences(0, generator=generator()), ValueError, "n:"),
        (lambda: abstract_sentences(2, ["mood"], generator=generator()), ValueError, "mood"),
        (lambda: abstract_sentences(2, accident=2.0, generator=generator()), ValueError, "accident"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
