"""Log-probabilities of tokens and responses."""

import pytest
import torch

from cl_teach.models.language_model import LanguageModel
from cl_teach.models.sequence import continue_tokens, predicting_states, response_log_probability, token_log_probability

LOGITS = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TOKENS = torch.randint(0, 7, (3, 6), generator=torch.Generator().manual_seed(1))


def test_every_token_has_the_log_probability_of_its_own_position():
    found = token_log_probability(LOGITS, TOKENS)
    for i in range(3):
        for t in range(6):
            assert torch.isclose(found[i, t], LOGITS[i, t].log_softmax(0)[TOKENS[i, t]])


def test_a_constant_on_all_logits_of_a_position_changes_nothing():
    shift = 1000 * torch.arange(6.0)[:, None].double()
    assert torch.allclose(token_log_probability(LOGITS + shift, TOKENS), token_log_probability(LOGITS, TOKENS))


def test_a_response_is_the_sum_from_its_first_to_its_last_token():
    mask = predicting_states(6, torch.tensor([1, 0, 3]), torch.tensor([5, 2, 4]))
    assert mask.sum(1).tolist() == [4, 2, 1]
    found = response_log_probability(LOGITS, TOKENS, mask)
    for i, (first, last) in enumerate(((2, 5), (1, 2), (4, 4))):
        expected = sum(LOGITS[i, t - 1].log_softmax(0)[TOKENS[i, t]] for t in range(first, last + 1))
        assert torch.isclose(found[i], expected)


def test_half_precision_logits_are_added_up_in_full():
    half = (3 * torch.randn(2, 100, 500, generator=torch.Generator().manual_seed(0))).bfloat16()
    tokens = torch.randint(500, (2, 100), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 100, dtype=torch.bool)
    mask[:, -1] = False
    exact = response_log_probability(half.double(), tokens, mask)
    assert (response_log_probability(half, tokens.short(), mask).double() - exact).abs().max() < 1e-2


def test_continued_tokens_begin_with_what_was_given_and_follow_the_generator():
    torch.manual_seed(0)
    model, start = LanguageModel(9, 8), torch.tensor([[1, 2], [3, 4]])
    first, second = (continue_tokens(model, start, 4, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == (2, 6) and torch.equal(first[:, :2], start) and torch.equal(first, second)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: token_log_probability(LOGITS.long(), TOKENS), TypeError, "logits"),
        (lambda: token_log_probability(LOGITS, TOKENS[:, 1:]), ValueError, "labels"),
        (lambda: token_log_probability(LOGITS, TOKENS - 1), ValueError, "labels"),
        (lambda: response_log_probability(LOGITS, TOKENS, TOKENS), TypeError, "mask"),
        (lambda: predicting_states(6, torch.tensor([5])), ValueError, "last_token"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
