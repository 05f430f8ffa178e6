"""The fastest of several ways: measured once, remembered, and never in the way."""

import json
import time

import pytest
import torch

from cl_teach.core import fastest as module
from cl_teach.core import nt_xent
from cl_teach.core.fastest import fastest

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_found", {})
    return tmp_path / "cl_teach" / "fastest.json"


def working(*slow):
    """A task that takes long in some of its ways, and the calls it got."""
    calls = []

    def run(way):
        calls.append(way)
        end = time.process_time() + (0.02 if way in slow else 0.0)
        while time.process_time() < end:
            pass

    return run, calls


def test_a_way_that_is_much_faster_is_found_and_remembered(cache):
    run, calls = working(1, 3)
    assert fastest("work", (1, 2, 3), run, CPU) == 2
    assert list(json.loads(cache.read_text()).values()) == [2]
    count = len(calls)
    assert fastest("work", (1, 2, 3), run, CPU) == 2
    module._found.clear()  # as in the next process
    assert fastest("work", (1, 2, 3), run, CPU) == 2
    assert len(calls) == count


def test_the_first_way_stays_unless_another_is_clearly_faster(cache, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "process_time", lambda: next(clock))  # every run takes one tick
    assert fastest("equal", (7, 8), lambda way: None, CPU) == 7


@pytest.mark.parametrize("content", ["", "[1]", '{"something": 1}', "\x00"])
def test_a_damaged_or_foreign_file_is_measured_anew(cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert fastest("work", (1, 2), working(1)[0], CPU) == 2


def test_an_answer_that_is_no_choice_any_more_is_measured_anew(cache):
    assert fastest("work", (1, 2), working(1)[0], CPU) == 2
    module._found.clear()
    assert fastest("work", (1, 3), working(1)[0], CPU) == 3


def test_a_cache_that_cannot_be_written_is_no_error(cache):
    cache.parent.write_text("a file where a folder should be")
    assert fastest("work", (1, 2), working(1)[0], CPU) == 2


def test_measuring_leaves_no_trace_in_the_random_numbers(cache):
    z1, z2 = (torch.randn(600, 8, requires_grad=True) for _ in range(2))
    before = torch.get_rng_state()
    nt_xent(z1, z2, 0.1).backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert cache.is_file()
