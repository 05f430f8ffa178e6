"""The tiled losses against the plain formula: values, gradients, hard cases, and when they step aside."""

import contextlib
import math

import pytest
import torch
from torch.autograd import forward_ad

from cl_teach.core import clip_loss, info_nce, normalize, nt_xent, sup_con, tables, tiled_contrast, tiling, use_tiles
from cl_teach.core.products import similarities
from cl_teach.losses.dcl import dcl


def draw(n=11, d=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z1 = torch.randn(n, d, generator=generator, dtype=torch.float64)
    z2 = z1 + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z1.to(dtype), z2.to(dtype)


def two_labels(n):
    return (torch.arange(n) % 3).repeat(2)


LOSSES = {
    "nt_xent": lambda z1, z2, t: nt_xent(z1, z2, t),
    "dcl": lambda z1, z2, t: dcl(z1, z2, t),
    "sup_con out": lambda z1, z2, t: sup_con(torch.cat([z1, z2]), two_labels(len(z1)), t),
    "sup_con in": lambda z1, z2, t: sup_con(torch.cat([z1, z2]), two_labels(len(z1)), t, variant="in"),
    "clip_loss": lambda z1, z2, t: clip_loss(z1, z2, -math.log(t)),
    "info_nce": lambda z1, z2, t: info_nce(z1, z2, None, t),
}


def value_and_gradients(loss, z1, z2, temperature, side):
    z1, z2 = z1.clone().requires_grad_(), z2.clone().requires_grad_()
    with tiling(side):
        value = loss(z1, z2, temperature)
        value.backward()
    return value.detach(), z1.grad, z2.grad


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.005])
@pytest.mark.parametrize("side", [1, 3, 4, 8, 22, 100])
@pytest.mark.parametrize("name", LOSSES)
def test_tiles_of_any_size_give_the_plain_value_and_gradient(name, side, temperature):
    found = value_and_gradients(LOSSES[name], *draw(), temperature, side)
    expected = value_and_gradients(LOSSES[name], *draw(), temperature, None)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_many_tiles_agrees_when_the_size_is_chosen_automatically(name):
    z = draw(300, 16)
    found = value_and_gradients(LOSSES[name], *z, 0.07, 256)
    with tiling(None):
        plain = LOSSES[name](*z, 0.07)
    automatic = LOSSES[name](*z, 0.07)
    torch.testing.assert_close(found[0], plain)
    torch.testing.assert_close(automatic, plain)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
@pytest.mark.parametrize("name", LOSSES)
def test_lower_precision_stays_close_to_float64(name, dtype, close):
    z = draw(40, 16)
    rounded = tuple(x.to(dtype) for x in z)
    found = value_and_gradients(LOSSES[name], *rounded, 0.2, 16)
    expected = value_and_gradients(LOSSES[name], *(x.double() for x in rounded), 0.2, None)
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max() < close * max(b.abs().max().item(), 1e-2)


@pytest.mark.parametrize("temperature", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_float32_at_low_temperature_on_opposed_and_equal_rows(name, temperature):
    # Rows equal, opposite, zero and huge: similarities reach 1 and -1, exponents 200 and -200.
    base = draw(1, 7, torch.float32)[0]
    z1 = torch.cat([base, -base, base, 0 * base, 1e4 * base, -base])
    z2 = torch.cat([base, base, -base, base, base, -1e4 * base])
    found = value_and_gradients(LOSSES[name], z1, z2, temperature, 5)
    expected = value_and_gradients(LOSSES[name], z1.double(), z2.double(), temperature, None)
    assert all(torch.isfinite(x).all() for x in found)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(found[1:], expected[1:], strict=True):  # terms of size 1 / temperature cancel, their rounding stays
        assert (a.double() - b).abs().max() <= 1e-4 * b.abs().max() + 1e-7 / temperature


def test_weights_of_single_anchors_reach_the_gradient():
    z1, z2 = (x.requires_grad_() for x in draw())
    weights = torch.linspace(-1, 2, 22, dtype=torch.float64)

    def gradient(side):
        with tiling(side):
            return torch.autograd.grad(weights @ nt_xent(z1, z2, 0.1, reduction="none"), (z1, z2))

    for a, b in zip(gradient(4), gradient(None), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["nt_xent", "dcl", "sup_con out", "sup_con in"])
def test_a_learned_temperature_gets_its_gradient(name):
    z1, z2 = draw()
    found = []
    for side in (4, None):
        temperature = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        with tiling(side):
            LOSSES[name](z1, z2, temperature).backward()
        found.append(temperature.grad)
    torch.testing.assert_close(*found)


def test_a_learned_scale_of_clip_gets_its_gradient():
    found = []
    for side in (4, None):
        log_scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        with tiling(side):
            clip_loss(*draw(), log_scale).backward()
        found.append(log_scale.grad)
    torch.testing.assert_close(*found)


def test_only_one_side_needs_a_gradient():
    image, text = draw()
    with tiling(4):
        (found,) = torch.autograd.grad(clip_loss(image, text.requires_grad_(), 1.0), text)
    with tiling(None):
        (expected,) = torch.autograd.grad(clip_loss(image, text, 1.0), text)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck_and_a_second_derivative(name):
    z1, z2 = (x.requires_grad_() for x in draw(4, 3))
    loss = LOSSES[name]
    with tiling(3):
        assert torch.autograd.gradcheck(lambda a, b: loss(a, b, 0.3), (z1, z2))
        assert torch.autograd.gradgradcheck(lambda a, b: loss(a, b, 0.3), (z1, z2))


def test_calling_backward_twice_gives_the_same_gradient():
    z1, z2 = (x.requires_grad_() for x in draw())
    with tiling(4):
        loss = nt_xent(z1, z2, 0.1)
    first = torch.autograd.grad(loss, z1, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, z1)[0])


