"""Louiset et al. (2024): one code for what all share, one for what only targets show."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.datasets import draw_factors, overlay_pattern
from cl_teach.models import MLP
from cl_teach.views.sepclr import (
    SepCLR,
    attribute_alignment,
    gaussian_alignment,
    gaussian_uniformity,
    joint_concentration,
    pin_background,
    sepclr,
)

C1, C2, S1, S2 = draw(6, 4), draw(6, 4, seed=1), draw(6, 3, seed=2), draw(6, 3, seed=3)
Y = torch.tensor([1, 0, 1, 1, 0, 1])
CODES = (C1, C2, S1, S2)


def rotate_and_shift(x, seed):
    q, _ = torch.linalg.qr(draw(x.shape[1], x.shape[1], seed=seed))
    return x @ q + draw(1, x.shape[1], seed=seed + 1)


def test_terms_equal_loops_over_samples():
    def distance(x, i, j):
        return float((x[i] - x[j]).square().sum())

    def uniformity(x):
        return math.log(sum(math.exp(-distance(x, i, j)) for i in range(6) for j in range(i)) / 15)

    def concentration(c, s):
        rows = [sum(math.exp(-distance(c, i, j) - distance(s, i, j)) for j in range(6)) / 6 for i in range(6)]
        return sum(math.log(row) for row in rows) / 6

    c1, c2 = normalize(C1), normalize(C2)
    t1, t2 = S1 * Y[:, None], S2 * Y[:, None]
    targets, background = [0, 2, 3, 5], [1, 4]
    terms = sepclr(*CODES, Y)  # temperature 0.5: the kernel is exp(-distance)
    aligned = sum(float((c1[i] - c2[i]).square().sum()) for i in range(6)) / 6
    assert terms.common.item() == pytest.approx(aligned + uniformity(c1) + uniformity(c2))
    aligned = sum(float((S1[i] - S2[i]).square().sum()) for i in targets) / 4
    assert terms.salient.item() == pytest.approx(aligned + uniformity(t1) + uniformity(t2))
    sizes = sum(float(S1[i].square().sum() + S2[i].square().sum()) for i in background)
    assert terms.infoless.item() == pytest.approx(sizes / 4)
    assert terms.joint.item() == pytest.approx((concentration(c1, t1) + concentration(c2, t2)) / 2)
    total = terms.common + 2 * terms.salient + 3 * terms.infoless + 5 * terms.joint
    loss = sepclr(*CODES, Y, salient_weight=2, infoless_weight=3, joint_weight=5).loss
    assert torch.allclose(loss, total)


def test_joint_concentration_lies_between_minus_log_n_and_zero_and_reaches_both():
    point = torch.ones(5, 3, dtype=torch.float64)
    far = 1e3 * torch.eye(5, dtype=torch.float64)
    assert joint_concentration(point, point).item() == pytest.approx(0, abs=1e-12)
    assert joint_concentration(far, point).item() == pytest.approx(-math.log(5))
    assert -math.log(6) < joint_concentration(C1, S1).item() < 0


def test_a_second_code_only_lowers_the_joint_concentration_and_a_constant_one_does_nothing():
    constant = torch.full((6, 2), 3.0, dtype=torch.float64)
    alone = joint_concentration(C1, constant)
    assert torch.allclose(alone, joint_concentration(C1, torch.zeros(6, 1, dtype=torch.float64)))
    assert joint_concentration(C1, S1) < alone


def test_an_independent_code_has_a_lower_joint_concentration_than_a_copy_with_the_same_marginal():
    c = draw(200, 2)
    independent = c[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert joint_concentration(c, independent) < joint_concentration(c, c) - 0.3


def test_rotation_and_translation_of_a_code_change_nothing():
    moved_c, moved_s = rotate_and_shift(C1, 5), rotate_and_shift(S1, 7)
    assert torch.allclose(gaussian_uniformity(moved_c), gaussian_uniformity(C1))
    assert torch.allclose(joint_concentration(moved_c, moved_s), joint_concentration(C1, S1))
    both = rotate_and_shift(torch.cat([C1, C2]), 5)
    assert torch.allclose(gaussian_alignment(both[:6], both[6:]), gaussian_alignment(C1, C2))


def test_without_targets_the_salient_gradient_comes_from_the_background_term_alone():
    none = torch.zeros(6, dtype=torch.long)
    s1 = S1.clone().requires_grad_()
    terms = sepclr(C1, C2, s1, S2, none)
    assert terms.salient.item() == pytest.approx(0, abs=1e-12)
    (g,) = torch.autograd.grad(terms.loss, s1)
    assert torch.allclose(g, 10 * S1 / 6)  # 2 tau = 1


def test_gradient_of_a_background_code_is_its_own_multiple():
    s1 = S1.clone().requires_grad_()
    (g,) = torch.autograd.grad(sepclr(C1, C2, s1, S2, Y, 0.7, infoless_weight=4).loss, s1)
    assert torch.allclose(g[Y == 0], 4 * S1[Y == 0] / (2 * 0.7 * 2))
    assert not torch.allclose(g[Y == 1], 4 * S1[Y == 1] / (2 * 0.7 * 2))


def test_a_batch_without_background_has_no_background_term_and_no_nan():
    assert sepclr(*CODES, torch.ones(6, dtype=torch.long)).infoless.item() == 0


def test_gradient_of_a_common_code_is_orthogonal_to_it():
    c1 = C1.clone().requires_grad_()
    (g,) = torch.autograd.grad(sepclr(c1, C2, S1, S2, Y).loss, c1)
    assert torch.allclose((g * C1).sum(1), torch.zeros(6, dtype=torch.float64), atol=1e-12)
    assert g.norm() > 0.01


def test_without_weights_only_the_common_term_is_left():
    loss = sepclr(*CODES, Y, salient_weight=0, infoless_weight=0, joint_weight=0).loss
    c1, c2 = normalize(C1), normalize(C2)
    assert torch.allclose(loss, gaussian_alignment(c1, c2) + gaussian_uniformity(c1) + gaussian_uniformity(c2))


def test_order_of_samples_and_of_views_does_not_matter():
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    loss = sepclr(*CODES, Y).loss
    assert torch.allclose(sepclr(*(x[order] for x in CODES), Y[order]).loss, loss)
    assert torch.allclose(sepclr(C2, C1, S2, S1, Y).loss, loss)


def test_gradients_are_right():
    leaves = [x.clone().requires_grad_() for x in CODES]
    assert torch.autograd.gradcheck(lambda *codes: sepclr(*codes, Y).loss, leaves)
    assert torch.autograd.gradcheck(attribute_alignment, (S1[:, 0].clone().requires_grad_(), C1[:, 0] / 5))


def test_attribute_alignment_equals_a_loop_and_ignores_samples_with_distant_attributes():
    s, a = S1[:, 0], 0.3 * C1[:, 0]
    pairs = [math.exp(-(float(a[i] - a[j]) ** 2) / 0.05) * float(s[i] - s[j]) ** 2 for i in range(6) for j in range(i)]
    assert attribute_alignment(s, a).item() == pytest.approx(sum(pairs) / 15)
    assert attribute_alignment(s, 100 * torch.arange(6).double()).item() == 0


def test_large_codes_zero_codes_and_a_low_temperature_stay_finite():
    c = torch.zeros(4, 3, requires_grad=True)
    s = torch.tensor([[1e3, 0], [0, -1e3], [0, 0], [0, 0]], requires_grad=True)
    loss = sepclr(c, c, s, s, torch.tensor([1, 1, 1, 0]), 0.005).loss
    loss.backward()
    far = gaussian_uniformity(1e3 * torch.eye(3))  # every kernel underflows
    assert torch.isfinite(loss) and torch.isfinite(c.grad).all() and torch.isfinite(s.grad).all() and far < -1e5


def test_pinning_keeps_targets_and_blocks_the_gradient_of_background():
    s = S1.clone().requires_grad_()
    t = pin_background(s, Y)
    assert torch.equal(t[Y == 1], S1[Y == 1]) and not t[Y == 0].any()
    (g,) = torch.autograd.grad(t.sum(), s)
    assert torch.equal(g, Y[:, None].double().expand(6, 3))


def test_only_targets_show_the_pattern_and_the_salient_factor():
    images, patterns = draw(6, 1, 2, 2).abs(), draw(6, 1, 2, 2, seed=1).abs()
    mixed = overlay_pattern(images, patterns, Y)
    assert torch.equal(mixed[Y == 0], images[Y == 0] / 2)
    assert torch.allclose(mixed[Y == 1], (images + patterns)[Y == 1] / 2)
    data = draw_factors(400, generator=torch.Generator().manual_seed(0))
    assert torch.linalg.matrix_rank(data.x[data.labels == 0]) == 3
    assert torch.linalg.matrix_rank(data.x[data.labels == 1]) == 5


def readability(code, factor):
    """R squared of a least-squares readout, fit on one half and measured on the other."""
    x = torch.cat([code, torch.ones(len(code), 1)], 1)
    half = len(x) // 2
    w = torch.linalg.solve(x[:half].T @ x[:half] + 1e-3 * torch.eye(x.shape[1]), x[:half].T @ factor[:half])
    error = (factor[half:] - x[half:] @ w).square().sum(0)
    return (1 - error / (factor[half:] - factor[half:].mean(0)).square().sum(0)).mean().item()


def train(infoless, joint, steps=200):
    generator = torch.Generator().manual_seed(0)
    data = draw_factors(4096, generator=generator)
    torch.manual_seed(0)
    weights = {"infoless_weight": infoless, "joint_weight": joint}
    model = SepCLR(MLP([20, 64, 4], norm="none"), MLP([20, 64, 3], norm="none"), **weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        rows = torch.randint(2048, (96,), generator=generator)
        views = [data.x[rows] + 0.2 * torch.randn(96, 20, generator=generator) for _ in range(2)]
        loss = model.loss(*views, data.labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    test = torch.arange(2049, 4096, 2)  # targets not trained on
    assert (data.labels[test] == 1).all()
    with torch.no_grad():
        c, s = normalize(model.common(data.x[test])), model.salient(data.x[test])
    return {
        "losses": losses,
        "common from c": readability(c, data.common[test]),
        "salient from s": readability(s, data.salient[test]),
        "salient from c": readability(c, data.salient[test]),
        "common from s": readability(s, data.common[test]),
    }


def test_each_of_two_terms_closes_one_leak():
    neither, pinned, both = train(0, 0), train(10, 0), train(10, 10)
    for run in (neither, pinned, both):
        assert sum(run["losses"][-20:]) < sum(run["losses"][:20])
    assert neither["common from s"] > 0.2 and pinned["common from s"] < 0.05
    assert pinned["salient from s"] > neither["salient from s"] + 0.2
    assert pinned["salient from c"] > 0.25 and both["salient from c"] < 0.1
    assert both["salient from s"] > 0.9
    # The price: the common factors, too, are harder to read from c.
    assert both["common from c"] < pinned["common from c"] - 0.1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sepclr(C1, C2[:5], S1, S2, Y), "c2"),
        (lambda: sepclr(C1, C2, S1, S2[:, :2], Y), "s2"),
        (lambda: sepclr(C1, C2, S1[:5], S2[:5], Y), "s1"),
        (lambda: sepclr(*CODES, Y + 1), "labels"),
        (lambda: sepclr(*CODES, Y, 0.0), "temperature"),
        (lambda: sepclr(*CODES, Y, joint_weight=-1.0), "joint_weight"),
        (lambda: sepclr(*(x[:1] for x in CODES), Y[:1]), "at least 2 rows"),
        (lambda: gaussian_uniformity(C1[:1]), "at least 2 rows"),
        (lambda: joint_concentration(C1, S1[:4]), "s: expected"),
        (lambda: attribute_alignment(S1[:, 0], C1[:5, 0]), "attribute"),
        (lambda: overlay_pattern(draw(6, 1, 2, 2), draw(6, 1, 2, 3), Y), "patterns"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_labels_must_be_integers():
    with pytest.raises(TypeError, match="labels"):
        pin_background(S1, Y.double())
