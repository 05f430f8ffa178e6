"""Zhang et al. (2023): repairing the Gaussians of noisy, long-tailed classes."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import nn
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.core.gaussians import covariance_roots, draw_by_roots, draw_gaussians, local_outlier_factor
from cl_teach.datasets.imperfect import flip_labels, noise_transition, polluted_moments
from cl_teach.labels.rcal import RCAL, calibrate_tails, classifier_loss, head_classes, robust_gaussians

Z = draw(30, 3)
Y = torch.arange(30) % 3
MEANS = draw(5, 3, seed=1)
ROOTS = draw(5, 3, 3, seed=2)
COVS = ROOTS @ ROOTS.mT
SIZES = torch.tensor([50, 30, 20, 5, 3])
HEADS = torch.tensor([0, 1, 2])


def test_lof_is_that_of_scikit_learn():
    judge = LocalOutlierFactor(n_neighbors=6).fit(Z.numpy())
    assert torch.allclose(local_outlier_factor(Z, 6), torch.from_numpy(-judge.negative_outlier_factor_))


def test_lof_is_near_one_inside_a_lattice_and_large_far_outside():
    lattice = torch.cartesian_prod(torch.arange(11.0), torch.arange(11.0)).double()
    assert abs(local_outlier_factor(lattice, 8)[60] - 1) < 0.02
    with_stray = torch.cat([lattice, torch.tensor([[40.0, 40.0]], dtype=torch.float64)])
    assert local_outlier_factor(with_stray, 8)[-1] > 10


def test_lof_ignores_scale_and_rigid_motion_and_survives_duplicates():
    rotation = torch.linalg.qr(draw(3, 3, seed=3)).Q
    assert torch.allclose(local_outlier_factor(5 * Z @ rotation + 2, 6), local_outlier_factor(Z, 6))
    assert torch.isfinite(local_outlier_factor(torch.zeros(9, 2), 3)).all()
    assert local_outlier_factor(Z[:1], 3).tolist() == [1.0]


def test_robust_moments_are_those_of_the_inliers():
    found = robust_gaussians(Z, Y, n_neighbors=4, lof_threshold=1.2)
    assert not found.inlier.all()
    for k in range(3):
        kept = Z[(Y == k) & (found.lof <= 1.2)].numpy()
        assert np.allclose(found.means[k], kept.mean(0))
        assert np.allclose(found.covs[k], np.cov(kept.T))


def test_a_removed_share_drops_the_largest_factors():
    found = robust_gaussians(Z, Y, n_neighbors=4, removed=torch.tensor([0.3, 0.0, 0.999]))
    assert [int(found.inlier[Y == k].sum()) for k in range(3)] == [7, 10, 1]
    for k in (0, 2):
        assert found.lof[(Y == k) & found.inlier].max() < found.lof[(Y == k) & ~found.inlier].min()
    assert torch.equal(found.covs[2], torch.zeros(3, 3, dtype=torch.float64))


def test_moving_and_turning_the_features_moves_and_turns_the_classes():
    rotation = torch.linalg.qr(draw(3, 3, seed=3)).Q
    plain, moved = robust_gaussians(Z, Y, n_neighbors=4), robust_gaussians(Z @ rotation.T + 1, Y, n_neighbors=4)
    assert torch.allclose(moved.means, plain.means @ rotation.T + 1)
    assert torch.allclose(moved.covs, rotation @ plain.covs @ rotation.T)


def test_heads_that_say_nothing_change_nothing_and_heads_alone_copy_the_nearest():
    same = calibrate_tails(MEANS, COVS, SIZES, HEADS, q=2, gamma=0.0, alpha=0.0)
    assert torch.allclose(same.means, MEANS) and torch.allclose(same.covs, COVS)
    copied = calibrate_tails(MEANS, COVS, SIZES, HEADS, q=1, gamma=1.0, alpha=0.0)
    for k in (3, 4):
        nearest = min((0, 1, 2), key=lambda c, k=k: float((MEANS[c] - MEANS[k]).norm()))
        assert torch.allclose(copied.means[k], MEANS[nearest]) and torch.allclose(copied.covs[k], COVS[nearest])
        assert copied.heads[k].tolist() == [nearest]


@pytest.mark.parametrize("weighting", ["uniform", "size_times_squared_distance"])
def test_calibration_equals_the_loops(weighting):
    got = calibrate_tails(MEANS, COVS, SIZES, HEADS, q=2, gamma=0.6, alpha=0.1, weighting=weighting)
    for k in (3, 4):
        distance = {c: float((MEANS[c] - MEANS[k]).norm()) for c in (0, 1, 2)}
        chosen = sorted(distance, key=distance.get)[:2]
        raw = [1.0 if weighting == "uniform" else float(SIZES[c]) * distance[c] ** 2 for c in chosen]
        weights = [w / sum(raw) for w in raw]
        mean = 0.4 * MEANS[k] + 0.6 * sum(w * MEANS[c] for w, c in zip(weights, chosen, strict=True))
        cov = 0.4 * COVS[k] + 0.6 * sum(w * COVS[c] for w, c in zip(weights, chosen, strict=True)) + 0.1
        assert torch.allclose(got.means[k], mean) and torch.allclose(got.covs[k], cov)
        assert got.weights[k].tolist() == pytest.approx(weights)
    assert torch.equal(got.means[:3], MEANS[:3]) and torch.equal(got.covs[:3], COVS[:3])
    assert torch.linalg.eigvalsh(got.covs).min() > -1e-12


def test_farther_heads_weigh_more_and_a_coinciding_head_nothing():
    means = torch.tensor([[1.0, 0], [3, 0], [0, 0], [0, 0]]).double()  # heads at distance 1, 3 and 0; the tail
    covs, sizes = torch.eye(2).double().expand(4, 2, 2), torch.tensor([50, 50, 50, 5])
    found = calibrate_tails(means, covs, sizes, torch.tensor([0, 1, 2]), gamma=1.0, alpha=0.0)
    assert found.heads[3].tolist() == [2, 0, 1]  # nearest first
    assert torch.allclose(found.weights[3], torch.tensor([0.0, 0.1, 0.9]).double())
    scaled = calibrate_tails(7 * means, covs, 3 * sizes, torch.tensor([0, 1, 2]))
    assert torch.allclose(scaled.weights[3], found.weights[3])
    same = calibrate_tails(0 * means, covs, sizes, torch.tensor([0, 1]))  # all distances 0: all weigh the same
    assert same.weights[3].tolist() == [0.5, 0.5]


def test_more_neighbors_than_heads_are_all_heads():
    few, all_heads = (calibrate_tails(MEANS, COVS, SIZES, HEADS[:2], q=q) for q in (9, 2))
    assert torch.equal(few.means, all_heads.means) and len(few.heads[3]) == 2


def test_heads_are_the_fewest_classes_that_hold_half_of_the_samples():
    assert head_classes(SIZES).tolist() == [0, 1]  # 50 of 108 are too few
    assert head_classes(torch.tensor([10, 30, 10, 30, 20])).tolist() == [1, 3]  # equal sizes by number
    assert head_classes(torch.full((4,), 5)).tolist() == [0, 1]
    assert head_classes(SIZES, 1.0).tolist() == [0, 1, 2, 3, 4]
    imbalanced = (5000 * 100 ** (-torch.arange(10) / 9)).long()
    assert len(head_classes(imbalanced)) == 2  # CIFAR-10 at imbalance 100: fewer heads than q


def test_both_noise_models_move_labels_to_frequent_classes():
    experiments, theory = (noise_transition(SIZES, 0.4, model) for model in ("experiments", "theory"))
    n = SIZES.sum().item()
    for i in range(5):
        for j in range(5):
            if i != j:
                assert experiments.transition[i, j].item() == pytest.approx(0.4 * SIZES[j].item() / (n - SIZES[i]))
                assert theory.transition[i, j].item() == pytest.approx(0.4 * SIZES[j].item() / n)
    assert torch.allclose(experiments.transition.diagonal(), torch.full((5,), 0.6).double())
    for found in (experiments, theory):
        assert torch.allclose(found.transition.sum(1), torch.ones(5).double())
        assert torch.allclose(found.noisy_priors, SIZES.double() / n @ found.transition)
    assert torch.allclose(theory.noisy_priors, SIZES.double() / n)  # as frequent as before
    even, other = noise_transition(torch.full((5,), 7), 0.4), noise_transition(torch.full((5,), 7), 0.5, "theory")
    assert torch.allclose(even.transition, other.transition)  # eta K / (K - 1)


def test_polluted_moments_are_those_of_the_mixture():
    priors = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
    _, means, covs = polluted_moments(MEANS, COVS[0], priors, 0.3)
    for k in range(5):
        share = [0.3 * priors[j] + (0.7 if j == k else 0.0) for j in range(5)]  # Bayes: p_k cancels
        mean = sum(w * m for w, m in zip(share, MEANS, strict=True))
        second = sum(w * (COVS[0] + torch.outer(m, m)) for w, m in zip(share, MEANS, strict=True))
        assert torch.allclose(means[k], mean)
        assert torch.allclose(covs[k], second - torch.outer(mean, mean))
    clean, lost = polluted_moments(MEANS, COVS[0], priors, 0.0), polluted_moments(MEANS, COVS[0], priors, 1.0)
    assert torch.allclose(clean[1], MEANS) and torch.allclose(clean[2], COVS[0].expand(5, 3, 3))
    assert torch.allclose(lost[1], (priors @ MEANS).expand(5, 3))


@pytest.mark.parametrize("model", ["experiments", "theory"])
def test_flipped_labels_follow_the_noise_model(model):
    labels = torch.arange(4).repeat_interleave(torch.tensor([40_000, 30_000, 20_000, 10_000]))
    noisy = flip_labels(labels, 0.4, model, seed=1)
    share = torch.stack([noisy[labels == k].bincount(minlength=4) / (labels == k).sum() for k in range(4)])
    wanted = noise_transition(labels.bincount(), 0.4, model).transition.float()
    assert torch.allclose(share, wanted, atol=0.02)
    assert torch.equal(noisy, flip_labels(labels.to(torch.uint8), 0.4, model, seed=1))


def test_drawn_features_have_the_given_moments_even_where_the_covariance_is_singular():
    flat = torch.outer(MEANS[0], MEANS[0])[None].expand(2, 3, 3)
    generator = torch.Generator().manual_seed(0)
    z = draw_gaussians(MEANS[:2], flat, torch.ones(20_000, dtype=torch.long), generator=generator)
    assert torch.allclose(z.mean(0), MEANS[1], atol=0.05)
    assert torch.allclose(z.T.cov(), flat[0], atol=0.1)
    assert torch.linalg.matrix_rank(z - MEANS[1], rtol=1e-6) == 1


def test_draws_by_roots_are_the_same_draws():
    labels, noise = torch.tensor([3, 0, 3, 1]), [torch.Generator().manual_seed(0) for _ in range(2)]
    roots = covariance_roots(COVS)
    assert torch.allclose(roots @ roots.mT, COVS)
    drawn = draw_by_roots(MEANS, roots, labels, generator=noise[0])
    assert torch.equal(drawn, draw_gaussians(MEANS, COVS, labels, generator=noise[1]))


def test_changed_covariances_change_what_is_drawn():
    z, _, noisy, _ = polluted_classes(0)
    net, rows = network(z, noisy), torch.arange(len(z))
    first, again, wider = (
        (net.covs.mul_(factor), net.loss(z, noisy, rows, generator=torch.Generator().manual_seed(0)).drawn)[1].item()
        for factor in (1, 1, 100)
    )
    assert first == again and wider != first


def test_classifier_loss_equals_the_loops():
    features, frozen, logits = draw(6, 3, seed=4), draw(6, 3, seed=5), draw(6, 4, seed=6)
    labels, partner = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 2, 1, 0, 5, 4])
    total = 0.0
    for i in range(6):
        log_p = logits[i] - logits[i].exp().sum().log()
        total -= 0.3 * log_p[labels[i]] + 0.7 * log_p[labels[partner[i]]]
        total += 0.5 * ((features[i] - frozen[i]) ** 2).sum()
    got = classifier_loss(features, frozen, logits, labels, partner, 0.3)
    assert got.item() == pytest.approx(float(total) / 6, rel=1e-12)


def test_a_share_of_one_ignores_the_partner_and_beta_pulls_the_features():
    features, frozen, logits = draw(6, 3, seed=4).requires_grad_(), draw(6, 3, seed=5), draw(6, 4, seed=6)
    labels, partner = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 2, 1, 0, 5, 4])
    whole = classifier_loss(features, frozen, logits, labels, partner, 1.0, beta=0.0)
    assert torch.allclose(whole, F.cross_entropy(logits, labels))
    (none,) = torch.autograd.grad(whole, features, allow_unused=True, materialize_grads=True)
    assert not none.any()
    (pull,) = torch.autograd.grad(classifier_loss(features, frozen, logits, labels, partner, 0.3), features)
    assert torch.allclose(pull, 2 * 0.5 * (features - frozen) / 6)


def test_gradcheck():
    labels, partner, frozen = torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 0]), draw(4, 3, seed=5)
    inputs = (draw(4, 3).requires_grad_(), draw(4, 4, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda z, h: classifier_loss(z, frozen, h, labels, partner, 0.3), inputs)


def polluted_classes(seed, classes=10, dim=16, spread=3.0, eta=0.4):
    """Five heads, five tails near a head; returns features, noisy labels and true means."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (160 * 0.72 ** torch.arange(classes)).round().long()
    means = spread * torch.randn(classes, dim, generator=generator)
    near = torch.randint(5, (5,), generator=generator)
    means[5:] = means[near] + 0.2 * torch.randn(5, dim, generator=generator)
    labels = torch.arange(classes).repeat_interleave(sizes)
    z = means[labels] + torch.randn(len(labels), dim, generator=generator)
    return z, labels, flip_labels(labels, eta, "theory", seed=seed), means