def test_transforms_take_the_plain_formula_and_are_right():
    z1, z2 = draw()

    def loss(x):
        return nt_xent(x, z2, 0.1)

    with tiling(4):
        with forward_ad.dual_level():
            assert not use_tiles(0.1)
        found = torch.func.grad(loss)(z1)
        hessian_row = torch.func.grad(lambda x: torch.func.grad(loss)(x)[0, 0])(z1)
        _, tangent = torch.func.jvp(loss, (z1,), (torch.ones_like(z1),))
        assert use_tiles(0.1)
    z1.requires_grad_()
    with tiling(None):
        (expected,) = torch.autograd.grad(loss(z1), z1, create_graph=True)
        (row,) = torch.autograd.grad(expected[0, 0], z1)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(hessian_row, row)
    torch.testing.assert_close(tangent, expected.sum().detach())


def test_a_temperature_for_every_row_takes_the_plain_formula():
    z1, z2 = draw()
    temperatures = torch.linspace(0.1, 0.5, 22, dtype=torch.float64)[:, None]
    assert not use_tiles(temperatures)
    with tiling(4):
        rows = nt_xent(z1, z2, temperatures, reduction="none")
    for i in (0, 7, 21):
        torch.testing.assert_close(rows[i], nt_xent(z1, z2, temperatures[i].item(), reduction="none")[i])


