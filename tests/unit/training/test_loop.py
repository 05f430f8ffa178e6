"""The training loop: it learns, it repeats itself, it stops when the loss is lost."""

import math
import random
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cl_teach.core import nt_xent
from cl_teach.datasets import fashion_mnist
from cl_teach.training import at_scale, batches, cosine, fit, pretrain, seed_everything
from cl_teach.training.watching import Losses


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


def test_smoke_scale_is_small_where_nothing_smaller_is_said(monkeypatch):
    monkeypatch.setenv("CL_TEACH_SCALE", "smoke")
    assert at_scale(1, 2) == 1
    assert at_scale(1, 2, 0) == 0


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8])
def test_every_whole_number_seeds(kind):
    seed_everything(kind(3))
    first = torch.rand(3), np.random.rand(3), random.random()
    generator = seed_everything(3)
    assert torch.equal(first[0], torch.rand(3))
    assert (first[1] == np.random.rand(3)).all() and first[2] == random.random()
    assert generator.initial_seed() == 3


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_does_not_take_is_named(seed):
    with pytest.raises(ValueError, match="seed"):
        seed_everything(seed)


class Terms(NamedTuple):
    loss: torch.Tensor
    error: torch.Tensor


class TestLossFunction:
    def test_a_tuple_begins_with_its_loss(self):
        def losses(wrap):
            seed_everything(0)
            model, data = nn.Linear(3, 1), line()
            return fit(
                model, lambda a, b: wrap((model(a) - b).square().mean()), data, epochs=2, batch_size=16, progress=False
            ).losses

        assert torch.equal(losses(lambda loss: Terms(loss, loss.detach())), losses(lambda loss: loss))

    @pytest.mark.parametrize(
        ("result", "error", "says"),
        [
            (lambda z: z.square(), ValueError, r"loss_fn: expected a scalar, got shape \(16, 1\); take its mean"),
            (lambda z: 3.0, TypeError, "loss_fn: expected a scalar tensor or a tuple that begins with it, got float"),
            (lambda z: z.detach().mean(), ValueError, "loss_fn: its result depends on no parameter"),
        ],
    )
    def test_what_is_no_loss_is_refused(self, result, error, says):
        model = nn.Linear(3, 1)
        with pytest.raises(error, match=says):
            fit(model, lambda x: result(model(x)), torch.ones(16, 3), epochs=1, batch_size=16, progress=False)


