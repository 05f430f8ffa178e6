"""Wang et al. (2024): more data want weaker augmentation."""

import itertools
import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize, nt_xent
from cl_teach.core.augmentation_graph import (
    gaussian_augmentation,
    labeling_error,
    laplacian_eigenvalues,
    natural_weights,
    real_weights,
    total_variation,
)
from cl_teach.datasets import draw_intervals
from cl_teach.models import MLP
from cl_teach.views.adainf import (
    STRONG,
    STRONG_ASYMMETRIC,
    WEAK,
    WEAK_ASYMMETRIC,
    AdaInf,
    copy_pairs_per_batch,
    draw_batches,
    draw_view,
    mix_real_and_generated,
    nt_xent_with_ids,
    real_share,
)

Z1, Z2 = draw(5, 4), draw(5, 4, seed=1)
IDS = torch.tensor([3, 1, 3, 7, 0])


def test_the_loss_equals_the_loops():
    z, u, total = normalize(torch.cat([Z1, Z2])), IDS.repeat(2), 0.0
    for i in range(10):
        e = {j: math.exp(z[i] @ z[j] / 0.3) for j in range(10) if j != i}
        total -= math.log(sum(e[j] for j in e if u[j] == u[i]) / sum(e.values())) / 10
    assert nt_xent_with_ids(Z1, Z2, IDS, 0.3).item() == pytest.approx(total, rel=1e-12)


def test_only_the_equality_of_ids_matters():
    assert torch.allclose(nt_xent_with_ids(Z1, Z2, torch.arange(5)), nt_xent(Z1, Z2, 0.2))
    assert torch.allclose(nt_xent_with_ids(Z1, Z2, 2 * IDS + 1), nt_xent_with_ids(Z1, Z2, IDS))
    z = Z1.clone().requires_grad_()
    loss = nt_xent_with_ids(z, Z2, torch.zeros(5, dtype=torch.long))
    loss.backward()
    assert loss.abs() < 1e-12 and z.grad.abs().max() < 1e-12


def test_gradcheck_and_small_temperatures():
    inputs = (Z1.clone().requires_grad_(), Z2.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: nt_xent_with_ids(a, b, IDS), inputs)
    z = torch.cat([Z1.float()[:3], torch.zeros(2, 4)]).requires_grad_()
    loss = nt_xent_with_ids(z, z, IDS, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_the_share_of_real_images_grows_with_copies_and_falls_with_generated_ones():
    assert real_share(50, 0) == 1.0 and real_share(50, 100, 10**9) == pytest.approx(1.0)
    assert real_share(50, 100, 2) > real_share(50, 100, 1) > real_share(50, 200, 1)


def test_distance_to_the_real_data_shrinks_by_the_generated_share():
    p, q = draw(6).softmax(0), draw(6, seed=1).softmax(0)
    beta = real_share(20, 100, 3)
    assert torch.allclose(total_variation(p, beta * p + (1 - beta) * q), (1 - beta) * total_variation(p, q))
    is_real = torch.tensor([True, False, True, False, False])
    away = total_variation(real_weights(is_real), natural_weights(is_real, 3))
    assert away.item() == pytest.approx(1 - real_share(2, 3, 3))
    assert natural_weights(is_real, 3)[is_real].sum().item() == pytest.approx(real_share(2, 3, 3))


def test_a_mixture_repeats_real_images_only():
    real, generated = torch.arange(3.0)[:, None], torch.arange(10.0, 12.0)[:, None]
    plain = mix_real_and_generated(real, generated, 2)
    assert plain.images[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 10, 11]
    assert plain.ids.tolist() == list(range(8)) and plain.is_real.sum() == 6
    aware = mix_real_and_generated(real, generated, 2, ids_of_images=True)
    assert torch.equal(aware.ids[:3], aware.ids[3:6]) and len(aware.ids.unique()) == 5
    assert torch.equal(mix_real_and_generated(real, generated[:0], 1).images, real)


def test_expected_pairs_of_copies_are_the_mean_over_all_batches():
    ids = mix_real_and_generated(torch.zeros(2, 1), torch.zeros(2, 1), 3, ids_of_images=True).ids.tolist()
    counts = [sum(a == b for a, b in itertools.combinations(drawn, 2)) for drawn in itertools.combinations(ids, 4)]
    assert copy_pairs_per_batch(2, 2, 3, 4) == pytest.approx(sum(counts) / len(counts))
    assert copy_pairs_per_batch(50_000, 1_000_000, 10, 256) == pytest.approx(0.065, abs=0.005)


def test_batches_count_steps_and_not_passes():
    drawn = list(draw_batches(10, 4, 5, generator=torch.Generator().manual_seed(0)))
    assert len(drawn) == 5 and all(len(indices.unique()) == 4 for indices in drawn)
    assert len(torch.cat(drawn[:2]).unique()) == 8  # without replacement within a pass


def test_the_weak_augmentation_lies_within_the_strong_one_and_changes_less():
    assert WEAK.smallest_crop > STRONG.smallest_crop and WEAK.jitter_probability < STRONG.jitter_probability
    assert all(a <= b for a, b in zip(WEAK.jitter, STRONG.jitter, strict=True))
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(200, 1, 1, 1)
    weak, strong = (draw_view(images, s, generator=torch.Generator().manual_seed(0)) for s in (WEAK, STRONG))
    assert weak.shape == images.shape and weak.min() >= 0 and weak.max() <= 1
    assert weak.mean((2, 3)).std(0).mean() < 0.9 * strong.mean((2, 3)).std(0).mean()


def test_zero_eigenvalues_count_the_components():
    A = torch.zeros(5, 7, dtype=torch.float64)
    A[:2, :3], A[2:4, 3:5], A[4, 5] = 1 / 3, 1 / 2, 1.0  # three components, node 6 is never reached
    weights, labels = torch.full((5,), 0.2, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 0])
    values = laplacian_eigenvalues(A, weights)
    assert (values.abs() < 1e-9).sum() == 3 and values.max() <= 1 + 1e-12
    assert labeling_error(A, weights, labels).abs() < 1e-12