def test_removal_repairs_heads_and_borrowing_repairs_tails():
    errors = []
    for seed in range(10):
        z, _, noisy, means = polluted_classes(seed)
        sizes = noisy.bincount(minlength=10)
        if (sizes == 0).any():
            continue
        raw = torch.stack([z[noisy == k].mean(0) for k in range(10)])
        robust = robust_gaussians(z, noisy, removed=0.4 * (1 - sizes / sizes.sum()))
        fixed = calibrate_tails(robust.means, robust.covs, sizes, torch.arange(5), q=1, gamma=0.5)
        error = torch.stack([(m - means).norm(dim=1) for m in (raw, robust.means, fixed.means)])
        errors.append(torch.stack([error[:, :5].mean(1), error[:, 5:].mean(1)]))
    head, tail = torch.stack(errors).mean(0)
    assert head[1] < 0.6 * head[0] and tail[2] < 0.85 * tail[1]


def network(z, noisy, **settings):
    torch.manual_seed(0)
    return RCAL(nn.Linear(16, 8), nn.Linear(8, 10), z, noisy, torch.arange(5), n_neighbors=10, **settings)


def train(net, z, noisy, steps, generator, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(z), (64,), generator=generator)
        loss = net.loss(z[rows], noisy[rows], rows, generator=generator).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_lowers_the_loss_and_beta_keeps_the_features():
    z, _, noisy, _ = polluted_classes(0)

    def run(beta):
        net = network(z, noisy, beta=beta)
        sizes = noisy.bincount() + net.missing
        assert (sizes == sizes.max()).all()  # what is drawn balances the classes
        losses = train(net, z, noisy, 150, torch.Generator().manual_seed(0))
        assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
        with torch.no_grad():
            return (net.encoder(z) - net.contrastive).square().sum(1).mean()

    assert run(0.5) < 0.2 * run(0.0)