class TestLostLosses:
    def test_infinity_in_the_middle_of_an_epoch_is_told_with_its_step(self):
        model, calls = nn.Linear(3, 1), []

        def loss_fn(x):
            calls.append(1)
            return model(x).square().mean() * (math.inf if len(calls) == 6 else 1)

        with pytest.raises(FloatingPointError, match=r"the loss became inf at step 6, from finite data; lower"):
            fit(model, loss_fn, torch.randn(64, 3), epochs=4, batch_size=16, progress=False)
        assert len(calls) == 6  # and on a CPU at once

    def test_nan_in_the_data_is_not_blamed_on_the_learning_rate(self):
        model, data = nn.Linear(3, 1), torch.randn(64, 3)
        data[17, 1] = math.nan
        with pytest.raises(ValueError, match=r"data\[0\]: row 17 holds NaN or infinity, as do 1 of 64 rows"):
            fit(model, lambda x: model(x).square().mean(), data, epochs=4, batch_size=16, progress=False)

    def test_nan_from_a_loader_is_found_too(self):
        model, data = nn.Linear(3, 1), torch.randn(64, 3)
        data[40, 0] = math.inf
        loader = DataLoader(data, batch_size=16)
        with pytest.raises(ValueError, match="data: a batch holds NaN or infinity, 0 steps before the last"):
            fit(model, lambda x: model(x).square().mean(), loader, epochs=1, progress=False)

    def test_nan_that_no_loss_looks_at_does_not_matter(self):
        model, data = nn.Linear(3, 1), torch.randn(64, 3)
        missing = torch.full((64,), math.nan)  # a label that is missing, and a loss that knows it
        history = fit(
            model, lambda x, y: model(x).square().mean(), (data, missing), epochs=1, batch_size=16, progress=False
        )
        assert history.losses.isfinite().all()

    def test_a_finite_loss_with_an_infinite_gradient_is_found_in_the_weights(self):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        with pytest.raises(FloatingPointError, match="the weights weight hold NaN or infinity after step 1"):
            fit(model, lambda x: model(x).sqrt().mean(), torch.ones(4, 1), epochs=1, batch_size=4, progress=False)

    def test_a_loss_that_refuses_lost_embeddings_is_not_the_one_to_blame(self):
        model, data = nn.Linear(3, 4), torch.randn(64, 3)

        def loss_fn(x):
            return nt_xent(model(x), model(x.roll(1, 1)), 0.1)

        def spoil():
            with torch.no_grad():
                model.bias.fill_(math.nan)

        with pytest.raises(FloatingPointError, match="the weights bias hold NaN or infinity after step 1") as error:
            fit(model, loss_fn, data, epochs=1, batch_size=16, after_step=spoil, progress=False)
        assert "z1" in str(error.value.__cause__ or error.value.__context__)
        data[5] = math.nan
        with pytest.raises(ValueError, match=r"data\[0\]: row 5 holds NaN"):
            fit(nn.Linear(3, 4), lambda x: nt_xent(x, x.roll(1, 1)), data, epochs=1, batch_size=64, progress=False)

    def test_on_a_gpu_losses_are_read_fifty_at_a_time(self):
        watched = Losses(torch.device("meta"), torch.empty(0), lambda: None, "do something")
        for step in range(49):
            watched.add(torch.tensor(math.nan if step == 20 else 1.0))
        with pytest.raises(FloatingPointError, match="at step 21"):
            watched.add(torch.tensor(1.0))


class TestOptimizersAndSchedules:
    @pytest.mark.parametrize(
        "optimizer",
        [
            torch.optim.Adam,
            lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
            partial(torch.optim.RMSprop, lr=0.05),
        ],
    )
    def test_any_optimizer(self, optimizer):
        _, history = run(optimizer=optimizer)
        assert history.losses[-1] < 0.05 * history.losses[0]

    def test_an_optimizer_that_exists_keeps_its_groups_and_their_rates(self):
        seed_everything(0)
        model, data = nn.Linear(3, 1), line()
        groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.0}]
        before, seen = model.bias.clone(), []
        optimizer = torch.optim.SGD(groups)

        def loss_fn(a, b):
            seen.append([group["lr"] for group in optimizer.param_groups])
            return (model(a) - b).square().mean()

        fit(model, loss_fn, data, epochs=2, batch_size=16, optimizer=optimizer, progress=False)
        assert torch.equal(model.bias, before)
        assert seen[0] == [0.1, 0.0] and seen[4] == pytest.approx([0.05, 0.0])  # half way along the cosine

    def test_a_schedule_is_a_factor_of_the_step(self):
        model, rates = nn.Linear(3, 1), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

        def loss_fn(x):
            rates.append(optimizer.param_groups[0]["lr"])
            return model(x).square().mean()

        def fall(step, steps):
            return 1 - step / steps

        fit(
            model,
            loss_fn,
            torch.randn(8, 3),
            epochs=2,
            batch_size=2,
            optimizer=optimizer,
            schedule=fall,
            progress=False,
        )
        assert rates == pytest.approx([0.5 * (1 - k / 8) for k in range(8)])

    def test_the_cosine_is_that_of_torch(self):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        for step in range(20):
            assert cosine()(step, 20) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
            optimizer.step()
            theirs.step()

    def test_a_scheduler_of_torch_counts_by_itself(self):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
        options = {"optimizer": optimizer, "schedule": schedule, "progress": False}
        fit(model, lambda x: 1e-3 * model(x).square().mean(), torch.randn(8, 3), epochs=1, batch_size=2, **options)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
        with pytest.raises(ValueError, match="schedule: it moves another optimizer"):
            fit(model, lambda x: model(x).mean(), torch.randn(8, 3), epochs=1, batch_size=2, schedule=schedule)

    @pytest.mark.parametrize("factor", [math.nan, -1.0, math.inf, "half"])
    def test_a_schedule_that_gives_no_factor_is_named(self, factor):
        with pytest.raises(ValueError, match="schedule: expected a finite factor of at least 0 at step 0"):
            run(schedule=lambda step, steps: factor)


