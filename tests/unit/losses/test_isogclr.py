"""Qiu et al. (2023): one temperature a sample."""

import copy
import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.losses.dcl import dcl
from cl_teach.losses.isogclr import ImageTextISogCLR, ISogCLR, SogCLR, negative_similarities, robust_objective

Z1, Z2, INDEX = draw(5, 4), draw(5, 4, seed=1), torch.tensor([7, 2, 0, 4, 9])


def make(**options):
    return ISogCLR(10, dtype=torch.float64, **({"gamma": 1.0} | options))


def test_negatives_are_both_views_of_all_other_samples():
    a, positive = negative_similarities(Z1, Z2)
    z = normalize(torch.cat([Z1, Z2]))
    for view in range(2):
        for i in range(5):
            expected = [z[i + 5 * view] @ z[j] for j in range(10) if j % 5 != i]
            assert torch.allclose(a[view, i], torch.stack(expected))
    assert torch.allclose(positive, (z[:5] * z[5:]).sum(1))


def test_surrogate_has_the_gradient_of_the_exact_objective():
    method = make()
    method.temperatures.copy_(torch.linspace(0.1, 0.9, 10))
    tau = method.temperatures[INDEX].clone()
    z1, z2 = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    ours = torch.autograd.grad(method(z1, z2, INDEX), [z1, z2])
    exact = torch.autograd.grad(robust_objective(z1, z2, tau), [z1, z2])
    assert all(torch.allclose(a, b) for a, b in zip(ours, exact, strict=True))


def test_with_one_temperature_it_is_a_multiple_of_the_decoupled_loss():
    z1 = Z1.clone().requires_grad_()
    tau = torch.full((5,), 0.3, dtype=torch.float64)
    (exact,) = torch.autograd.grad(robust_objective(z1, Z2, tau), z1)
    (decoupled,) = torch.autograd.grad(dcl(z1, Z2, 0.3), z1)
    assert torch.allclose(exact, 2 * 0.3 * decoupled)


def divergence(a, tau):
    p = (a / tau[:, None]).softmax(-1)
    return (p * (p * a.shape[-1]).log()).sum(-1).mean(0)


def test_velocity_is_rho_minus_the_divergence():
    method = make(momentum=1.0, rho=0.4, temperature=0.3)
    a, _ = negative_similarities(Z1, Z2)
    method(Z1, Z2, INDEX)
    expected = 0.4 - divergence(a, torch.full((5,), 0.3, dtype=torch.float64))
    assert torch.allclose(method.velocity[INDEX], expected)


def test_temperatures_settle_where_the_divergence_is_rho():
    method = make(rho=0.2, temperature=0.3, low=0.01, high=5.0)
    for _ in range(4000):
        method(Z1, Z2, INDEX)
    a, _ = negative_similarities(Z1, Z2)
    assert torch.allclose(divergence(a, method.temperatures[INDEX]), torch.tensor(0.2).double(), atol=1e-6)


def test_more_near_neighbors_mean_a_larger_temperature():
    def settle(near):
        a = torch.zeros(126, dtype=torch.float64)
        a[:near] = 0.8
        tau = torch.tensor(0.3, dtype=torch.float64)
        for _ in range(4000):
            p = (a / tau).softmax(0)
            tau = (tau - 0.02 * (0.1 - (p * (p * 126).log()).sum())).clamp(0.01, 5)
        return tau.item()

    temperatures = [settle(near) for near in (1, 5, 10, 20, 40)]
    assert temperatures == sorted(temperatures)


def test_a_large_rho_drives_to_the_floor_and_zero_never_lowers():
    low = make(rho=math.log(8) + 0.1, temperature=0.3)
    none = make(rho=0.0, temperature=0.3)
    for _ in range(300):
        low(Z1, Z2, INDEX)
        none(Z1, Z2, INDEX)
    assert torch.allclose(low.temperatures[INDEX], torch.tensor(0.05).double())
    assert (none.temperatures[INDEX] >= 0.3).all()


