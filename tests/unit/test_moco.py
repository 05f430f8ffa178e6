"""Momentum contrast as one module: keys of the past are the negatives, and only training moves anything."""

import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import info_nce
from cl_teach.models.moco import MoCo

X = draw(4, 5, 4, seed=7).float()


def build(size=8):
    torch.manual_seed(0)
    return MoCo(nn.Linear(4, 6), nn.Linear(6, 3), dim=3, size=size)


def test_the_first_loss_uses_the_batch_and_later_ones_the_keys_of_the_past():
    moco = build()
    q, k = moco.student(X[0]), moco.teacher(X[1])
    assert torch.allclose(moco.loss(X[0], X[1]), info_nce(q, k, temperature=0.2))
    moco.after_step()
    assert torch.allclose(moco.loss(X[0], X[2]), info_nce(q, moco.teacher(X[2]), k, 0.2))
    moco.loss(X[0], X[2]).backward()
    assert moco.student[0].weight.grad.any() and moco.teacher.network[0].weight.grad is None
    assert torch.equal(moco(X[0]), moco.student[0](X[0]))


def test_two_losses_before_one_backward_and_evaluation_move_nothing():
    moco = build()
    (moco.loss(X[0], X[1]) + moco.loss(X[0], X[2])).backward()
    moco.after_step()
    assert len(moco.queue.features) == 5  # the last keys, once
    before = {name: value.clone() for name, value in moco.state_dict().items()}
    moco.after_step()
    moco.eval()
    moco.loss(X[0], X[3])
    moco.after_step()
    assert all(torch.equal(value, before[name]) for name, value in moco.state_dict().items())


def steps(moco, generator):
    optimizer = torch.optim.SGD(moco.parameters(), 0.1)
    losses = []
    for _ in range(3):
        loss = moco.loss(*torch.randn(2, 5, 4, generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moco.after_step()
        losses.append(loss.item())
    return losses


def test_a_saved_state_continues_as_if_never_stopped():
    moco, fresh = build(), build()
    steps(moco, torch.Generator().manual_seed(0))
    fresh.load_state_dict(moco.state_dict())
    assert steps(moco, torch.Generator().manual_seed(1)) == steps(fresh, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(moco.state_dict().values(), fresh.state_dict().values(), strict=True))
