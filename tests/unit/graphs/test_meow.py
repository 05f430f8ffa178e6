"""Yu et al. (2023, 2024): negatives weighted by what clusterings, or a small network, say about the pair."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import info_nce, normalize
from cl_teach.datasets.networks import paper_network
from cl_teach.graphs.meow import (
    MEOW,
    Clusters,
    cluster,
    concentration,
    negative_weights,
    prototype_loss,
    weighted_info_nce,
)
from cl_teach.models.meta_paths import MetaPath, MetaPathNetwork, meta_path_links
from cl_teach.models.pair_weights import PairWeights

A, B = normalize(draw(6, 4)), normalize(draw(6, 4, seed=1))
ASSIGNMENTS = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 1, 2, 2, 0, 1]])
CLUSTERS = Clusters(
    ASSIGNMENTS,
    [normalize(draw(2, 4, seed=2)), normalize(draw(3, 4, seed=3))],
    [torch.tensor([0.3, 0.5]).double(), torch.tensor([0.2, 0.4, 0.6]).double()],
)


def hard(assignments=ASSIGNMENTS):
    return negative_weights(assignments).double().log()


def test_contrast_and_weights_equal_the_loops():
    tau, total = 0.4, 0.0
    for i in range(6):
        bottom = 0.0
        for j in range(6):
            gamma = sum(int(ASSIGNMENTS[t, i] != ASSIGNMENTS[t, j]) for t in range(2))
            bottom += gamma * math.exp(float(A[i] @ B[j]) / tau)
        total -= math.log(math.exp(float(A[i] @ B[i]) / tau) / bottom) / 6
    assert weighted_info_nce(A, B, hard(), tau).item() == pytest.approx(total, rel=1e-12)
    assert weighted_info_nce(A, B, hard(), tau, reduction="none").mean().item() == pytest.approx(total, rel=1e-12)


def test_prototype_loss_equals_the_loops():
    total = 0.0
    for t, k in enumerate((2, 3)):
        for i in range(6):
            logits = [float(A[i] @ CLUSTERS.prototypes[t][c] / CLUSTERS.concentrations[t][c]) for c in range(k)]
            bottom = 6 / k * sum(math.exp(x) for x in logits)
            total -= math.log(math.exp(logits[ASSIGNMENTS[t, i]]) / bottom) / 12
    assert prototype_loss(A, CLUSTERS).item() == pytest.approx(total, rel=1e-12)


def test_concentration_equals_the_loops_and_its_mean_is_the_temperature():
    z, centroids = normalize(draw(12, 3, seed=4)), normalize(draw(3, 3, seed=5))
    assignment = torch.tensor([0] * 7 + [1] * 5)  # the third cluster is empty
    for metric in ("inner product", "distance"):
        phi = []
        for k in (0, 1):
            rows = z[assignment == k]
            d = [
                float(x @ centroids[k]) if metric == "inner product" else float((x - centroids[k]).norm()) for x in rows
            ]
            if metric == "inner product":
                d = [math.sqrt(max(x, 0.0)) for x in d]
            phi.append(sum(d) / len(d) / math.log(len(d) + 5))
        phi = torch.tensor([*phi, max(phi)]).double()
        low, high = (torch.quantile(phi, q) for q in (0.1, 0.9))
        phi = phi.clamp(low, high)
        found = concentration(z, assignment, centroids, 0.4, metric=metric)
        assert torch.allclose(found, phi / phi.mean() * 0.4)
        assert found.mean().item() == pytest.approx(0.4, rel=1e-12)


def test_tight_clusters_get_the_larger_concentration_by_inner_products_and_the_smaller_by_distances():
    centers = torch.eye(2).double().repeat_interleave(20, 0)
    z = normalize(centers + torch.tensor([0.1, 0.8]).double().repeat_interleave(20)[:, None] * draw(40, 2).abs())
    assignment = torch.arange(2).repeat_interleave(20)
    inner = concentration(z, assignment, torch.eye(2).double())
    distance = concentration(z, assignment, torch.eye(2).double(), metric="distance")
    assert inner[0] > inner[1] and distance[0] < distance[1]


def test_singleton_clusters_everywhere_give_the_temperature():
    assert torch.allclose(concentration(A, torch.arange(6), A, 0.7), torch.full((6,), 0.7).double())


def test_every_node_its_own_cluster_gives_info_nce_without_the_positive_in_the_denominator():
    logits = A @ B.mT / 0.4
    expected = (logits.masked_fill(torch.eye(6, dtype=torch.bool), -math.inf).logsumexp(1) - logits.diagonal()).mean()
    assert torch.allclose(weighted_info_nce(A, B, hard(torch.arange(6)[None]), 0.4), expected)
    assert torch.allclose(weighted_info_nce(A, B, torch.zeros(6, 6).double(), 0.4), info_nce(A, B, None, 0.4))


def test_nodes_that_share_all_clusters_get_no_push():
    b = B.clone().requires_grad_()
    weighted_info_nce(A, b, hard(), 0.4, reduction="none")[0].backward()  # node 4 shares both clusters with node 0
    assert (b.grad[4] == 0).all() and (b.grad[[1, 2, 3, 5]].norm(dim=1) > 0).all()


def test_scaling_the_weights_adds_a_constant_and_leaves_gradients():
    def run(log_weights):
        b = B.clone().requires_grad_()
        loss = weighted_info_nce(A, b, log_weights, 0.4)
        return loss.item(), torch.autograd.grad(loss, b)[0]

    (one, g1), (two, g2) = run(hard()), run(hard() + math.log(5))
    assert two == pytest.approx(one + math.log(5), rel=1e-12) and torch.allclose(g1, g2)


def test_an_anchor_without_negatives_counts_nothing_and_has_no_gradient():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    together = torch.tensor([[0, 0, 0, 0, 0, 0]])
    loss = weighted_info_nce(a, b, hard(together), 0.4)
    loss.backward()
    assert loss == 0 and (a.grad == 0).all() and (b.grad == 0).all()


def test_one_prototype_gives_log_n_and_renaming_clusters_changes_nothing():
    one = Clusters(torch.zeros(1, 6, dtype=torch.long), [A[:1]], [torch.ones(1).double()])
    a = A.clone().requires_grad_()
    loss = prototype_loss(a, one)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(6)) and a.grad.abs().max() < 1e-12
    assert prototype_loss(A, one, plain=True) == 0
    swapped = Clusters(
        torch.stack([1 - ASSIGNMENTS[0], 2 - ASSIGNMENTS[1]]),
        [p.flip(0) for p in CLUSTERS.prototypes],
        [c.flip(0) for c in CLUSTERS.concentrations],
    )
    assert torch.allclose(prototype_loss(A, swapped), prototype_loss(A, CLUSTERS))
    assert negative_weights(swapped.assignments).equal(negative_weights(ASSIGNMENTS))


def test_constant_soft_weights_add_their_logarithm_and_centered_ones_nothing():
    net = PairWeights(4).double()
    torch.nn.init.zeros_(net.second.weight)
    torch.nn.init.constant_(net.second.bias, -0.7)
    plain = info_nce(A, B, None, 0.9).item()
    expected = plain - math.log1p(math.exp(0.7))
    assert weighted_info_nce(A, B, net(A, B), 0.9).item() == pytest.approx(expected, rel=1e-12)
    net.centered = True
    assert weighted_info_nce(A, B, net(A, B), 0.9).item() == pytest.approx(plain, rel=1e-12)


def test_centered_weights_have_row_mean_one():
    torch.manual_seed(0)
    assert torch.allclose(PairWeights(4, centered=True).double()(A, B).exp().mean(1), torch.ones(6).double())


def test_meta_paths_link_papers_of_the_same_author_and_keep_the_most_similar():
    incidence = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    every = meta_path_links(incidence, 5)
    expected = (incidence @ incidence.T > 0).float().fill_diagonal_(0)
    assert every.equal(expected)
    best = meta_path_links(incidence, 1)
    assert best[0, 1] == best[1, 0] == 1 and best[0, 2] == 0  # two shared authors beat one
    assert best[2, 3] == best[3, 2] == 1 and best[4].sum() == 0


def test_gradcheck():
    torch.manual_seed(0)
    net = PairWeights(4, 3).double()
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: weighted_info_nce(x, y, net(x, y), 0.5), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: weighted_info_nce(x, y, hard(), 0.5), (a, b))
    assert torch.autograd.gradcheck(lambda x: prototype_loss(x, CLUSTERS), (a,))


def test_finite_at_a_tiny_temperature_for_zeros_and_duplicates():
    for z in (torch.zeros(6, 4), torch.ones(6, 4) / 2):
        z = z.requires_grad_()
        weighted_info_nce(z, z, hard().float(), 0.005).backward()
        assert z.grad.isfinite().all()


def test_cluster_weights_take_the_gradient_off_false_negatives_and_over_clustering_does_so_less():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(20)
    centers = normalize(torch.randn(6, 16, generator=generator))
    fine = normalize(centers[labels] + 0.3 * torch.randn(120, 16, generator=generator))
    coarse = normalize(fine + 0.1 * torch.randn(120, 16, generator=generator))
    same = (labels[:, None] == labels[None, :]) & ~torch.eye(120, dtype=torch.bool)

    def share(log_weights):  # of the gradient on negatives, how much falls on the anchor's own class
        logits = (coarse @ fine.mT / 0.4 + log_weights).fill_diagonal_(-math.inf)
        return (logits.softmax(1) * same).sum(1).mean().item()

    plain = share(torch.zeros(120, 120))
    few, many = (share(negative_weights(cluster(fine, k).assignments).log()) for k in ((4, 8), (24, 48)))
    assert few < 0.6 * plain and few < many < plain


GRAPH = paper_network(150, 75, 6, seed=0)


def gap(z, labels=GRAPH.labels):
    """How much more alike nodes of one class are than nodes of two, by cosine."""
    z = normalize((z - z.mean(0)).detach())
    cosine, same = z @ z.mT, labels[:, None] == labels
    return (cosine[same].mean() - cosine[~same].mean()).item()


def build(weights="clusters", *, feature_mask=0.3):
    torch.manual_seed(0)
    paths = [MetaPath(GRAPH.authors, GRAPH.writes), MetaPath(GRAPH.subjects, GRAPH.about)]
    generator = torch.Generator().manual_seed(0)
    network = MetaPathNetwork(GRAPH.papers, paths, 32, feature_mask=feature_mask, generator=generator)
    return MEOW(network, weights=weights)


def train(weights="clusters", epochs=50):
    model, generator = build(weights), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(epochs):
        loss = model.loss(generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


def test_training_lowers_the_objective_and_draws_the_classes_together():
    untrained = build().eval()
    model, losses = train()
    assert losses[-1] < losses[0] - 1
    assert gap(model()) > max(gap(untrained()), gap(GRAPH.papers)) + 0.15


def test_adaptive_weights_shrink_all_together():
    model, losses = train("learned")
    assert losses[-1] < 0 < losses[0]  # with all weights one it is InfoNCE, which is never negative
    with torch.no_grad():
        fine, coarse = (normalize(model.head(z)) for z in (model.network.fine(), model.network.coarse()))
        weights = model.pair_weights(fine, coarse).exp()
    assert weights.mean() < 0.1


def test_masked_copy_drops_entries_and_links_once_and_symmetrically():
    model, _ = train(epochs=1)
    whole, masked = model.network.get_buffer("links_0_0"), model.network.get_buffer("links_1_0")
    assert masked.equal(masked.mT) and not ((masked > 0) & (whole == 0)).any()
    links = [int((a > 0).sum()) - 150 for a in (whole, masked)]
    assert links[1] / links[0] == pytest.approx(0.8, abs=0.08)
    zeros = (model.network.get_buffer("features_1_0") == 0).double().mean().item()
    assert zeros == pytest.approx(0.3, abs=0.03)


def test_centered_weights_have_mean_one_and_cannot_shrink():
    model, losses = train("centered", 30)
    fine, coarse = (normalize(model.head(z)) for z in (model.network.fine(), model.network.coarse()))
    weights = model.pair_weights(fine, coarse).exp()
    assert torch.allclose(weights.mean(1), torch.ones(150), atol=1e-4)
    assert losses[-1] < losses[0]


def test_plain_weights_are_info_nce_and_an_oracles_leave_its_false_negatives_alone():
    plain = build("plain").eval()
    coarse, fine = (normalize(plain.head(z)) for z in plain.network())
    assert torch.allclose(plain.loss(), info_nce(coarse, fine, None, 0.4), atol=1e-5)
    apart = (GRAPH.labels[:, None] != GRAPH.labels).float()
    oracle = build(apart).eval()
    assert torch.allclose(oracle.loss(), weighted_info_nce(coarse, fine, apart.log(), 0.4), atol=1e-5)
    nodes = torch.arange(0, 150, 3)
    part = weighted_info_nce(coarse[nodes], fine[nodes], apart[nodes][:, nodes].log(), 0.4)
    assert torch.allclose(oracle.loss(nodes), part, atol=1e-5)


def test_training_goes_on_from_its_state():
    there, fresh = train(epochs=3)[0], build(feature_mask=0.5)
    fresh.eval().load_state_dict(there.state_dict())
    losses = [m.loss(generator=torch.Generator().manual_seed(5)) for m in (there, fresh)]
    assert torch.equal(*losses) and torch.equal(there(), fresh())


def test_tiny_weights_half_precision_and_label_widths_change_nothing_that_counts():
    far = hard() - 2000  # AdaMEOW's weights shrink together without bound
    assert torch.allclose(weighted_info_nce(A, B, far, 0.4), weighted_info_nce(A, B, hard(), 0.4) - 2000)
    half = weighted_info_nce(A.bfloat16(), B.bfloat16(), hard().bfloat16(), 0.4)
    assert abs(half - weighted_info_nce(A, B, hard(), 0.4)) < 0.05
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(negative_weights(ASSIGNMENTS.to(dtype)), negative_weights(ASSIGNMENTS))
        narrow = CLUSTERS._replace(assignments=ASSIGNMENTS.to(dtype))
        assert torch.equal(prototype_loss(A, narrow), prototype_loss(A, CLUSTERS))
    with torch.autocast("cpu", torch.bfloat16):
        assert build().loss(generator=torch.Generator().manual_seed(0)).isfinite()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: weighted_info_nce(A, B[:5], hard()), "candidates"),
        (lambda: weighted_info_nce(A, B, hard()[:5]), "log_weights"),
        (lambda: weighted_info_nce(A, B, hard() * math.nan), "log_weights"),
        (lambda: weighted_info_nce(A, B, hard(), 0.0), "temperature"),
        (lambda: negative_weights(ASSIGNMENTS[0]), "assignments"),
        (lambda: prototype_loss(A[:5], CLUSTERS), "anchors"),
        (
            lambda: prototype_loss(A, CLUSTERS._replace(concentrations=[torch.zeros(2), torch.ones(3)])),
            "concentrations",
        ),
        (lambda: concentration(A, torch.zeros(6).long(), A[:1], metric="cosine"), "metric"),
        (lambda: cluster(A, ()), "counts"),
        (lambda: cluster(A, (7,)), "counts"),
        (lambda: meta_path_links(torch.ones(3, 2), 4), "top"),
        (lambda: meta_path_links(2 * torch.ones(3, 2), 1), "incidence"),
        (lambda: MetaPathNetwork(A, [], 4), "paths"),
        (lambda: MetaPathNetwork(A, [MetaPath(A, torch.ones(6, 6))], 4, edge_mask=2.0), "edge_mask"),
        (lambda: MetaPathNetwork(A, [MetaPath(A, torch.ones(5, 6))], 4, top=2), "incidence"),
        (lambda: MEOW(build().network, counts=(151,)), "counts, network"),
        (lambda: MEOW(build().network, weights=torch.ones(5, 5)), "weights"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="anchors"):
        weighted_info_nce([1.0], B, hard())
    with pytest.raises(TypeError, match="network"):
        MEOW(GRAPH.papers)
    with pytest.raises(TypeError, match="assignments"):
        negative_weights(ASSIGNMENTS.double())
