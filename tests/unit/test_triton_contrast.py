"""The Triton kernels that the benchmarks measure: right in the interpreter, and accepted by the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
triton = pytest.importorskip("triton", reason="torch brings Triton on Linux only")


def test_the_interpreter_gives_the_numbers_of_the_tiles() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "triton_contrast.py"]  # in a process of its own: Triton looks at the variable at import
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) >= 10
    for line in lines:
        apart, _, _, _, scale = line.split()[:5]
        assert float(apart) < 3e-6 * max(float(scale) / 5, 1), line  # logits as large as the scale, in float32


@pytest.mark.parametrize("name", ["_log_sums", "_gradient"])
def test_a_kernel_compiles_for_a_card_that_is_not_here_and_fits_into_it(name: str, monkeypatch, tmp_path) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton_contrast

    kernel, (rows, columns, warps, stages) = getattr(triton_contrast, name), triton_contrast.BLOCKS[0]
    sizes = {"R": rows, "C": columns, "D": triton_contrast.WIDEST}
    kinds = {"scale": "fp32"} | dict.fromkeys(sizes, "constexpr")
    kinds |= dict.fromkeys(("n", "m", "d", "skip", "one", "two"), "i32")
    signature = {argument: kinds.get(argument, "*fp32") for argument in kernel.arg_names}
    hopper, options = GPUTarget("cuda", 90, 32), {"num_warps": warps, "num_stages": stages}
    found = triton.compile(ASTSource(kernel, signature, constexprs=sizes), target=hopper, options=options)
    assert found.metadata.shared <= 227 * 1024
