"""Several processes do what one does, and a run that is killed goes on as if nothing had been."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cl_teach.distributed import process_group
from cl_teach.training import pretrain

WORKER = Path(__file__).with_name("worker.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without distributed"),
]


def launch(processes, *arguments, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*command, str(WORKER), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def worker_module():
    spec = importlib.util.spec_from_file_location("worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[2, 3])
def found(request, tmp_path_factory):
    """What two and three processes found, once for the tests below."""
    folder = tmp_path_factory.mktemp(f"{request.param}-processes")
    result = launch(request.param, "several", folder)
    assert result.returncode == 0, result.stderr[-2000:]
    return {file.stem: torch.load(file) for file in folder.iterdir()} | {"processes": request.param}


def test_loss_and_gradients_equal_those_of_one_process_with_the_whole_batch(found):
    found = found["gradients"]
    worker = worker_module()
    images = worker.make_images()
    for name, loss in worker.LOSSES.items():
        network = worker.make_network()
        z1, z2 = network(torch.cat([images, images.flip(2)])).chunk(2)
        value = loss(z1, z2)
        value.backward()
        torch.testing.assert_close(found[name][0], value.detach())
        for a, parameter in zip(found[name][1], network.parameters(), strict=True):
            torch.testing.assert_close(a, parameter.grad, rtol=1e-9, atol=1e-12)


def test_a_gathered_tensor_leaves_the_gradient_of_others_alone(found):
    (z1, other, seed, (a, b)), processes = found["sums"], found["processes"]
    expected = 2 * (a + b + 1)
    torch.testing.assert_close(other, expected)  # nobody averages here: what is not gathered has its own gradient
    torch.testing.assert_close(z1, processes * (expected[:4] + 1))  # and all processes speak about what is
    assert (seed == 1).all()


def test_several_processes_train_as_one_does(found):
    weights, losses = found["plain"]
    worker = worker_module()
    network = worker.make_network()
    options = {"epochs": 4, "batch_size": 12, "learning_rate": 1e-2, "seed": 3, "progress": False}
    history = pretrain(
        network[:2],
        network[2:],
        worker.make_images(48),
        loss=worker.LOSSES["nt_xent"],
        augment=worker.mirrored,
        **options,
    )
    torch.testing.assert_close(losses, history.losses, rtol=1e-4, atol=1e-5)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_any_loss_trains_in_several_processes_and_all_end_with_one_state(found):
    states, losses = found["regression"]
    assert losses[-1] < 0.2 * losses[0]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_lost_run_stops_everybody_and_leaves_the_last_good_checkpoint(tmp_path):
    result = launch(2, "train", tmp_path / "out.pt", tmp_path / "run.pt", SPOIL_AT="7")
    assert result.returncode != 0 and not (tmp_path / "out.pt").exists()
    assert "run.pt is still the last good one" in result.stderr
    kept = torch.load(tmp_path / "run.pt")
    assert len(kept["losses"]) == 6
    assert all(value.isfinite().all() for value in kept["parts"]["module"].values())


def test_a_killed_worker_ends_the_run_and_the_checkpoint_leads_to_the_same_weights(tmp_path):
    whole = launch(2, "train", tmp_path / "whole.pt")
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed = launch(2, "train", tmp_path / "cut.pt", tmp_path / "run.pt", KILL_AT="8")
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    assert not (tmp_path / "cut.pt").exists()
    assert len(torch.load(tmp_path / "run.pt")["losses"]) == 6  # the last multiple of three before step 8
    resumed = launch(2, "train", tmp_path / "cut.pt", tmp_path / "run.pt")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    weights, losses = torch.load(tmp_path / "whole.pt")
    again, again_losses = torch.load(tmp_path / "cut.pt")
    torch.testing.assert_close(again_losses, losses)
    for name, value in weights.items():
        torch.testing.assert_close(again[name], value, rtol=1e-9, atol=1e-12)


def test_the_program_says_once_what_it_can_do_and_what_it_found(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def call(*arguments):
        program = [*command, "-m", "cl_teach.distributed", *map(str, arguments)]
        return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=240)

    shown = call("--help").stdout
    assert shown.count("usage:") == 1 and "torchrun --nproc-per-node N -m cl_teach.distributed" in shown
    for default in ("0.002", "256", "fashion_mnist", "--learning-rate", "--root", "--checkpoint"):
        assert default in shown
    options = ["--data", "digits", "--epochs", 2, "--batch-size", 64, "--norm", "group", "--chunk", 32]
    options += ["--precision", "bfloat16", "--csv", tmp_path / "log.csv", "--checkpoint", tmp_path / "run.pt"]
    result = call(*options)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("44 steps in 2 processes") == 1
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,knn" and len(rows) == 3
    wrong = call("--data", "digits", "--batch-size", 63)
    assert wrong.stderr.count("batch_size: expected a multiple of the 2 processes, got 63") == 1
    assert "Traceback" not in wrong.stderr.split("batch_size:")[0]


def test_the_program_runs_alone(tmp_path):
    program = [sys.executable, "-W", "error::RuntimeWarning", "-m", "cl_teach.distributed", "--data", "digits"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([*program, "--epochs", "1"], env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "5 steps in 1 processes" in result.stdout


def test_without_torchrun_the_message_says_what_to_do(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="torchrun --nproc-per-node"), process_group():
        pass
