"""Zhang et al. (2024): negatives from the anchor's own cluster, stage after stage."""

import copy
import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, cosine_similarity, normalize, nt_xent
from cl_teach.core.clusters import (
    cluster_directions,
    pure_batches,
)
from cl_teach.datasets import draw_two_features
from cl_teach.evaluation import linear_probe
from cl_teach.models import MLP
from cl_teach.training import fit
from cl_teach.views.mcl import (
    Multistage,
    PairStage,
    Stage,
    combine_labels,
    group_means,
    integrate,
    mcl_clip,
    mcl_nt_xent,
)

Z1, Z2 = draw(7, 4), draw(7, 4, seed=1)
Y = torch.tensor([0, 2, 0, 2, 5, 2, 0])
SAME, DISTINCT = torch.zeros(7, dtype=torch.long), torch.arange(7)


def test_losses_equal_loops_over_anchors():
    z, y = normalize(torch.cat([Z1, Z2])), Y.repeat(2)
    views = []
    for i in range(14):
        e = sum((z[i] @ z[j] / 0.3).exp() for j in range(14) if j != i and y[j] == y[i])
        views.append(e.log() - z[i] @ z[(i + 7) % 14] / 0.3)
    assert torch.allclose(mcl_nt_xent(Z1, Z2, Y, 0.3, reduction="none"), torch.stack(views))
    u, v = normalize(Z1), normalize(Z2)
    pairs = []
    for i in range(7):
        forth = sum((5 * u[i] @ v[j]).exp() for j in range(7) if Y[j] == Y[i]).log()
        back = sum((5 * v[i] @ u[j]).exp() for j in range(7) if Y[j] == Y[i]).log()
        pairs.append((forth + back) / 2 - 5 * u[i] @ v[i])
    assert torch.allclose(mcl_clip(Z1, Z2, Y, math.log(5), reduction="none"), torch.stack(pairs))


def test_one_label_for_all_gives_the_plain_losses():
    assert torch.allclose(mcl_nt_xent(Z1, Z2, SAME, 0.3), nt_xent(Z1, Z2, 0.3))
    assert torch.allclose(mcl_clip(Z1, Z2, SAME, math.log(5)), clip_loss(Z1, Z2, math.log(5)))


@pytest.mark.parametrize("loss", [mcl_nt_xent, mcl_clip])
def test_a_label_of_its_own_for_each_costs_nothing(loss):
    z1 = Z1.clone().requires_grad_()
    value = loss(z1, Z2, DISTINCT)
    value.backward()
    assert value.abs() < 1e-12 and z1.grad.abs().max() < 1e-12


@pytest.mark.parametrize("loss", [mcl_nt_xent, mcl_clip])
def test_no_anchor_costs_more_with_fewer_negatives(loss):
    masked, plain = loss(Z1, Z2, Y, reduction="none"), loss(Z1, Z2, SAME, reduction="none")
    assert (masked <= plain + 1e-12).all() and masked.mean() < plain.mean() - 0.1


@pytest.mark.parametrize("loss", [mcl_nt_xent, mcl_clip])
def test_a_mixed_batch_is_the_weighted_mean_of_pure_batches(loss):
    parts = [(Y == y).double().mean() * loss(Z1[Y == y], Z2[Y == y], SAME[Y == y]) for y in (0, 2, 5)]
    assert torch.allclose(loss(Z1, Z2, Y), sum(parts))


@pytest.mark.parametrize("loss", [mcl_nt_xent, mcl_clip])
def test_gradients_do_not_cross_groups_and_are_right(loss):
    z1, z2 = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(z1, z2, Y, reduction="none")[0], z1)
    assert not g[Y != 0].any() and g[Y == 0].abs().min() > 0
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, Y, 0.5), (z1, z2))


def test_names_of_labels_do_not_matter():
    assert torch.equal(mcl_nt_xent(Z1, Z2, Y), mcl_nt_xent(Z1, Z2, 9 - Y))


def test_zero_and_equal_embeddings_at_a_low_temperature_stay_finite():
    z = torch.zeros(4, 3)
    z[2:] = 1
    z.requires_grad_()
    loss = mcl_nt_xent(z, z, torch.tensor([0, 0, 1, 2]), 0.005) + mcl_clip(
        z, z, torch.tensor([0, 1, 1, 1]), math.log(200)
    )
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_group_means_weighted_by_size_give_the_mean():
    losses = draw(7)
    assert torch.allclose((group_means(losses, Y) * torch.tensor([3, 3, 1]) / 7).sum(), losses.mean())


def test_combined_labels_tell_apart_exactly_what_some_stage_told_apart():
    stages = torch.randint(3, (3, 40), generator=torch.Generator().manual_seed(0))
    combined = combine_labels(stages, 3)
    for s in range(3):
        earlier = stages[: s + 1]
        same = (earlier[:, :, None] == earlier[:, None]).all(0)
        assert torch.equal(combined[s][:, None] == combined[s][None], same)
        assert combined[s].max() < 3 ** (s + 1)


