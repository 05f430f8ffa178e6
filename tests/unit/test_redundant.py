"""A regression with redundant and corrupted rows, as planted."""

import pytest
import torch

from cl_teach.datasets.redundant import redundant_regression


def test_the_generator_plants_what_it_says():
    data = redundant_regression(4000, corrupted=0.1)
    norms = data.inputs.norm(dim=1)
    assert data.informative.double().mean().item() == pytest.approx(0.2, abs=0.03)
    assert norms[data.informative].mean().item() == pytest.approx(1.0, abs=0.05)
    assert norms[~data.informative].mean().item() == pytest.approx(0.1, abs=0.01)
    clean = ~data.corrupted
    assert torch.allclose(data.targets[clean], (data.inputs @ data.truth)[clean])
    assert data.corrupted.double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (data.targets - data.inputs @ data.truth)[data.corrupted].abs().min() > 0


@pytest.mark.parametrize("bad", [{"n": 1}, {"width": 0}, {"scale": 0.0}, {"informative": 1.5}, {"corrupted": 2.0}])
def test_bad_input_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        redundant_regression(**bad)