def test_a_row_without_candidates_is_minus_infinity():
    z = normalize(draw()[0])
    labels = torch.tensor([0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    for side in (0, 4):
        with tiling(side or 100):
            rows = tiled_contrast(z, scale=3.0, skip=(0,), labels=labels)
        assert rows[0] == -math.inf
        assert torch.isfinite(rows[1:]).all()


def test_memory_grows_with_the_batch_not_with_its_square():
    def largest_allocation(n):
        z1, z2 = (x.requires_grad_() for x in draw(n, 8, torch.float32))
        with torch.profiler.profile(profile_memory=True) as profile:
            nt_xent(z1, z2, 0.1).backward()
        sizes = [event.cpu_memory_usage for event in profile.events()]
        return max(sizes)

    small, large = largest_allocation(512), largest_allocation(2048)
    assert large <= max(small, 4 * 2048 * 8 * 4 * 4)  # some copies of the embeddings; the table would be 64 MiB
    with tiling(None):
        assert largest_allocation(512) >= 1024 * 1024 * 4


@pytest.mark.parametrize("side", [0, -3])
def test_a_side_below_one_is_refused(side):
    with pytest.raises(ValueError, match="side"), tiling(side):
        pass


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", LOSSES)
def test_a_gpu_gives_the_same(name):
    z = draw(600, 32, torch.float32)
    expected = value_and_gradients(LOSSES[name], *(x.double() for x in z), 0.1, None)
    labels_on_gpu = LOSSES[name] if "sup_con" not in name else None
    loss = labels_on_gpu or (
        lambda a, b, t: sup_con(torch.cat([a, b]), two_labels(len(a)).to(a.device), t, variant=name.split()[1])
    )
    found = value_and_gradients(loss, *(x.cuda() for x in z), 0.1, 256)
    for a, b in zip(found, expected, strict=True):
        assert (a.cpu().double() - b).abs().max() <= 1e-4 * b.abs().max() + 1e-6


@pytest.mark.parametrize("temperature", [0.05, 0.01])
@pytest.mark.parametrize("side", [0, 4])
def test_a_pair_that_is_as_good_as_right_has_as_small_a_loss_as_float32_can_say(side, temperature):
    z = torch.eye(12, 16)
    with tiling(side) if side else contextlib.nullcontext():
        for rows in (nt_xent(z, z, temperature, reduction="none"), info_nce(z, z, None, temperature, reduction="none")):
            exact = math.log1p((22 if len(rows) == 24 else 11) * math.exp(-1 / temperature))
            assert (
                rows - exact
            ).abs().max() < 1e-6  # some roundings of a number near 1; a difference of logits has 1e-5


# Tables of every kind: kept whole, kept in tiles, computed again, and at a temperature below one in forty.
HALF_CASES = {"whole": (64, 0, 0.1), "kept tiles": (300, 0, 0.1), "again": (1100, 256, 0.1), "cold": (300, 128, 0.02)}


@pytest.mark.parametrize("case", HALF_CASES)
@pytest.mark.parametrize("name", ["nt_xent", "dcl", "clip_loss", "info_nce"])
def test_bfloat16_is_as_exact_as_its_inputs(name, case):
    n, side, temperature = HALF_CASES[case]
    first, second = draw(n, 256)
    halves = first.bfloat16(), (second - 0.9 * first).bfloat16()  # not so similar that the gradient is rounding noise
    loss = LOSSES[name]
    z1, z2 = (x.clone().requires_grad_() for x in halves)
    with tiling(side) if side else contextlib.nullcontext():
        value = loss(z1, z2, temperature)
        value.backward()
    expected = value_and_gradients(loss, *(x.double() for x in halves), temperature, None)
    assert value.dtype == torch.float32
    assert z1.grad.dtype == torch.bfloat16
    # A factor is wrong by 2^-9 of itself, a cosine of 256 factors by about 2^-9 / 16, a logit by that / temperature.
    assert abs(value.item() - expected[0].item()) < 4 * 2**-9 / 16 / temperature
    for found, exact in ((z1.grad, expected[1]), (z2.grad, expected[2])):
        error = (found.double() - exact).norm() / exact.norm()
        assert error < 4 * 2**-9 * (1 + 1 / (16 * temperature))


def test_a_product_leaves_the_precision_of_other_products_alone():
    setting = getattr(torch.backends.mkldnn, "matmul", None)
    if setting is None:
        pytest.skip("this torch has no such setting")
    before = setting.fp32_precision
    half = torch.ones(3, 4, dtype=torch.bfloat16)
    torch.testing.assert_close(similarities(half, half, 2.0), torch.full((3, 3), 8.0))
    with pytest.raises(RuntimeError):
        similarities(half, torch.ones(3, 5, dtype=torch.bfloat16), 1.0)
    assert setting.fp32_precision == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("loss", [nt_xent, dcl, info_nce, lambda z1, z2: clip_loss(z1, z2, 1.0)])
def test_what_is_not_finite_is_named_though_it_is_met_late(loss, bad):
    z1, z2 = draw()
    z2[3, 2] = bad
    with pytest.raises(ValueError, match=r"^(z2|positive|text): expected finite numbers, got 1 NaN or infinite of 77$"):
        loss(z1, z2)


def test_two_precisions_are_computed_in_the_better_one():
    z1, z2 = draw()
    found = value_and_gradients(LOSSES["clip_loss"], z1.float(), z2, 0.1, 4)
    expected = value_and_gradients(LOSSES["clip_loss"], z1.float().double(), z2, 0.1, None)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1].float())
    torch.testing.assert_close(found[2], expected[2])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gradient_made_ahead_is_scaled_by_what_arrives(name, dtype):
    z1, z2 = (x.requires_grad_() for x in draw(dtype=dtype))
    loss = LOSSES[name](z1, z2, 0.1)
    (once,) = torch.autograd.grad(loss, z1, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * 64, z1)
    torch.testing.assert_close(scaled, 64 * once, rtol=2**-9, atol=64 * 2**-24)


def test_without_a_gradient_none_is_made_ahead(monkeypatch):
    def refuse(*_):
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(tables.WholeTable, "gradients", refuse)
    z1, z2 = draw()
    nt_xent(z1, z2)
    with torch.no_grad():
        nt_xent(z1.requires_grad_(), z2)
