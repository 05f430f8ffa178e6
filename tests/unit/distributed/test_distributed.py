"""Several processes do what one does, and a run that is killed goes on as if nothing had been."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cl_teach.distributed import process_group

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


@pytest.mark.parametrize("processes", [2, 3])
def test_loss_and_gradients_equal_those_of_one_process_with_the_whole_batch(tmp_path, processes):
    result = launch(processes, "gradients", tmp_path / "found.pt")
    assert result.returncode == 0, result.stderr[-2000:]
    found = torch.load(tmp_path / "found.pt")
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

    other = launch(2, "train", tmp_path / "other.pt", tmp_path / "run.pt", BATCH="24")
    assert other.returncode != 0
    assert "is of a run with batch_size=12, this one has 24" in other.stderr


def test_without_torchrun_the_message_says_what_to_do(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="torchrun --nproc-per-node"), process_group():
        pass