def test_the_graph_equals_the_loops():
    A, weights, labels = draw(6, 4).softmax(1), draw(6, seed=1).softmax(0), torch.tensor([0, 1, 1, 0, 2, 2])
    W = [[sum(weights[i] * A[i, x] * A[i, y] for i in range(6)).item() for y in range(4)] for x in range(4)]
    w = [sum(row) for row in W]
    L = torch.tensor([[(x == y) - W[x][y] / math.sqrt(w[x] * w[y]) for y in range(4)] for x in range(4)])
    expected = torch.linalg.eigvalsh(L.double())
    assert torch.allclose(laplacian_eigenvalues(A, weights), expected, atol=1e-6)
    wrong = 0.0
    for x in range(4):
        votes = [sum(weights[i] * A[i, x] for i in range(6) if labels[i] == c).item() for c in range(3)]
        wrong += sum(weights[i] * A[i, x] for i in range(6) if labels[i] != votes.index(max(votes))).item()
    assert labeling_error(A, weights, labels).item() == pytest.approx(wrong, rel=1e-9)


def test_bad_input_names_the_argument():
    with pytest.raises(ValueError, match="ids"):
        nt_xent_with_ids(Z1, Z2, IDS[:3])
    with pytest.raises(ValueError, match="temperature"):
        nt_xent_with_ids(Z1, Z2, IDS, 0.0)
    with pytest.raises(TypeError, match="z1"):
        nt_xent_with_ids(Z1.long(), Z2, IDS)
    with pytest.raises(ValueError, match="copies"):
        mix_real_and_generated(Z1, Z2, 0)
    with pytest.raises(ValueError, match="generated"):
        mix_real_and_generated(Z1, Z2[:, :2])
    with pytest.raises(ValueError, match="batch_size"):
        copy_pairs_per_batch(2, 2, 1, 5)
    with pytest.raises(ValueError, match="augmentation"):
        laplacian_eigenvalues(torch.full((2, 3), 0.2), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="is_real"):
        real_weights(torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="width"):
        gaussian_augmentation(draw(3), draw(4), 0.0)


