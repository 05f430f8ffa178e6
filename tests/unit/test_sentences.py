"""Template sentences, reviews with a cue, and the bags of words that read them."""

import pytest
import torch

from cl_teach.datasets import (
    CONCEPTS,
    REVIEW_WORDS,
    SENTENCE_WORDS,
    WORD_KINDS,
    cued_reviews,
    review_text,
    sentence_text,
    template_pairs,
    template_sentences,
)
from cl_teach.models import BagOfWords, context_vectors, word_counts, word_overlap

CONCEPT_OF = {
    word: (kind, i) for kind, concepts in enumerate(CONCEPTS) for i, concept in enumerate(concepts) for word in concept
}


def meaning(text):
    """Kind to concept, read off the words."""
    found = [CONCEPT_OF[word] for word in text.split() if word in CONCEPT_OF]
    assert sorted(kind for kind, _ in found) == [0, 1, 2, 3]
    return dict(found)


def content(text):
    return {word for word in text.split() if word in CONCEPT_OF}


def test_no_word_means_two_things():
    assert len(set(SENTENCE_WORDS)) == len(SENTENCE_WORDS) and len(CONCEPT_OF) == 132
    assert len(set(REVIEW_WORDS)) == len(REVIEW_WORDS) == len(WORD_KINDS)


def test_a_sentence_says_its_concepts_and_no_two_are_equal():
    made = template_sentences(50, 6, seed=3)
    text = sentence_text(made.tokens)
    assert len(set(text)) == 300
    for row, each in enumerate(text):
        assert list(meaning(each)[kind] for kind in range(4)) == made.concepts[row].tolist()
    assert len({tuple(c) for c in made.concepts.tolist()}) == 50
    assert torch.equal(made.meaning, torch.arange(50).repeat_interleave(6))


def test_all_wordings_of_a_meaning_can_be_had():
    made = template_sentences(1, 648)
    assert len(set(sentence_text(made.tokens))) == 648


def test_habits_tie_concepts_together():
    def surprise(habits):
        concepts = template_sentences(3000, 1, habits=habits, seed=1).concepts
        table = torch.zeros(12, 10).index_put_((concepts[:, 0], concepts[:, 3]), torch.ones(3000), accumulate=True)
        p = table / table.sum()
        return float((p * (p / (p.sum(0) * p.sum(1, keepdim=True))).clamp_min(1e-9).log()).sum())

    assert surprise(0.0) < 0.05 < 0.15 < surprise(1.5)


def test_pairs_share_what_was_asked_for():
    concepts = torch.randint(5, (400,), generator=torch.Generator().manual_seed(0))
    words = (torch.rand(400, generator=torch.Generator().manual_seed(1)) * (concepts + 1)).long()
    pairs = template_pairs(concepts, words, seed=2)
    for a, b, k, w in zip(*map(sentence_text, pairs[:2]), concepts.tolist(), words.tolist(), strict=True):
        one, two = meaning(a), meaning(b)
        assert sum(one[kind] == two[kind] for kind in range(4)) == k
        assert len(content(a) & content(b)) == w


def test_the_place_agrees_as_often_as_asked_and_words_as_clearly():
    made = cued_reviews(20_000, 0.7, clarity=0.8, seed=5)
    assert (made.labels == made.places).double().mean() == pytest.approx(0.7, abs=0.015)
    counts = word_counts(made.tokens, len(REVIEW_WORDS))
    praise, complaint = counts[:, 7:13].sum(1), counts[:, 1:7].sum(1)
    assert ((praise + complaint) == 4).all() and (counts[:, WORD_KINDS == 2].sum(1) == 2).all()
    assert (praise[made.labels == 1] / 4).mean() == pytest.approx(0.8, abs=0.01)
    assert (counts[:, 17:21].sum(1) == 2 * made.places).all()
    assert len(review_text(made.tokens[:3])[0].split()) == 10


def test_one_seed_gives_one_set():
    for make in (
        lambda seed: template_sentences(5, 2, seed=seed).tokens,
        lambda seed: cued_reviews(9, seed=seed).tokens,
    ):
        assert torch.equal(make(0), make(0)) and not torch.equal(make(0), make(1))


def test_counts_leave_out_gaps_and_overlap_is_jaccard():
    tokens = torch.tensor([[1, 2, 2, 0], [3, 0, 0, 0]])
    assert word_counts(tokens, 5).tolist() == [[0, 1, 2, 0, 0], [0, 0, 0, 1, 0]]
    assert word_overlap(tokens, torch.tensor([[2, 3], [0, 0]])).tolist() == pytest.approx([1 / 3, 0.0])
    assert word_overlap(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)).tolist() == [0.0]


def test_words_of_one_concept_get_similar_vectors():
    vectors = context_vectors(template_sentences(2000, 1).tokens, len(SENTENCE_WORDS))
    unit = torch.nn.functional.normalize(vectors[1:133], dim=1)
    similar = unit @ unit.mT
    concept = torch.arange(132) // 3
    same = (concept[:, None] == concept) & ~torch.eye(132, dtype=torch.bool)
    assert similar[same].mean() > similar[concept[:, None] != concept].mean() + 0.3
    assert (vectors[0] == 0).all() and vectors.shape == (len(SENTENCE_WORDS), 32)


def test_a_bag_is_the_mean_of_its_words_and_dropout_gives_two_views():
    encoder = BagOfWords(9, 4, dropout=0.5)
    tokens = torch.tensor([[1, 2, 0], [3, 0, 0]])
    assert not torch.equal(encoder(tokens), encoder(tokens))
    encoder.eval()
    words = encoder.words.weight
    assert torch.allclose(encoder(tokens), torch.stack([(words[1] + words[2]) / 2, words[3]]))
    given = BagOfWords(9, 4, vectors=torch.ones(9, 4))
    assert (given.words.weight == 1).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: template_sentences(0), "meanings"),
        (lambda: template_sentences(2, 649), "forms"),
        (lambda: template_pairs(torch.tensor([1]), torch.tensor([2])), "shared_words"),
        (lambda: template_pairs(torch.tensor([5]), torch.tensor([2])), "shared_concepts"),
        (lambda: cued_reviews(3, 1.5), "agreement"),
        (lambda: cued_reviews(3, clarity=-0.1), "clarity"),
        (lambda: sentence_text(torch.tensor([[999]])), "tokens"),
        (lambda: word_counts(torch.tensor([[5]]), 5), "tokens"),
        (lambda: context_vectors(torch.tensor([[1, 2]]), 4, 5), "dim"),
        (lambda: BagOfWords(4)(torch.zeros(1, 3, dtype=torch.long)), "tokens"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        call()
