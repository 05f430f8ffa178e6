"""Gradient caching: the gradient of the whole batch with the memory of a part."""

import random
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from cl_teach.core import nt_xent
from cl_teach.models import MLP, ProjectionHead
from cl_teach.training import in_chunks, pretrain, seed_everything


def make(dropout=0.0):
    seed_everything(0)
    network = nn.Sequential(nn.Linear(6, 64), nn.GELU(), nn.Dropout(dropout), MLP([64, 64, 5], norm="none"))
    return network.double(), torch.randn(20, 6, dtype=torch.float64)


def value_and_gradients(embed):
    network, x = make()
    x.requires_grad_()
    z1, z2 = embed(network, x).chunk(2)
    loss = nt_xent(z1, z2, 0.2)
    return loss.detach(), *torch.autograd.grad(loss, [x, *network.parameters()])


@pytest.mark.parametrize("chunk", [1, 3, 7, 20, 50])
def test_value_and_gradient_are_those_of_the_whole_batch(chunk):
    found = value_and_gradients(lambda network, x: in_chunks(network, x, chunk))
    for a, b in zip(found, value_and_gradients(lambda network, x: network(x)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_dropout_draws_the_same_numbers_in_both_passes():
    network, x = make(dropout=0.5)
    z = in_chunks(network, x, 7)
    weights = torch.randn_like(z)
    last = network[3].layers[-1].bias
    first = network[0].weight
    found = torch.autograd.grad((weights * z).sum(), [last, first])
    torch.testing.assert_close(found[0], weights.sum(0))
    # the same draws, all at once, chunk by chunk
    torch.manual_seed(1)
    total = torch.zeros_like(first)
    for rows in x.split(7):
        total += torch.autograd.grad(in_chunks(network, rows, 7).sum(), first)[0]
    torch.manual_seed(1)
    (expected,) = torch.autograd.grad(sum(network(rows).sum() for rows in x.split(7)), first)
    torch.testing.assert_close(total, expected)


def test_between_the_passes_only_inputs_and_embeddings_are_kept():
    def kept(embed):
        network, x = make()
        sizes = []
        with saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            embed(network, x)
        return sum(sizes)

    assert kept(lambda network, x: in_chunks(network, x, 5)) < 0.2 * kept(lambda network, x: network(x))


def test_pretraining_in_chunks_is_pretraining():
    def losses(chunk):
        seed_everything(0)
        images = torch.rand(24, 1, 4, 4)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU())
        options = {"epochs": 3, "batch_size": 8, "progress": False, "chunk": chunk}

        def augment(batch, generator):
            return batch + 0.1 * torch.randn(batch.shape, generator=generator, device=batch.device)

        return pretrain(encoder, nn.Linear(8, 4), images, loss=nt_xent, augment=augment, **options).losses

    torch.testing.assert_close(losses(3), losses(None))


def test_batch_normalization_is_refused_by_name():
    with pytest.raises(ValueError, match="batch normalization"):
        in_chunks(ProjectionHead(4, 3), torch.randn(8, 4), 4)
    assert in_chunks(ProjectionHead(4, 3).eval(), torch.randn(8, 4), 4).shape == (8, 3)


def test_a_chunk_below_one_is_refused():
    with pytest.raises(ValueError, match="chunk"):
        in_chunks(nn.Linear(4, 3), torch.randn(8, 4), 0)


class Masked(nn.Module):
    """Draws a mask from wherever it is told to."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.layer = draw, nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(x * self.draw(x.shape))


def from_attribute():
    generator = torch.Generator().manual_seed(0)
    return partial(draw_mask, generator=generator), generator


def from_closure():
    generator = torch.Generator().manual_seed(0)
    return (lambda shape: draw_mask(shape, generator)), generator


def from_a_list_in_an_object():
    class Holder:
        def __init__(self):
            self.parts = [{"noise": torch.Generator().manual_seed(0)}]

        def __call__(self, shape):
            return draw_mask(shape, self.parts[0]["noise"])

    holder = Holder()
    return holder, holder.parts[0]["noise"]


GLOBAL = torch.Generator()


def from_a_global():
    return (lambda shape: draw_mask(shape, GLOBAL)), GLOBAL


def draw_mask(shape, generator):
    return (torch.rand(shape, generator=generator) > 0.5).float()


@pytest.mark.parametrize("place", [from_attribute, from_closure, from_a_list_in_an_object, from_a_global])
def test_the_second_pass_draws_what_the_first_drew_wherever_the_generator_hides(place):
    seed_everything(0)
    draw, generator = place()
    network, x = Masked(draw), torch.randn(8, 6)

    def gradient(embed):
        generator.manual_seed(0)
        z = embed()
        state = generator.get_state()
        (found,) = torch.autograd.grad(z.square().sum(), network.layer.weight)
        assert torch.equal(generator.get_state(), state)  # going back leaves no trace
        return found

    torch.testing.assert_close(
        gradient(lambda: in_chunks(network, x, 4)), gradient(lambda: torch.cat([network(x[:4]), network(x[4:])]))
    )


def test_random_numbers_that_cannot_be_put_back_are_found_out():
    seed_everything(0)
    network = Masked(
        lambda shape: torch.tensor([[random.random() > 0.5 for _ in range(shape[1])] for _ in range(shape[0])])
    )
    z = in_chunks(network, torch.randn(8, 6), 4)
    with pytest.raises(ValueError, match="network: it embeds the same rows differently in the second pass"):
        z.sum().backward()


def test_frozen_statistics_make_batch_normalization_exact_and_stay_as_they_are():
    seed_everything(0)
    network, x = ProjectionHead(4, 3), torch.randn(32, 4)
    for _ in range(50):
        network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    z = in_chunks(network, x, 5, freeze_statistics=True)
    (found,) = torch.autograd.grad(z.square().sum(), network.mlp.layers[0].weight)
    assert network.mlp.layers[1].training
    network.mlp.layers[1].eval()
    (expected,) = torch.autograd.grad(network(x).square().sum(), network.mlp.layers[0].weight)
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_group_normalization_needs_no_statistics():
    seed_everything(0)
    network, x = ProjectionHead(4, 3, norm="group"), torch.randn(32, 4)
    torch.testing.assert_close(in_chunks(network, x, 5), network(x))
