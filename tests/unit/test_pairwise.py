"""SigLIP tile by tile against the formula on the whole table."""

import math

import pytest
import torch

from cl_teach.core import pairwise, siglip_loss, tiling
from cl_teach.core.pairwise import siglip_table, siglip_tiles


def leaves(n, d=5, bias=-10.0, dtype=torch.float64):
    draws = [torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1)]
    numbers = [torch.tensor(x, dtype=torch.float64) for x in (math.log(10.0), bias)]
    return [x.to(dtype).requires_grad_() for x in (*draws, *numbers)]


@pytest.mark.parametrize("side", [1, 3, 4, 256])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
@pytest.mark.parametrize("bias", [-10.0, 0.0, 300.0, -300.0])
def test_value_and_gradients_are_those_of_the_plain_formula(n, side, bias):
    x = leaves(n, bias=bias)
    with tiling(side):
        found, wanted = siglip_tiles(*x), siglip_table(*x)
        grads = torch.autograd.grad(3 * found, x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    for a, b in zip(grads, torch.autograd.grad(3 * wanted, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("bias", [-25.0, -10.0, -3.0, 0.0, 20.0])
@pytest.mark.parametrize("n", [5, 64, 300])
def test_float32_is_as_exact_as_float32_can_be(n, bias):
    x = leaves(n, 16, bias, torch.float32)
    exact = [v.detach().double().requires_grad_() for v in x]
    found, wanted = siglip_tiles(*x), siglip_table(*exact)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    for a, b in zip(torch.autograd.grad(found, x), torch.autograd.grad(wanted, exact), strict=True):
        assert (a - b).abs().max() <= 2e-5 * b.abs().max() + 1e-30


def test_many_small_numbers_lose_no_digits():
    z = torch.full((64, 64), -12.0)
    assert pairwise._softplus_sum(z).item() == pytest.approx(4096 * math.log1p(math.exp(-12)), rel=5e-6)


def test_the_gradient_can_be_differentiated():
    x = leaves(4, 3, -1.0)
    assert torch.autograd.gradcheck(siglip_loss, x)
    assert torch.autograd.gradgradcheck(siglip_loss, x)


def test_transforms_take_the_plain_formula():
    x = leaves(4, 3, -1.0)
    found = torch.func.grad(lambda a: siglip_loss(a, *(y.detach() for y in x[1:])))(x[0].detach())
    torch.testing.assert_close(found, torch.autograd.grad(siglip_loss(*x), x[0])[0])
    with tiling(None):
        torch.testing.assert_close(siglip_loss(*x), siglip_tiles(*x))


@pytest.mark.parametrize("factor", [0.0, 1e30, 1e-20])
def test_vectors_without_a_length_and_very_long_ones(factor):
    x = leaves(6, 4)
    with torch.no_grad():
        x[0][0] *= factor
    found, wanted = siglip_tiles(*x), siglip_table(*x)
    torch.testing.assert_close(found, wanted)
    for a, b in zip(torch.autograd.grad(found, x), torch.autograd.grad(wanted, x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_bias_that_overflows_is_named():
    x = leaves(3, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="bias"):
        siglip_loss(x[0], x[1], 1.0, torch.tensor(3e38))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = leaves(8, 4, dtype=dtype)
    loss = siglip_loss(x[0], x[1], 2.0, -10.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert x[0].grad.dtype == dtype
    torch.testing.assert_close(loss, siglip_loss(x[0].float(), x[1].float(), 2.0, -10.0))


def test_a_backward_pass_under_autocast_is_computed_in_float32():
    x = leaves(8, 4, dtype=torch.float32)
    expected = torch.autograd.grad(siglip_loss(*x), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(siglip_loss(*x), x)
    torch.testing.assert_close(found, expected)


def test_memory_grows_with_the_batch_not_with_its_square():
    x = leaves(1024, 8, dtype=torch.float32)
    with tiling(256), torch.profiler.profile(profile_memory=True) as profile:
        siglip_loss(*x).backward()
    assert max(event.cpu_memory_usage for event in profile.events()) <= 2 * 256 * 256 * 4  # the table would be 4 MiB


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same():
    x = leaves(600, 32, dtype=torch.float32)
    there = [v.detach().cuda().requires_grad_() for v in x]
    torch.testing.assert_close(siglip_loss(*there).cpu(), siglip_loss(*x), rtol=1e-4, atol=0)