def test_inflation_lowers_the_strength_that_connects_a_class_and_with_it_the_label_error():
    nodes, widths = torch.linspace(0, 1, 80, dtype=torch.float64), (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08)

    def connected(points, labels):
        """The smallest width with a third eigenvalue of 0.01, and the label error there."""
        weights, errors, values = natural_weights(torch.ones(len(points)).bool()), [], []
        for width in widths:
            A = gaussian_augmentation(points, nodes, width)
            errors.append(labeling_error(A, weights, labels).item())
            values.append(laplacian_eigenvalues(A, weights)[2].item())
        assert errors == sorted(errors)  # stronger augmentation, more label errors
        first = next(k for k, value in enumerate(values) if value >= 0.01)
        return widths[first], errors[first]

    found = []
    for seed in range(5):
        points, labels = draw_intervals(330, generator=torch.Generator().manual_seed(seed))
        found.append((connected(points[:30], labels[:30]), connected(points, labels)))
    assert all(many[0] < few[0] for few, many in found)
    # On average: one draw of 30 points without any near the border can have hardly an error to begin with.
    assert sum(many[1] for _, many in found) < 0.01 * sum(few[1] for few, _ in found)


@pytest.mark.parametrize("ids_of_images", [False, True])
def test_training_on_a_mixture_lowers_the_loss(ids_of_images):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(80, 1, 2, 2, generator=generator)
    images = nn.functional.interpolate(patches, size=8, mode="bilinear")  # smooth, so that crops resemble each other
    mixture = mix_real_and_generated(images[:20], images[20:], 3, ids_of_images=ids_of_images)
    method = AdaInf(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 16))
    optimizer, losses = torch.optim.Adam(method.parameters(), lr=3e-3), []
    for indices in draw_batches(120, 32, 150, generator=generator):
        loss = method.loss(mixture.images[indices], mixture.ids[indices], generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


def test_asymmetric_hosts_keep_their_jitter_and_solarize_second_views_only():
    for strong, weak in zip(STRONG_ASYMMETRIC, WEAK_ASYMMETRIC, strict=True):
        assert weak.jitter == strong.jitter and weak.jitter_probability < strong.jitter_probability
        assert weak.smallest_crop > strong.smallest_crop and weak.blur == strong.blur == 0
    assert [s.solarization for s in WEAK_ASYMMETRIC] == [s.solarization for s in STRONG_ASYMMETRIC] == [0, 0.2]
    images = torch.full((500, 1, 4, 4), 0.9)  # no crop changes it, and no jitter makes it dark
    plain = WEAK_ASYMMETRIC[1]._replace(jitter_probability=0.0)
    views = draw_view(images, plain, generator=torch.Generator().manual_seed(0)).mean((1, 2, 3))
    solarized = (views - 0.1).abs() < 1e-5
    assert 0.15 < solarized.float().mean() < 0.25 and ((views - 0.9).abs() < 1e-5)[~solarized].all()


def test_with_a_predictor_the_host_is_byol():
    torch.manual_seed(0)
    method = AdaInf(nn.Flatten(), nn.Linear(16, 6), MLP([6, 8, 6], norm="none"), momentum=0.9)
    assert method.strengths == WEAK_ASYMMETRIC
    images, ids = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    views = [draw_view(images, s, generator=generator) for s in WEAK_ASYMMETRIC]
    z, k = ([network(view) for view in views] for network in (method.student, method.teacher))
    cosines = [nn.functional.cosine_similarity(method.predictor(z[a]), k[1 - a]).mean() for a in (0, 1)]
    loss = method.loss(images, ids, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loss, 4 - 2 * sum(cosines), atol=1e-6)
    before = method.teacher.network[1].weight.clone()
    with torch.no_grad():
        method.student[1].weight.add_(1)
    method.after_step()
    assert torch.allclose(method.teacher.network[1].weight, before + 0.1, atol=1e-6)


def test_labels_of_any_number_and_kind_give_the_same_error():
    A, weights = draw(6, 4).softmax(1), draw(6, seed=1).softmax(0)
    labels = torch.tensor([0, 1, 1, 0, 2, 2])
    right = labeling_error(A, weights, labels)
    for other in (labels.int(), labels.to(torch.uint8), 10**12 + labels):
        assert torch.equal(labeling_error(A, weights, other), right)


def test_a_narrow_augmentation_stays_at_the_nearest_node():
    A = gaussian_augmentation(torch.tensor([0.1, 0.6]), torch.linspace(0, 1, 3), 1e-30)
    assert A.tolist() == [[1, 0, 0], [0, 1, 0]]
