"""The small causal language model."""

import pytest
import torch

from cl_teach.models.language_model import LanguageModel


def make():
    torch.manual_seed(0)
    return LanguageModel(7, 8)


def test_a_position_does_not_see_later_tokens():
    model = make()
    a, b = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 5, 6]])
    (_, first), (_, second) = model(a), model(b)
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.allclose(first[:, 2], second[:, 2])


def test_logits_are_inner_products_with_the_unembedding():
    model = make()
    states, logits = model(torch.tensor([[1, 2, 3]]))
    assert states.shape == (1, 3, 8)
    assert torch.allclose(logits, states @ model.unembedding.mT, atol=1e-6)


def test_it_learns_to_count():
    model = make()
    tokens = (torch.arange(7)[:, None] + torch.arange(6)) % 7
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1])[1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(tokens[:, :-1])[1].argmax(-1) == tokens[:, 1:]).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="vocabulary"):
        LanguageModel(0)
    with pytest.raises(TypeError, match="tokens"):
        make()(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="tokens"):
        make()(torch.tensor([[7]]))
    with pytest.raises(ValueError, match="tokens"):
        make()(torch.tensor([1, 2]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_tokens_of_any_width_are_the_same_tokens(dtype):
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(make()(tokens.to(dtype))[1], make()(tokens)[1])


def test_reading_on_is_reading_at_once():
    model, tokens = make(), torch.tensor([[1, 2, 3, 4], [5, 6, 0, 1]])
    states, logits, memory = model.read(tokens)
    _, _, half = model.read(tokens[:, :2])
    later = model.read(tokens[:, 2:], half)
    for whole, part in zip((states[:, 2:], logits[:, 2:], memory), later, strict=True):
        assert torch.allclose(whole, part, atol=1e-6)
