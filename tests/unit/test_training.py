"""The training loop: it learns, it repeats itself, it stops when the loss is lost."""

import pytest
import torch
from torch import nn

from cl_teach.core import nt_xent
from cl_teach.training import at_scale, batches, fit, pretrain, seed_everything


def line(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]])


def run(**options):
    seed_everything(0)
    model, (x, y) = nn.Linear(3, 1), line()
    settings = {"epochs": 30, "batch_size": 16, "learning_rate": 0.05, "progress": False} | options
    history = fit(model, lambda a, b: (model(a) - b).square().mean(), (x, y), **settings)
    return model, history


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_fit_solves_a_linear_regression(optimizer, schedule):
    model, history = run(optimizer=optimizer, schedule=schedule)
    assert history.losses.shape == (30 * 4,)
    assert history.losses[-1] < 1e-2 * history.losses[0]
    assert not model.training


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    _, a = run(seed=1)
    _, b = run(seed=1)
    _, c = run(seed=2)
    assert torch.equal(a.losses, b.losses)
    assert not torch.equal(a.losses, c.losses)


def test_callbacks_are_called_and_metrics_kept():
    calls = []
    _, history = run(epochs=2, after_step=lambda: calls.append(1), after_epoch=lambda e: {"epoch": e})
    assert len(calls) == 8
    assert history.metrics == [{"epoch": 1}, {"epoch": 2}]


def test_a_lost_loss_stops_the_run():
    with pytest.raises(FloatingPointError, match="learning_rate"):
        run(optimizer="sgd", learning_rate=1e6)


def test_batches_cover_every_row_once_and_drop_the_incomplete_one():
    rows = torch.cat(list(batches(10, 3, torch.Generator().manual_seed(0))))
    assert len(rows) == 9 and len(set(rows.tolist())) == 9


def test_pretrain_lowers_the_contrastive_loss():
    seed_everything(0)
    images = torch.rand(128, 1, 4, 4)
    encoder, head = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU()), nn.Linear(32, 8)

    def add_noise(x, generator=None):
        return x + 0.05 * torch.randn(x.shape, generator=generator, device=x.device)

    history = pretrain(
        encoder,
        head,
        images,
        loss=lambda a, b: nt_xent(a, b, 0.1),
        augment=add_noise,
        epochs=15,
        batch_size=32,
        learning_rate=1e-2,
        progress=False,
    )
    assert history.losses[-4:].mean() < history.losses[:4].mean() - 0.5  # starts near log 63 = 4.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 65}, "batch_size=65"),
        ({"optimizer": "lion"}, "optimizer.*lion"),
        ({"schedule": "step"}, "schedule"),
        ({"learning_rate": -1.0}, "learning_rate"),
    ],
)
def test_bad_settings_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        run(**options)


def test_data_of_unequal_length_is_refused():
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="data"):
        fit(model, lambda a, b: a.sum(), (torch.ones(4, 1), torch.ones(3, 1)), epochs=1, batch_size=2)


def test_scale_follows_the_environment(monkeypatch):
    monkeypatch.delenv("CL_TEACH_SCALE", raising=False)
    assert at_scale(1, 2) == 1
    monkeypatch.setenv("CL_TEACH_SCALE", "full")
    assert at_scale(1, 2) == 2
    monkeypatch.setenv("CL_TEACH_SCALE", "huge")
    with pytest.raises(ValueError, match="CL_TEACH_SCALE"):
        at_scale(1, 2)