class TestAccumulationAndPrecision:
    def test_parts_of_a_batch_add_up_to_the_whole_where_the_loss_is_a_mean(self):
        whole, parts = run(accumulate=1)[1], run(accumulate=4)[1]
        torch.testing.assert_close(whole.losses, parts.losses)

    def test_parts_must_be_equal(self):
        with pytest.raises(ValueError, match="accumulate: expected a divisor of the 16 rows, got 3"):
            run(accumulate=3)

    def test_networks_run_in_bfloat16_and_weights_stay_in_float32(self):
        seed_everything(0)
        model, seen = nn.Linear(3, 8), []

        def loss_fn(x):
            z = model(x)
            seen.append(z.dtype)
            return nt_xent(z, z.roll(1, 1), 0.5)

        history = fit(model, loss_fn, torch.randn(32, 3), epochs=2, batch_size=16, amp=True, progress=False)
        assert set(seen) == {torch.bfloat16}
        assert model.weight.dtype == history.losses.dtype == torch.float32

    @pytest.mark.parametrize(("amp", "error"), [("bf16", TypeError), (torch.float32, ValueError), (1, TypeError)])
    def test_other_precisions_are_refused(self, amp, error):
        with pytest.raises(error, match="amp: expected True, False, torch.bfloat16 or torch.float16"):
            run(amp=amp)


def test_callbacks_get_every_step_and_every_epoch_with_its_loss():
    steps, epochs = [], []
    _, history = run(
        epochs=3,
        after_epoch=lambda epoch: {"twice": 2 * epoch},
        on_step=lambda step, loss: steps.append((step, loss.item())),
        on_epoch=lambda epoch, loss, metrics: epochs.append((epoch, loss, metrics)),
    )
    assert [step for step, _ in steps] == list(range(1, 13))
    assert [loss for _, loss in steps] == pytest.approx(history.losses.tolist())
    assert epochs[1] == (2, pytest.approx(history.losses[4:8].mean().item()), {"twice": 4})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("lr", r"fit: there is no argument lr=; did you mean learning_rate=\?"),
        ("momentum", "did you mean optimizer=lambda parameters: torch.optim.SGD"),
        ("steps", "epochs= passes over the data"),
        ("batchsize", r"did you mean batch_size=\?"),
        ("xyzzy", "there are accumulate, after_epoch"),
    ],
)
def test_an_argument_that_is_not_there_is_answered_with_the_one_that_is(wrong, says):
    with pytest.raises(TypeError, match=says):
        run(**{wrong: 1})


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (np.ones((4, 2)), TypeError, r"data: expected a torch.Tensor, .* got ndarray; use torch.from_numpy"),
        (fashion_mnist("test"), TypeError, r"data: got a whole ImageSet; write data=train.images"),
        ([torch.ones(4, 2)], TypeError, "data: expected a torch.Tensor, a tuple of tensors, a Dataset or a DataLoader"),
        ((), ValueError, "data: expected at least one tensor"),
        (DataLoader(torch.ones(4, 2)), ValueError, "batch_size: the DataLoader has its own, 1; leave batch_size out"),
    ],
)
def test_data_of_another_kind_is_answered_with_what_to_write(data, error, says):
    model = nn.Linear(2, 1)
    with pytest.raises(error, match=says):
        fit(model, lambda x: model(x).mean(), data, epochs=1, batch_size=2)


def test_a_module_without_parameters_is_named():
    with pytest.raises(ValueError, match="module: has no parameters"):
        fit(nn.Identity(), lambda x: x.mean(), torch.ones(4, 2), epochs=1, batch_size=2)