def test_without_mixing_and_drawing_the_loss_is_cross_entropy_and_distance():
    z, _, noisy, _ = polluted_classes(0)
    net = network(z, noisy, mixup=0.0, drawn_weight=0.0, beta=2.0)
    with torch.no_grad():
        net.encoder.weight.mul_(1.1)
    terms = net.loss(z, noisy, torch.arange(len(z)))
    wanted = F.cross_entropy(net(z), noisy) + 2 * (net.encoder(z) - net.contrastive).square().sum(1).mean()
    assert torch.allclose(terms.loss, wanted) and terms.drawn == 0


def test_threshold_and_removed_share_reach_the_classes():
    z, _, noisy, _ = polluted_classes(0)
    strict, share = network(z, noisy, lof_threshold=1.05), network(z, noisy, removed=torch.full((10,), 0.3))
    plain, loose = network(z, noisy), network(z, noisy, lof_threshold=100.0)
    raw = torch.stack([loose.contrastive[noisy == k].mean(0) for k in range(5)])
    assert torch.allclose(loose.means[:5], raw, atol=1e-5)  # nobody is dropped
    for other in (strict, share, loose):
        assert not torch.allclose(other.means[:5], plain.means[:5], atol=1e-3)


def test_a_saved_state_continues_as_if_never_stopped():
    z, _, noisy, _ = polluted_classes(0)
    net = network(z, noisy)
    train(net, z, noisy, 3, torch.Generator().manual_seed(1))
    fresh = RCAL(nn.Linear(16, 8), nn.Linear(8, 10), z + 1, noisy, torch.arange(5), n_neighbors=10)
    fresh.load_state_dict(net.state_dict())
    after = [train(x, z, noisy, 3, torch.Generator().manual_seed(2)) for x in (net, fresh)]
    assert after[0] == after[1] and all(
        torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True)
    )