def test_samples_outside_the_batch_keep_their_state_bit_for_bit():
    method = make(gamma=0.8)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method(Z1, Z2, INDEX)
    rest = torch.tensor([i for i in range(10) if i not in INDEX.tolist()])
    for name, value in method.state_dict().items():
        assert torch.equal(value[rest], before[name][rest])
        if name != "temperatures":
            assert not torch.equal(value[INDEX], before[name][INDEX])


def test_average_converges_geometrically_and_starts_with_the_first_batch():
    method = SogCLR(10, gamma=0.3, temperature=0.5, dtype=torch.float64)
    method(Z1, Z2, INDEX)
    first = method.average[INDEX].clone()
    other1, other2 = draw(5, 4, seed=5), draw(5, 4, seed=6)
    fixed = SogCLR(10, gamma=0.3, temperature=0.5, dtype=torch.float64)
    fixed(other1, other2, INDEX)
    goal = fixed.average[INDEX]
    for step in range(1, 4):
        method(other1, other2, INDEX)
        assert torch.allclose(method.average[INDEX] - goal, 0.7**step * (first - goal))


def test_no_step_size_gives_sogclr():
    a = make(gamma=0.8, learning_rate=0.0)
    b = SogCLR(10, gamma=0.8, dtype=torch.float64)
    for _ in range(3):
        assert torch.equal(a(Z1, Z2, INDEX), b(Z1, Z2, INDEX))


def test_swapping_views_changes_neither_loss_nor_state():
    a, b = make(gamma=0.8), make(gamma=0.8)
    assert torch.allclose(a(Z1, Z2, INDEX), b(Z2, Z1, INDEX))
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert torch.allclose(x[INDEX], y[INDEX])


def test_evaluation_and_no_grad_change_nothing():
    method = make(gamma=0.8)
    method(Z1, Z2, INDEX)
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        method(Z1, Z2, INDEX)
    method.eval()
    method(Z1, Z2, INDEX)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("kind", [ISogCLR, ImageTextISogCLR])
def test_a_loaded_memory_continues_as_if_never_stopped(kind):
    whole, part, fresh = kind(10), kind(10), kind(10)
    batches = [(draw(5, 4, seed=2 * s).float(), draw(5, 4, seed=2 * s + 1).float(), INDEX.roll(s)) for s in range(6)]
    losses = [whole(*batch) for batch in batches]
    for batch in batches[:3]:
        part(*batch)
    fresh.load_state_dict(part.state_dict())
    assert all(torch.equal(fresh(*batch), loss) for batch, loss in zip(batches[3:], losses[3:], strict=True))


def test_index_of_any_width_and_half_precision_views():
    for dtype in (torch.uint8, torch.int32):
        a, b = make(), make()
        assert torch.equal(a(Z1, Z2, INDEX.to(dtype)), b(Z1, Z2, INDEX))
        assert torch.equal(a.temperatures, b.temperatures)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ISogCLR(10)(Z1.bfloat16(), Z2.float(), INDEX)
    assert torch.allclose(loss, ISogCLR(10)(Z1.bfloat16().float(), Z2.float(), INDEX))


def pairs(seed=0, **options):
    """A memory of images and texts with temperatures of their own, and a batch."""
    method = ImageTextISogCLR(10, dtype=torch.float64, **({"gamma": 1.0, "low": 0.05, "temperature": 0.3} | options))
    with torch.no_grad():
        method.images.temperatures.copy_(torch.linspace(0.1, 0.9, 10))
        method.texts.temperatures.copy_(torch.linspace(0.8, 0.2, 10))
    return method, draw(5, 4, seed=seed), draw(5, 4, seed=seed + 1)


def test_image_text_surrogate_has_the_gradient_of_the_exact_objective():
    method, image, text = pairs()
    tau_image, tau_text = method.images.temperatures[INDEX].clone(), method.texts.temperatures[INDEX].clone()
    image.requires_grad_(), text.requires_grad_()
    ours = torch.autograd.grad(method(image, text, INDEX), [image, text])
    s = normalize(image) @ normalize(text).T
    exact = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        exact = exact + tau_image[i] * ((s[i, others] - s[i, i]) / tau_image[i]).exp().mean().log() / 5
        exact = exact + tau_text[i] * ((s[others, i] - s[i, i]) / tau_text[i]).exp().mean().log() / 5
    for a, b in zip(ours, torch.autograd.grad(exact, [image, text]), strict=True):
        assert torch.allclose(a, b)


