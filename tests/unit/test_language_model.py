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