def test_evaluation_changes_nothing_and_half_precision_gives_the_same_loss():
    z, _, noisy, _ = polluted_classes(0)
    net, rows = network(z, noisy), torch.arange(len(z))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.eval()
    with torch.no_grad():
        right = net.loss(z, noisy, rows, generator=torch.Generator().manual_seed(0)).loss
        with torch.autocast("cpu", torch.bfloat16):
            low = net.loss(z, noisy, rows, generator=torch.Generator().manual_seed(0)).loss
    assert low.dtype == torch.float32 and torch.allclose(low, right, rtol=0.02)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_width_give_the_same_numbers(dtype):
    right, got = robust_gaussians(Z, Y, n_neighbors=4), robust_gaussians(Z, Y.to(dtype), n_neighbors=4)
    assert torch.equal(got.covs, right.covs)
    partner = torch.randperm(30)
    given = (Z, 0 * Z, Z)
    wanted = classifier_loss(*given, Y, partner, 0.7)
    assert torch.equal(classifier_loss(*given, Y.to(dtype), partner.to(dtype), 0.7), wanted)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: local_outlier_factor(Z, 0), "n_neighbors"),
        (lambda: robust_gaussians(Z, Y[:4]), "labels"),
        (lambda: robust_gaussians(Z, 2 * Y), "class 1"),
        (lambda: robust_gaussians(Z, Y, lof_threshold=0.5), "lof_threshold"),
        (lambda: robust_gaussians(Z, Y, removed=torch.zeros(2)), "removed"),
        (lambda: calibrate_tails(MEANS, COVS[:, :2], SIZES, HEADS), "covs"),
        (lambda: calibrate_tails(MEANS, COVS, SIZES, HEADS, q=0), "q"),
        (lambda: calibrate_tails(MEANS, COVS, SIZES, HEADS[:0]), "heads"),
        (lambda: calibrate_tails(MEANS, COVS, SIZES, HEADS + 4), "heads"),
        (lambda: head_classes(SIZES, 1.5), "share"),
        (lambda: head_classes(0 * SIZES), "class_sizes"),
        (lambda: noise_transition(SIZES[:1], 0.3), "class_sizes"),
        (lambda: noise_transition(SIZES, 0.3, "practice"), "model"),
        (lambda: calibrate_tails(MEANS, COVS, SIZES, HEADS, gamma=1.2), "gamma"),
        (lambda: calibrate_tails(MEANS, COVS, SIZES, HEADS, weighting="best"), "weighting"),
        (lambda: polluted_moments(MEANS, COVS[0], torch.ones(5), 0.3), "priors"),
        (lambda: polluted_moments(MEANS, COVS[0, :2], torch.full((5,), 0.2), 0.3), "cov"),
        (lambda: flip_labels(Y, 1.5), "eta"),
        (lambda: draw_gaussians(MEANS, COVS, SIZES), "labels"),
        (lambda: RCAL(nn.Linear(3, 2), nn.Linear(2, 3), Z.float(), Y[:4]), "labels"),
        (lambda: RCAL(nn.Linear(3, 2), nn.Linear(2, 3), Z.float(), Y).loss(Z.float(), Y, Y + 29), "index"),
        (lambda: classifier_loss(Z, Z[:, :2], Z, Y, torch.arange(30)), "contrastive"),
        (lambda: classifier_loss(Z, Z, Z, Y, torch.arange(30) + 1), "permutation"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
