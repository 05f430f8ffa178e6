"""A run that was broken off goes on as if nothing had been, and a good file is never lost."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import RandomViews, Stop, add_noise, network, pictures, stop_at, train
from torch import nn
from torch.utils.data import DataLoader

from cl_teach.core import MomentumTeacher, nt_xent
from cl_teach.training import cosine, fit, pretrain, seed_everything


def sources():
    images = pictures()
    return {
        "tensor": lambda: (images, {}),
        "dataset": lambda: (RandomViews(images), {}),
        "loader": lambda: (DataLoader(RandomViews(images), 12, shuffle=True), {"batch_size": None}),
        "loader with a generator": lambda: (
            DataLoader(RandomViews(images), 12, shuffle=True, generator=torch.Generator().manual_seed(5)),
            {"batch_size": None},
        ),
    }


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", sources())
@pytest.mark.parametrize("stop", [5, 8, 11])  # in the middle of an epoch, at its end, and not at a multiple of three
def test_a_broken_off_run_goes_on_bit_for_bit(tmp_path, kind, stop):
    make = sources()[kind]
    images, options = make()
    whole, history = train(images, **options)
    images, options = make()
    options |= {"checkpoint": tmp_path / "run.pt", "checkpoint_every": 3}
    with pytest.raises(Stop):
        train(images, on_step=stop_at(stop), **options)
    seed_everything(99)  # another program, another global state
    torch.rand(7)
    images, options = make()
    options |= {"checkpoint": tmp_path / "run.pt", "checkpoint_every": 3}
    again, resumed = train(images, **options)
    assert torch.equal(resumed.losses, history.losses)
    assert same(again, whole)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", torch.optim.Adagrad])
def test_state_of_any_optimizer_goes_on(tmp_path, optimizer):
    whole, _ = train(pictures(), optimizer=optimizer)
    with pytest.raises(Stop):
        train(pictures(), optimizer=optimizer, checkpoint=tmp_path / "run.pt", on_step=stop_at(10))
    again, _ = train(pictures(), optimizer=optimizer, checkpoint=tmp_path / "run.pt")
    assert same(again, whole)


def test_a_scheduler_of_torch_goes_on(tmp_path):
    def run(**options):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=16)
        return train(pictures(), model, optimizer=optimizer, schedule=schedule, **options)[0]

    whole = run()
    with pytest.raises(Stop):
        run(checkpoint=tmp_path / "run.pt", on_step=stop_at(10))
    assert same(run(checkpoint=tmp_path / "run.pt"), whole)


def test_a_teacher_in_the_module_and_noise_in_a_closure_go_on(tmp_path):
    def run(**options):
        seed_everything(0)
        student = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
        both, noise = nn.ModuleList([student, MomentumTeacher(student, 0.9)]), torch.Generator().manual_seed(4)

        def loss_fn(images):
            return nt_xent(student(add_noise(images, noise)), both[1](add_noise(images, noise)), 0.2)

        options = {"epochs": 4, "batch_size": 12, "progress": False} | options
        return fit(both, loss_fn, pictures(), after_step=lambda: both[1].update(student), **options), both

    history, whole = run()
    with pytest.raises(Stop):
        run(checkpoint=tmp_path / "run.pt", on_step=stop_at(9))
    resumed, again = run(checkpoint=tmp_path / "run.pt")
    assert torch.equal(resumed.losses, history.losses) and same(again, whole)


def test_metrics_are_kept_whatever_numbers_they_are(tmp_path):
    def look(epoch):
        return {"epoch": epoch, "numpy": np.float32(epoch), "array": np.ones(2), "tensor": torch.ones(2), "none": None}

    with pytest.raises(Stop):
        train(pictures(), checkpoint=tmp_path / "run.pt", after_epoch=look, on_step=stop_at(10))
    _, history = train(pictures(), checkpoint=tmp_path / "run.pt", after_epoch=look)
    assert [row["epoch"] for row in history.metrics] == [1, 2, 3, 4]
    assert [float(row["numpy"]) for row in history.metrics] == [1, 2, 3, 4]
    with pytest.raises(TypeError, match="after_epoch: with checkpoint= .* 'object' is object"):
        train(pictures(), checkpoint=tmp_path / "other.pt", after_epoch=lambda epoch: {"object": object()})


def test_a_finished_run_is_only_read_and_a_longer_one_extends_it(tmp_path):
    model, history = train(pictures(), epochs=2, checkpoint=tmp_path / "run.pt")
    again, read = train(pictures(), epochs=2, checkpoint=tmp_path / "run.pt", on_step=stop_at(1))
    assert torch.equal(read.losses, history.losses) and same(again, model)

    rates = []

    def watched(step, steps):
        rates.append((step, steps))
        return cosine()(step, steps)

    _, longer = train(pictures(), epochs=3, checkpoint=tmp_path / "run.pt", schedule=watched)
    assert torch.equal(longer.losses[:8], history.losses) and len(longer.losses) == 12
    assert rates == [(step, 12) for step in range(8, 12)]
    with pytest.raises(ValueError, match=r"epochs: .*run.pt has 12 steps already, 1 epochs are 4"):
        train(pictures(), epochs=1, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"batch_size": 24}, "batch_size=12, this one has 24"),
        ({"seed": 4}, "seed=3, this one has 4"),
        ({"weight_decay": 0.1}, "weight_decay=0.0, this one has 0.1"),
        ({"optimizer": "sgd"}, "optimizer=AdamW, this one has SGD"),
        ({"images": pictures(60)}, "rows=48, this one has 60"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(16, 4))}, "the module of .* does not fit"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changed, says):
    train(pictures(), epochs=1, checkpoint=tmp_path / "run.pt")
    settings = {"images": pictures(), "epochs": 2, "checkpoint": tmp_path / "run.pt"} | changed
    with pytest.raises(ValueError, match=f"checkpoint: .*{says}"):
        train(settings.pop("images"), **settings)


def test_a_checkpoint_of_more_processes_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    train(pictures(), epochs=1, checkpoint=file)
    state = torch.load(file)
    state["settings"]["processes"] = 4
    torch.save(state, file)
    with pytest.raises(ValueError, match="of a run with processes=4, this one has 1; use as many to go on"):
        train(pictures(), epochs=2, checkpoint=file)


class TestDamage:
    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut", b"\x80\x04cposix\nsystem\n"])
    def test_a_file_that_is_none_is_named_without_advice_to_trust_it(self, tmp_path, content):
        file = tmp_path / "run.pt"
        file.write_bytes(content)
        with pytest.raises(ValueError) as error:
            train(pictures(), checkpoint=file)
        assert f"checkpoint: {file} is damaged" in str(error.value) and "delete it" in str(error.value)
        assert "weights_only" not in str(error.value) and error.value.__suppress_context__
        assert file.read_bytes() == content

    def test_half_of_a_file_and_a_file_of_something_else(self, tmp_path):
        file = tmp_path / "run.pt"
        train(pictures(), epochs=1, checkpoint=file)
        file.write_bytes(file.read_bytes()[:2000])
        with pytest.raises(ValueError, match="is damaged"):
            train(pictures(), checkpoint=file)
        torch.save({"model": torch.ones(3)}, file)
        with pytest.raises(ValueError, match="holds something else than a run of fit or pretrain"):
            train(pictures(), checkpoint=file)
        with pytest.raises(ValueError, match="expected a file, .* is a folder"):
            train(pictures(), checkpoint=tmp_path)

    def test_code_in_a_file_does_not_run(self, tmp_path):
        file, proof = tmp_path / "run.pt", tmp_path / "proof"

        class Bad:
            def __reduce__(self):
                return os.mkdir, (str(proof),)

        torch.save(Bad(), file)
        with pytest.raises(ValueError, match="is damaged"):
            train(pictures(), checkpoint=file)
        assert not proof.exists()

    def test_a_broken_link_is_no_checkpoint(self, tmp_path):
        link = tmp_path / "run.pt"
        link.symlink_to(tmp_path / "nowhere" / "run.pt")
        assert len(train(pictures(), epochs=1, checkpoint=link)[1].losses) == 4


class TestTheLastGoodOne:
    def test_a_lost_loss_leaves_it_alone(self, tmp_path):
        file, calls = tmp_path / "run.pt", []

        def loss(a, b):
            calls.append(1)
            return nt_xent(a, b, 0.2) * (float("inf") if len(calls) == 8 else 1)

        model = network()
        options = {"epochs": 4, "batch_size": 12, "progress": False, "checkpoint": file, "checkpoint_every": 1}
        with pytest.raises(FloatingPointError, match=r"at step 8.*run.pt is still the last good one"):
            pretrain(model[0], model[1], pictures(), loss=loss, augment=add_noise, **options)
        kept = torch.load(file)
        assert len(kept["losses"]) == 7
        assert all(x.isfinite().all() for x in kept["parts"]["module"].values())

    def test_weights_that_are_lost_after_a_finite_loss_leave_it_alone(self, tmp_path):
        file, model, steps = tmp_path / "run.pt", nn.Linear(1, 1), []

        def spoil():
            steps.append(1)
            if len(steps) == 3:
                with torch.no_grad():
                    model.weight.fill_(torch.nan)

        def loss_fn(x):
            return model(x).square().mean()

        options = {"epochs": 3, "batch_size": 4, "checkpoint": file, "after_step": spoil, "progress": False}
        with pytest.raises(FloatingPointError, match="the weights weight hold NaN or infinity after step 3"):
            fit(model, loss_fn, torch.ones(4, 1), **options)
        assert len(torch.load(file)["losses"]) == 2

    def test_a_full_disk_leaves_it_alone(self, tmp_path, monkeypatch):
        file = tmp_path / "run.pt"
        train(pictures(), epochs=1, checkpoint=file)
        good = file.read_bytes()

        def full(state, stream):
            stream.write(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match=f"checkpoint: {file} was not written, and is as it was"):
            train(pictures(), epochs=2, checkpoint=file)
        assert file.read_bytes() == good and os.listdir(tmp_path) == ["run.pt"]

    def test_a_process_that_is_killed_leaves_a_file_to_go_on_from(self, tmp_path):
        program = tmp_path / "program.py"
        program.write_text(
            textwrap.dedent(f"""
                import os, signal, sys
                sys.path.insert(0, {str(Path(__file__).parent)!r})
                from runs import pictures, train
                import torch

                def on_step(step, loss):
                    if step == int(sys.argv[2]):
                        os.kill(os.getpid(), signal.SIGKILL)

                model, history = train(pictures(), checkpoint=sys.argv[1], checkpoint_every=1, on_step=on_step)
                torch.save(history.losses, sys.argv[1] + ".losses")
            """)
        )

        def launch(stop):
            return subprocess.run([sys.executable, program, tmp_path / "run.pt", str(stop)], timeout=120).returncode

        assert launch(7) == -signal.SIGKILL
        assert len(torch.load(tmp_path / "run.pt")["losses"]) == 6
        assert launch(0) == 0
        assert torch.equal(torch.load(tmp_path / "run.pt.losses"), train(pictures())[1].losses)


def test_the_same_seed_is_the_same_run_in_a_process_and_across_processes(tmp_path):
    program = "import sys, torch; from runs import *; torch.save(train(RandomViews(pictures()))[1].losses, sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "losses.pt"], check=True, env=environment, timeout=120)
    first, second = (train(RandomViews(pictures()))[1].losses for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.load(tmp_path / "losses.pt"), first)
    assert not torch.equal(train(RandomViews(pictures()), seed=4)[1].losses, first)


def test_without_a_checkpoint_the_global_random_state_is_drawn_from_as_before():
    """Stored results depend on it: the loop itself draws nothing from it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    state = copy.deepcopy(torch.get_rng_state())
    train(pictures(), nn.Sequential(model, nn.Identity()), epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
