"""What one tries first: the names, and the programs."""

import subprocess
import sys

import pytest

import cl_teach


def call(*arguments):
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_the_core_losses_are_where_one_looks_for_them():
    from cl_teach import core, losses

    for name in ("clip_loss", "info_nce", "nt_xent", "regression_loss", "sup_con"):
        assert getattr(losses, name) is getattr(core, name) is getattr(cl_teach, name)


def test_parts_are_there_after_a_plain_import():
    program = "import cl_teach; print(cl_teach.datasets.digits.__name__, cl_teach.training.fit.__name__)"
    assert call("-c", program).split() == ["digits", "fit"]


def test_an_unknown_part_says_where_to_look():
    with pytest.raises(AttributeError, match="no attribute 'optim'; python -m cl_teach says what there is"):
        _ = cl_teach.optim
    assert not hasattr(cl_teach, "__path_that_is_not__")


def test_the_package_as_a_program_says_how_to_begin():
    shown = call("-W", "error::RuntimeWarning", "-m", "cl_teach")
    assert f"cl_teach {cl_teach.__version__}" in shown
    for words in ("pretrain(", "python -m cl_teach.distributed --help", "python -m cl_teach.survey"):
        assert words in shown
    assert call("-m", "cl_teach", "--version").strip() == cl_teach.__version__


def test_what_the_program_tells_to_type_works():
    shown = call("-m", "cl_teach")
    start = shown.index("    from cl_teach.augment")
    lines = [line[4:] for line in shown[start : shown.index("or with a program")].splitlines()]
    program = "\n".join(lines).replace("epochs=5", "epochs=1, progress=False")
    assert 0.5 < float(call("-c", program)) <= 1
