"""Li et al. (2024): generated views, as noisy as the subject is large, weighted by the quality of the pair."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.datasets import draw_scenes
from cl_teach.models import MLP, VariationGenerator
from cl_teach.models.foreground import (
    Foreground,
    fit_foreground,
    foreground_ratio,
    patch_tokens,
    principal_direction,
)
from cl_teach.views.genview import (
    GenView,
    draw_choice,
    generate_variations,
    insert_generated,
    noise_level,
    pair_quality,
    pool_patches,
    quality_weights,
    soft_masks,
    weighted_moco_loss,
    weighted_simsiam_loss,
)

T1, T2, V = draw(5, 9, 6), draw(5, 9, 6, seed=1), draw(6, seed=2)
Q1, Q2, K1, K2 = (draw(5, 4, seed=k) for k in range(4))
WEIGHTS = quality_weights(draw(5, seed=5))
BORDER = torch.arange(9) != 4


def test_quality_is_the_loop_over_patches():
    def pooled(tokens, sign):
        a = [sum(tokens[p, d] * V[d] for d in range(6)).item() for p in range(9)]
        m = [(x - min(a)) / (max(a) - min(a) + 1e-7) for x in a]
        m = m if sign > 0 else [1 - x for x in m]
        return sum(m[p] / (sum(m) + 1e-7) * tokens[p] for p in range(9))

    result = pair_quality(T1, T2, V)
    for i in range(5):
        front, back = (F.cosine_similarity(pooled(T1[i], s), pooled(T2[i], s), dim=0).item() for s in (1, -1))
        assert result.foreground[i].item() == pytest.approx(front)
        assert result.background[i].item() == pytest.approx(back)
        assert result.quality[i].item() == pytest.approx(front - back)
    exponentials = [math.exp(3 * q) for q in result.quality.tolist()]
    expected = torch.tensor([5 * e / sum(exponentials) for e in exponentials], dtype=torch.float64)
    assert torch.allclose(quality_weights(result.quality, 3.0), expected)


def test_masks_sum_to_one_and_do_not_see_offset_or_scale():
    front, back = soft_masks(T1, V)
    one = torch.ones(5, dtype=torch.float64)
    assert torch.allclose(front.sum(1), one, atol=1e-6) and torch.allclose(back.sum(1), one, atol=1e-6)
    for tokens, direction in ((T1 + draw(6, seed=3), V), (T1, 7 * V)):
        assert torch.allclose(soft_masks(tokens, direction)[0], front, atol=1e-6)


def test_opposite_direction_swaps_masks_and_rewards_the_wrong_pairs():
    front, back = soft_masks(T1, V)
    swapped = soft_masks(T1, -V)
    assert torch.allclose(swapped[0], back, atol=1e-6) and torch.allclose(swapped[1], front, atol=1e-6)
    assert torch.allclose(pair_quality(T1, T2, -V).quality, -pair_quality(T1, T2, V).quality, atol=1e-6)


def test_same_views_and_gamma_zero_have_weight_one():
    one = torch.ones(5, dtype=torch.float64)
    assert torch.allclose(quality_weights(pair_quality(T1, T1, V).quality, 9.0), one)
    assert torch.equal(quality_weights(pair_quality(T1, T2, V).quality, 0.0), one)


def test_weights_sum_to_n_and_their_ratio_is_exponential():
    q = pair_quality(T1, T2, V).quality
    w = quality_weights(q, 2.0)
    assert w.sum().item() == pytest.approx(5) and q.abs().max() <= 2
    assert torch.allclose(w[:, None] / w, (2 * (q[:, None] - q)).exp())


def test_constant_tokens_have_no_foreground_and_finite_weights():
    tokens = T1.clone()
    tokens[0] = tokens[0, :1]
    result = pair_quality(tokens, T2, V)
    assert result.foreground[0] == 0 and torch.isfinite(quality_weights(result.quality)).all()


def test_moco_loss_is_the_loop_over_keys_and_weights_scale_gradients():
    def cosine(a, b):
        return F.cosine_similarity(a, b, dim=0).item() / 0.7

    total = 0.0
    for q, k in ((Q1, K2), (Q2, K1)):
        for i in range(5):
            own = math.log(sum(math.exp(cosine(q[i], key)) for key in k)) - cosine(q[i], k[i])
            total += WEIGHTS[i].item() * own / 5
    assert weighted_moco_loss(Q1, Q2, K1, K2, WEIGHTS, 0.7).item() == pytest.approx(1.4 * total)
    q, one = Q1.clone().requires_grad_(), torch.ones_like(WEIGHTS)
    plain, weighted = (torch.autograd.grad(weighted_moco_loss(q, Q2, K1, K2, w), q)[0] for w in (one, WEIGHTS))
    assert plain.abs().max() > 1e-3 and torch.allclose(weighted, WEIGHTS[:, None] * plain)


def test_simsiam_loss_is_the_loop():
    terms = [F.cosine_similarity(Q1[i], K2[i], dim=0) + F.cosine_similarity(Q2[i], K1[i], dim=0) for i in range(5)]
    expected = -sum(WEIGHTS[i] * terms[i] for i in range(5)) / 10
    assert torch.allclose(weighted_simsiam_loss(Q1, Q2, K1, K2, WEIGHTS), expected)
    perfect = weighted_simsiam_loss(Q1, Q2, 3 * Q2, 2 * Q1, WEIGHTS)
    assert perfect.item() == pytest.approx(-1)


@pytest.mark.parametrize("loss", [weighted_moco_loss, weighted_simsiam_loss])
def test_gradients_are_right_and_none_reaches_keys_and_weights(loss):
    leaves = [Q1.clone().requires_grad_(), Q2.clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, K1, K2, WEIGHTS), leaves)
    fixed = [x.clone().requires_grad_() for x in (K1, K2, WEIGHTS)]
    loss(*leaves, *fixed).backward()
    assert all(x.grad is None for x in fixed) and leaves[0].grad.abs().max() > 0


def test_low_temperature_zeros_and_duplicates_stay_finite():
    q = Q1.float()
    q[0], q[1] = 0, q[2]
    q.requires_grad_()
    loss = weighted_moco_loss(q, Q2.float(), K1.float(), K2.float(), WEIGHTS.float(), 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(q.grad).all()


def test_level_grows_in_steps_and_an_edge_is_in_the_lower_bin():
    ratio = torch.linspace(0, 1, 101, dtype=torch.float64)
    levels = noise_level(ratio)
    assert (levels.diff() >= 0).all() and levels.unique().tolist() == [0, 100, 200, 300, 400]
    edges = torch.tensor([0.2, 0.4, 0.6, 0.8])
    assert noise_level(edges).tolist() == [0, 100, 200, 300]
    assert noise_level(edges + 1e-4).tolist() == [100, 200, 300, 400]


def test_direction_maximizes_the_variance():
    tokens = draw(50, 4) * torch.tensor([1.0, 2.0, 0.5, 1.5])
    direction, mean = principal_direction(tokens)
    others = F.normalize(draw(200, 4, seed=1))
    assert ((tokens @ others.T).var(0) < (tokens @ direction).var()).all() and direction.norm().item() == pytest.approx(
        1
    )
    assert direction[direction.abs().argmax()] > 0 and torch.allclose(mean, tokens.mean(0))


def scenes(n, generator, classes=6, sizes=None, things=None):
    things = torch.randint(classes, (n,), generator=generator) if things is None else things
    sizes = torch.full((n,), 4) if sizes is None else sizes
    return draw_scenes(things, torch.randint(classes, (n,), generator=generator), sizes, generator=generator), things


def test_foreground_is_found_and_known_background_fixes_its_sign():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 9, (300,), generator=generator)
    pictures, _ = scenes(300, generator, sizes=sizes)
    tokens = patch_tokens(pictures.images)
    assert pictures.foreground[:, 4].all() and torch.equal(pictures.foreground.sum(1), sizes)
    for t in (tokens, -tokens):  # dark subjects before bright places
        found = fit_foreground(t, BORDER, share=0.5)
        assert torch.corrcoef(torch.stack([foreground_ratio(t, found), sizes / 9]))[0, 1] > 0.95
        front, _ = soft_masks(t, found.direction)
        assert pool_patches(pictures.foreground[..., None].float(), front).mean() > 0.8
    share = (tokens @ found.direction).flatten()
    assert (share > fit_foreground(tokens, BORDER, share=0.35).threshold).float().mean() < 0.6


def test_patches_are_read_row_by_row():
    image = torch.arange(36.0).reshape(1, 1, 6, 6)
    tokens = patch_tokens(image, 3)
    assert tokens.shape == (1, 4, 9) and tokens[0, 1].tolist() == image[0, 0, :3, 3:].flatten().tolist()


def test_one_view_is_generated_as_often_as_asked():
    choice = draw_choice(2000, 0.5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(choice.bincount() / 2000, torch.tensor([0.5, 0.25, 0.25]), atol=0.04)
    assert draw_choice(50, 1.0).min() == 1 and draw_choice(50, 0.0).max() == 0
    real, new = draw(3, 1, 2, 2), draw(3, 1, 2, 2, seed=1)
    a, b = insert_generated(real, new, torch.tensor([0, 1, 2]))
    assert torch.equal(a, torch.stack([real[0], new[1], real[2]]))
    assert torch.equal(b, torch.stack([real[0], real[1], new[2]]))


def test_every_image_is_varied_at_the_level_of_its_own_foreground():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images = scenes(8, generator, sizes=torch.arange(1, 9))[0].images
    foreground, model = fit_foreground(patch_tokens(images), BORDER, share=0.5), VariationGenerator((1, 12, 12), dim=8)
    noise = torch.randn(8, 8, generator=generator)
    generated = generate_variations(images, noise, generate=model, patches=patch_tokens, foreground=foreground)
    levels = noise_level(foreground_ratio(patch_tokens(images), foreground))
    assert levels.unique().numel() >= 4 and not generated.requires_grad
    for i in range(8):
        alone = model(images[i : i + 1], levels[i : i + 1], noise[i : i + 1])[0]
        assert torch.allclose(generated[i], alone, atol=1e-5)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(144, 8))
    method = GenView(encoder, nn.Linear(8, 4), nn.Linear(4, 4), patch_tokens, foreground.direction)
    views = insert_generated(images, generated, draw_choice(8, generator=generator))
    terms = method.loss(*views)
    assert terms.weights.std() > 0.01 and torch.isfinite(terms.loss)


def test_more_noise_is_safe_where_the_subject_is_large():
    """A trained generator at the highest level loses the thing more often where it fills few patches."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def batch(n):
        sizes = torch.randint(1, 9, (n,), generator=generator)
        return *scenes(n, generator, 100, sizes), sizes

    model = VariationGenerator((1, 12, 12), dim=64, hidden=256)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(300):
        loss = model.loss(batch(128)[0].images, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pictures, things, sizes = batch(2000)
    clean, _ = scenes(100, generator, sizes=torch.full((100,), 8), things=torch.arange(100))
    prototypes = pool_patches(patch_tokens(clean.images), clean.foreground / 8.0)

    def kept(levels):
        with torch.no_grad():
            new = model(pictures.images, levels, torch.randn(2000, 64, generator=generator))
        front = pool_patches(patch_tokens(new), pictures.foreground / sizes[:, None])
        right = torch.cdist(front, prototypes).argmin(1) == things
        return right.float(), (new - pictures.images).square().mean().sqrt()

    tokens = patch_tokens(pictures.images)
    levels = noise_level(foreground_ratio(tokens, fit_foreground(tokens, BORDER, share=0.5)))
    right, _ = kept(torch.full((2000,), 400))
    adaptive, far = kept(levels)
    mixed, same = kept(levels[torch.randperm(2000, generator=generator)])  # the same levels, given at random
    reverse, _ = kept(400 - levels)
    assert right[sizes >= 7].mean() > right[sizes <= 2].mean() + 0.1
    assert far == pytest.approx(same.item(), rel=0.1)
    assert adaptive.mean() > mixed.mean() + 0.02 and mixed.mean() > reverse.mean() + 0.02


def pairs(n, generator, classes=6):
    """Two views in surroundings of their own; in 40 % the second shows another thing."""
    first, things = scenes(n, generator, classes)
    lost = torch.rand(n, generator=generator) < 0.4
    shift = torch.randint(1, classes, (n,), generator=generator)
    second, _ = scenes(n, generator, classes, things=(things + shift * lost) % classes)
    return first.images, second.images, things, lost


def train(gamma, host="mocov3", steps=120, classes=6, seed=0):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    direction = fit_foreground(patch_tokens(pairs(300, generator, classes)[0]), BORDER).direction
    encoder, heads = nn.Sequential(nn.Flatten(), MLP([144, 64, 32])), (nn.Linear(32, 16), MLP([16, 32, 16]))
    method = GenView(encoder, *heads, patch_tokens, direction, host=host, gamma=gamma, temperature=0.2)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        view1, view2, _, _ = pairs(64, generator, classes)
        loss = method.loss(view1, view2).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    view1, view2, things, lost = pairs(1000, generator, classes)
    with torch.no_grad():
        z, weights = F.normalize(method.eval().student(view1)), method.weigh(view1, view2)
    same = things[:, None] == things
    gap = (z @ z.T)[same].mean() - (z @ z.T)[~same].mean()
    return losses, weights, lost, gap.item()


def test_weights_find_the_pairs_that_lost_the_thing_and_classes_separate():
    """Fresh pairs at every step: false ones average out, so classes separate without weights, too."""
    plain_losses, *_, plain = train(0.0)
    losses, weights, lost, gap = train(5.0)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert sum(losses[-10:]) < 0.8 * sum(plain_losses[-10:])  # the contradicting pairs hardly count
    right = (weights[~lost][:, None] > weights[lost]).float().mean()
    assert right > 0.85 and weights[lost].mean() < 0.3 < 1.3 < weights[~lost].mean()
    assert min(gap, plain) > 0.5


def test_simsiam_as_host_learns_and_keeps_no_teacher():
    losses, *_, gap = train(5.0, "simsiam")
    assert sum(losses[-10:]) < sum(losses[:10]) - 2 and gap > 0.1


def test_gamma_zero_is_the_host_and_the_patch_encoder_stays_frozen():
    torch.manual_seed(0)
    patches = nn.Sequential(nn.Conv2d(1, 3, 2, stride=2), nn.BatchNorm2d(3), nn.Flatten(2))  # (n, 3, 4)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    method = GenView(encoder, nn.Linear(8, 4), nn.Linear(4, 4), patches, torch.ones(4), gamma=0.0).train()
    assert encoder.training and not patches.training
    a, b = draw(5, 1, 4, 4).float(), draw(5, 1, 4, 4, seed=1).float()
    terms = method.loss(a, b)
    p, k = [method.predictor(method.student(x)) for x in (a, b)], [method.student(x) for x in (a, b)]
    assert torch.allclose(terms.loss, weighted_moco_loss(*p, *k, torch.ones(5))) and (terms.weights == 1).all()
    terms.loss.backward()
    assert all(x.grad is None for x in patches.parameters()) and encoder[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("call", "says", "error"),
    [
        (lambda: soft_masks(T1, V[:3]), "direction", ValueError),
        (lambda: pair_quality(T1, T2[:3], V), "tokens2", ValueError),
        (lambda: pair_quality(T1.long(), T2.long(), V), "tokens", TypeError),
        (lambda: quality_weights(V, -1.0), "gamma", ValueError),
        (lambda: weighted_moco_loss(Q1, Q2, K1, K2[:3], WEIGHTS), "k2", ValueError),
        (lambda: weighted_moco_loss(Q1, Q2, K1, K2, WEIGHTS[:3]), "weights", ValueError),
        (lambda: weighted_moco_loss(Q1, Q2, K1, K2, WEIGHTS, 0.0), "temperature", ValueError),
        (lambda: weighted_simsiam_loss(Q1, Q2, K1, K2, -WEIGHTS), "weights", ValueError),
        (lambda: noise_level(torch.tensor([1.2])), "ratio", ValueError),
        (lambda: noise_level(torch.tensor([0.2]), (0.0, 1.0), ()), "levels", ValueError),
        (lambda: noise_level(torch.tensor([0.2]), (1.0, 0.0)), "edges", ValueError),
        (lambda: principal_direction(V[None]), "at least 2 rows", ValueError),
        (lambda: fit_foreground(T1, torch.ones(9).bool()), "background", ValueError),
        (lambda: fit_foreground(T1, BORDER.long()), "background", TypeError),
        (lambda: foreground_ratio(T1, Foreground(V[:2], V[0])), "direction", ValueError),
        (lambda: draw_choice(3, 1.5), "probability", ValueError),
        (lambda: insert_generated(draw(2, 1, 2, 2), draw(2, 1, 2, 2), torch.tensor([0, 3])), "choice", ValueError),
        (lambda: patch_tokens(draw(1, 1, 6, 6), 4), "images", ValueError),
        (lambda: scenes(2, torch.Generator(), sizes=torch.tensor([0, 9])), "sizes", ValueError),
        (lambda: GenView(nn.Identity(), nn.Identity(), nn.Identity(), patch_tokens, V, host="x"), "host", ValueError),
    ],
)
def test_bad_input_is_named(call, says, error):
    with pytest.raises(error, match=says):
        call()