def test_batches_are_pure_without_duplicates_full_and_in_turn():
    labels = torch.tensor([0] * 7 + [4] * 12 + [1] * 2 + [2] * 9)
    batches = pure_batches(labels, 3, generator=torch.Generator().manual_seed(0))
    assert (labels[batches.rows] == batches.labels[:, None]).all()
    assert batches.labels.tolist() == [0, 2, 4, 0, 2, 4, 2, 4, 4]
    everyone = torch.cat([batches.rows.flatten(), batches.dropped])
    assert torch.equal(everyone.sort().values, torch.arange(30)) and len(batches.dropped) == 3
    other = pure_batches(labels, 3, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(batches.rows, other.rows)


def test_clusters_find_separate_directions_whatever_the_lengths():
    direction = torch.arange(60) % 3
    lengths = torch.rand(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    features = lengths * (torch.eye(3, dtype=torch.float64)[direction] + 0.05 * draw(60, 3))
    found, centers = cluster_directions(features, 3)
    assert torch.equal(found[:, None] == found[None], direction[:, None] == direction[None])
    assert torch.equal((normalize(features) @ centers.T).argmax(1), found)


def test_longer_stages_weigh_more_in_the_integrated_cosine():
    a, b = draw(5, 3), 10 * draw(5, 2, seed=1)
    lengths = [x.norm(dim=1)[:, None] * x.norm(dim=1)[None] for x in (a, b)]
    h = integrate([a, b])
    total = h.norm(dim=1)[:, None] * h.norm(dim=1)[None]
    expected = (lengths[0] * cosine_similarity(a, a) + lengths[1] * cosine_similarity(b, b)) / total
    assert torch.allclose(cosine_similarity(h, h), expected)


GENERATOR = torch.Generator()


def jitter(x, generator):
    return x + 0.35 * torch.randn(x.shape, generator=generator)


def train(encoder, data, labels, steps, *, pure=True, batch_size=128):
    """Losses of every step, in batches of one label or in mixed ones."""
    stage = Stage(encoder, labels, augment=jitter)
    optimizer, losses = torch.optim.Adam(stage.parameters(), lr=3e-3), []
    while len(losses) < steps:
        groups = labels if pure else torch.zeros_like(labels)
        for rows in pure_batches(groups, batch_size, generator=GENERATOR).rows[: steps - len(losses)]:
            loss = stage.loss(data[rows], rows, generator=GENERATOR)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def new_encoder(seed):
    torch.manual_seed(seed)
    return MLP([40, 64, 2], norm="none")


def first_stage():
    GENERATOR.manual_seed(0)
    data = draw_two_features(2048, generator=GENERATOR)
    method = Multistage(2048, clusters=5)
    encoder = new_encoder(0)
    losses = train(encoder, data.x, method.labels, 200)
    method.close_stage(encoder, data.x, generator=GENERATOR)
    return data, method, losses


def test_a_second_stage_inside_clusters_learns_what_the_first_left_out():
    data, method, first = first_stage()
    plain = Multistage(2048, clusters=5)
    plain.encoders.append(method.encoders[0])
    encoder, ordinary = new_encoder(1), new_encoder(1)
    second = train(encoder, data.x, method.labels, 200)
    train(ordinary, data.x, plain.labels, 200)
    method.close_stage(encoder, data.x)
    plain.close_stage(ordinary, data.x)
    for losses in (first, second):
        assert sum(losses[-20:]) < sum(losses[:20]) - 5

    def probe(features, target):
        return linear_probe(features[:1024], target[:1024], features[1024:], target[1024:])

    with torch.no_grad():
        ours, theirs, alone = method(data.x), plain(data.x), method.encoders[0](data.x)
    assert min(probe(f, data.easy) for f in (alone, theirs, ours)) > 0.95
    assert probe(alone, data.hard) < 0.5  # suppressed
    assert probe(ours, data.hard) > probe(theirs, data.hard) + 0.3  # a second stage as such is not enough


def test_closed_stages_are_frozen_and_pure_and_masked_training_both_run():
    data, method, _ = first_stage()
    assert not any(p.requires_grad for p in method.encoders[0].parameters())
    assert method.labels.unique().numel() == 5 and method.centers0.shape == (5, 2)
    losses = train(new_encoder(3), data.x, method.labels, 40, pure=False, batch_size=64)
    assert len(losses) == 40 and sum(losses[-5:]) < sum(losses[:5])
    assert not method.train().encoders[0].training


def test_the_loop_of_the_book_trains_stages_with_mixed_and_with_pure_batches():
    data, method, _ = first_stage()
    stage = Stage(new_encoder(1), method.labels, augment=jitter)
    options = {"epochs": 1, "progress": False, "learning_rate": 3e-3}
    mixed = fit(stage, stage.loss, (data.x, torch.arange(2048)), batch_size=128, **options)
    rows = pure_batches(method.labels, 128, generator=GENERATOR).rows
    pure = fit(stage, lambda x, i: stage.loss(x[0], i[0]), (data.x[rows], rows), batch_size=1, **options)
    assert len(mixed.losses) == 16 and len(pure.losses) == len(rows)


def make_pairs(n):
    """Images of an easy and a hard feature, and texts that say both."""
    generator = torch.Generator().manual_seed(3)
    data = draw_two_features(n, generator=generator)
    texts = torch.cat([torch.eye(5)[data.easy], torch.eye(4)[data.hard]], 1)
    return data, texts


def test_image_text_stages_train_cluster_by_images_and_give_both_representations():
    data, texts = make_pairs(600)
    method, generator = Multistage(600, clusters=5), torch.Generator().manual_seed(0)
    for number in range(2):
        torch.manual_seed(number)
        stage = PairStage(MLP([40, 32, 2], norm="none"), MLP([9, 32, 2], norm="none"), method.labels)
        optimizer, losses = torch.optim.Adam(stage.parameters(), lr=1e-2), []
        for _ in range(120):
            rows = torch.randperm(600, generator=generator)[:100]
            loss = stage.loss(data.x[rows], texts[rows], rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            stage.after_step()
            losses.append(loss.item())
        assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
        method.close_stage(stage.encoder, data.x, stage.text_encoder, generator=generator)
    images, words = method(data.x), method.embed_texts(texts)
    assert images.shape == words.shape == (600, 4)
    own = cosine_similarity(images, words).diagonal().mean()
    assert own > cosine_similarity(images, words.roll(1, 0)).diagonal().mean() + 0.3
    assert torch.equal(method.labels // 5, method.labels // 5 % 5) and method.labels.max() < 25


def test_a_runaway_scale_is_clamped_after_the_step():
    stage = PairStage(nn.Linear(3, 2), nn.Linear(4, 2), SAME)
    with torch.no_grad():
        stage.log_scale.fill_(60.0)
    stage.after_step()
    assert stage.log_scale.item() == pytest.approx(math.log(100))


def test_a_fresh_object_loads_a_checkpoint_and_goes_on_as_if_never_stopped():
    x = draw(40, 5).float()

    def encoder():
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))

    method = Multistage(40, 3)
    for seed in range(2):
        torch.manual_seed(seed)
        method.close_stage(encoder(), x, generator=torch.Generator().manual_seed(seed))
    state = method.state_dict()
    whole, weights = Multistage(40, 3, make_encoder=encoder), Multistage(40, 3)
    for fresh in (whole, weights):
        fresh.load_state_dict(state)
        assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), state.values(), strict=True))
        again = Multistage(40, 3)
        again.load_state_dict(fresh.state_dict())  # and once more
    assert torch.equal(whole(x), method(x)) and not whole.encoders[0].training
    with pytest.raises(ValueError, match="make_encoder"):
        weights(x)
    torch.manual_seed(2)
    third = encoder()
    for stopped_or_not in (method, whole, weights):
        torch.manual_seed(3)
        stopped_or_not.close_stage(copy.deepcopy(third), x, generator=torch.Generator().manual_seed(2))
    assert torch.equal(method.labels, whole.labels) and torch.equal(method.labels, weights.labels)


