"""The examples run, in a folder of their own, and find what they say they find."""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "folder_of_pictures": "torchvision",
    "lightning_module": "lightning",
    "accelerate_loop": "accelerate",
    "logging_to_tensorboard": "tensorboard",
}


def run(name, folder, *arguments):
    if (needed := NEEDS.get(name)) and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{name}.py needs {needed}")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
    program = [sys.executable, *arguments, str(EXAMPLES / f"{name}.py")]
    result = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def accuracy(output):
    return float(re.search(r"kNN accuracy ([\d.]+)", output).group(1))


def test_the_readme_lists_every_example():
    listed = set(re.findall(r"`(\w+\.py)`", (EXAMPLES / "README.md").read_text()))
    assert listed == {file.name for file in EXAMPLES.glob("*.py")}


def test_twenty_lines_train_save_and_load(tmp_path):
    assert accuracy(run("twenty_lines", tmp_path)) > 0.9
    assert (tmp_path / "encoder.pt").is_file() and (tmp_path / "digits.pt").is_file()


def test_a_folder_of_pictures_goes_through_workers(tmp_path):
    assert "2 steps" in run("folder_of_pictures", tmp_path)


def test_one_program_runs_in_several_processes(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert accuracy(run("several_processes", tmp_path, *torchrun)) > 0.85


@pytest.mark.parametrize("name", ["lightning_module", "accelerate_loop"])
def test_other_loops_train_with_the_losses(name, tmp_path):
    assert accuracy(run(name, tmp_path)) > 0.85


def test_a_table_of_losses(tmp_path):
    run("logging_to_csv", tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) and float(rows[-1]["knn"]) > 0.85


def test_tensorboard_gets_its_scalars(tmp_path):
    run("logging_to_tensorboard", tmp_path)
    assert list((tmp_path / "runs").rglob("events.out.tfevents.*"))
