"""Networks as they were, and looked at without dropout."""

import pytest
import torch
from torch import nn

from cl_teach.core.frozen import FrozenCopy, evaluating
from cl_teach.models.activations import recorded


def test_a_frozen_copy_keeps_its_weights_its_mode_and_gives_no_gradient():
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    frozen = FrozenCopy(network).train()
    x = torch.ones(4, 3, requires_grad=True)
    before = frozen(x)
    with torch.no_grad():
        network[0].weight.add_(1)
    outer = nn.ModuleList([frozen]).train()
    assert torch.equal(frozen(x), before) and not before.requires_grad
    assert not any(part.training for part in outer[0].modules())
    assert not any(p.requires_grad for p in frozen.parameters())


def test_looking_gives_every_part_its_mode_back_even_after_an_error():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3).eval()).train()
    network[1].eval()
    with pytest.raises(RuntimeError), evaluating(network) as quiet:
        assert not any(part.training for part in quiet.modules())
        raise RuntimeError
    assert network.training and network[0].training and not network[1].training


def test_recorded_outputs_are_those_of_the_parts_in_the_order_asked_for():
    network = nn.Sequential(nn.Linear(2, 3), nn.GRU(3, 4, batch_first=True))
    output, (gru, linear) = recorded(network, ["1", "0"], [torch.ones(1, 5, 2)])
    assert torch.equal(gru, output[0]) and linear.shape == (1, 5, 3)
    assert not network[0]._forward_hooks
    with pytest.raises(ValueError, match="layers.*'2'"):
        recorded(network, ["2"], [torch.ones(1, 5, 2)])