def test_image_text_temperatures_settle_where_the_divergence_is_rho():
    method, image, text = pairs(rho=0.2, high=5.0, low=0.01)
    for _ in range(3000):
        method(image, text, INDEX)
    s = normalize(image) @ normalize(text).T
    others = ~torch.eye(5, dtype=torch.bool)
    for memory, a in ((method.images, s), (method.texts, s.T)):
        found = divergence(a[others].view(1, 5, 4), memory.temperatures[INDEX])
        assert torch.allclose(found, torch.tensor(0.2).double(), atol=1e-5)


def test_swapping_images_and_texts_swaps_their_memories():
    a, image, text = pairs(gamma=0.8)
    b, _, _ = pairs(gamma=0.8)
    with torch.no_grad():
        b.images.temperatures.copy_(a.texts.temperatures)
        b.texts.temperatures.copy_(a.images.temperatures)
    assert torch.allclose(a(image, text, INDEX), b(text, image, INDEX))
    assert torch.allclose(a.images.temperatures, b.texts.temperatures)
    assert torch.allclose(a.texts.velocity, b.images.velocity)


def test_the_published_temperature_of_pairs_stays_finite_in_float32():
    method = ImageTextISogCLR(10)
    image = draw(5, 4).float().requires_grad_()
    for _ in range(3):
        loss = method(image, draw(5, 4, seed=1).float(), INDEX)
    loss.backward()
    assert image.grad.isfinite().all()
    assert all(value.isfinite().all() for value in (method.images.temperatures, method.texts.velocity))


def test_a_temperature_where_the_plain_exponential_overflows_stays_finite():
    method = ISogCLR(5, temperature=0.005, low=0.005, gamma=0.8)
    z1, z2 = Z1.float().requires_grad_(), Z2.float()
    for _ in range(3):
        loss = method(z1, z2, torch.arange(5))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z1.grad).all() and torch.isfinite(method.temperatures).all()


def test_a_training_run_gives_frequent_groups_the_larger_temperature():
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0] * 16 + [1 + i // 2 for i in range(48)])  # one group of 16, 24 groups of 2
    data = torch.randn(25, 16, generator=generator)[label] + 0.1 * torch.randn(64, 16, generator=generator)
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    method = ISogCLR(64, temperature=0.3, rho=0.3)
    optimizer = torch.optim.Adam([*encoder.parameters()], lr=3e-3)
    losses = []
    for _ in range(300):
        rows = torch.randperm(64, generator=generator)[:32]
        views = [data[rows] + 0.3 * torch.randn(32, 16, generator=generator) for _ in range(2)]
        loss = method(encoder(views[0]), encoder(views[1]), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(robust_objective(encoder(views[0]), encoder(views[1]), method.temperatures[rows], 0.3).item())
    assert sum(losses[-30:]) < sum(losses[:30])
    assert method.temperatures[label == 0].mean() > method.temperatures[label > 0].mean() + 0.1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: make()(Z1, Z2, torch.tensor([0, 1, 2, 3, 3])), "index.*once"),
        (lambda: make()(Z1, Z2, torch.tensor([0, 1, 2, 3, 10])), "index.*below"),
        (lambda: make()(Z1[:1], Z2[:1], torch.tensor([0])), "at least 2 rows"),
        (lambda: make(gamma=0.0), "gamma"),
        (lambda: make(temperature=0.01), "temperature"),
        (lambda: make(rho=-1.0), "rho"),
        (lambda: robust_objective(Z1, Z2, torch.zeros(5)), "temperatures"),
        (lambda: robust_objective(Z1, Z2, torch.ones(1)), "temperatures"),
        (lambda: ImageTextISogCLR(10)(Z1, Z2[:3], INDEX), "text"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