def test_labels_of_any_integer_type_combine_to_the_same():
    stages = torch.tensor([[3, 9]] * 3)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert combine_labels(stages.to(dtype), 10).tolist() == [[3, 9], [33, 99], [333, 999]]
    with pytest.raises(ValueError, match="int64"):
        combine_labels(torch.zeros(20, 2, dtype=torch.long), 10)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mcl_nt_xent(Z1, Z2[:3], Y), "z2"),
        (lambda: mcl_nt_xent(Z1, Z2, Y[:3]), "labels"),
        (lambda: mcl_nt_xent(Z1, Z2, Y, 0.0), "temperature"),
        (lambda: mcl_clip(Z1, Z2, Y, 100.0), "log_scale"),
        (lambda: mcl_clip(Z1, Z2[:, :2], Y), "text"),
        (lambda: combine_labels(Y, 3), "stage_labels: expected shape"),
        (lambda: combine_labels(Y[None], 3), "stage_labels.*below"),
        (lambda: cluster_directions(Z1, 8), "features: needs at least 8"),
        (lambda: pure_batches(Y, 4), "batch_size.*expected at most 3"),
        (lambda: integrate([]), "features"),
        (lambda: Multistage(6).close_stage(torch.nn.Identity(), Z1), "data: expected the 6"),
        (lambda: integrate([Z1, Z2[:3]]), r"features\[1\]"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_labels_must_be_integers():
    with pytest.raises(TypeError, match="labels"):
        mcl_nt_xent(Z1, Z2, Y.double())
