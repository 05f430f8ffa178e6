"""The ground floor against naive loops, closed forms, finite differences and degenerate input."""

import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw, rounding

from cl_teach.core import (
    FeatureQueue,
    MomentumTeacher,
    clip_loss,
    cosine_similarity,
    draw_beta,
    info_nce,
    normalize,
    nt_xent,
    other_view_mask,
    regression_loss,
    same_label_mask,
    siglip_loss,
    softmax_contrast,
    sup_con,
    tiling,
    weighted_contrast,
)

DTYPES = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def unit(v):
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v] if length > 0 else v


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_sup_con(z, labels, temperature, variant="out"):
    """SupCon by loops over plain Python numbers: equations 2 and 3 of Khosla et al. as they are written."""
    z = [unit(row) for row in z.tolist()]
    n, total = len(z), 0.0
    for i in range(n):
        others = [a for a in range(n) if a != i]
        denominator = sum(math.exp(dot(z[i], z[a]) / temperature) for a in others)
        share = [math.exp(dot(z[i], z[p]) / temperature) / denominator for p in others if labels[p] == labels[i]]
        if variant == "out":
            total += -sum(map(math.log, share)) / len(share)
        else:
            total += -math.log(sum(share) / len(share))
    return total / n


def naive_nt_xent(z1, z2, temperature):
    n = len(z1)
    return naive_sup_con(torch.cat([z1, z2]), list(range(n)) * 2, temperature)


# --- the losses against loops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 3.0])
def test_nt_xent_equals_the_double_loop(temperature):
    z1, z2 = draw(6, 4), draw(6, 4, seed=1)
    assert nt_xent(z1, z2, temperature).item() == pytest.approx(naive_nt_xent(z1, z2, temperature), rel=1e-12)


@pytest.mark.parametrize("variant", ["out", "in"])
def test_sup_con_equals_the_double_loop(variant):
    z, labels = draw(9, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])
    expected = naive_sup_con(z, labels.tolist(), 0.2, variant)
    assert sup_con(z, labels, 0.2, variant=variant).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("negatives", ["batch", "shared", "own"])
def test_info_nce_equals_the_loop(negatives):
    q, k = draw(5, 3), draw(5, 3, seed=1)
    sets = {"batch": None, "shared": draw(7, 3, seed=2), "own": draw(5, 4, 3, seed=3)}[negatives]
    expected = 0.0
    for i in range(5):
        if sets is None:
            rows = [k[j] for j in range(5) if j != i]
        else:
            rows = list(sets if sets.ndim == 2 else sets[i])
        s = [dot(unit(q[i].tolist()), unit(row.tolist())) / 0.3 for row in [k[i], *rows]]
        expected += -s[0] + math.log(sum(map(math.exp, s)))
    assert info_nce(q, k, sets, 0.3).item() == pytest.approx(expected / 5, rel=1e-12)


@pytest.mark.parametrize("negatives", ["shared", "own"])
def test_info_nce_in_batch_adds_the_other_rows_positives(negatives):
    q, k = draw(5, 3), draw(5, 3, seed=1)
    sets = {"shared": draw(7, 3, seed=2), "own": draw(5, 4, 3, seed=3)}[negatives]
    expected = []
    for i in range(5):
        rows = [k[i], *(k[j] for j in range(5) if j != i), *(sets if sets.ndim == 2 else sets[i])]
        s = [dot(unit(q[i].tolist()), unit(row.tolist())) / 0.3 for row in rows]
        expected.append(-s[0] + math.log(sum(map(math.exp, s))))
    assert info_nce(q, k, sets, 0.3, in_batch=True, reduction="none").tolist() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(info_nce(q, k, None, 0.3, in_batch=True), info_nce(q, k, None, 0.3))
    assert torch.autograd.gradcheck(
        lambda a, b, n: info_nce(a, b, n, 0.3, in_batch=True), tuple(x.requires_grad_() for x in (q, k, sets))
    )


def test_info_nce_in_batch_takes_one_row_and_a_temperature_for_each():
    q, k, n = draw(4, 3), draw(4, 3, seed=1), draw(6, 3, seed=2)
    torch.testing.assert_close(info_nce(q[:1], k[:1], n, 0.3, in_batch=True), info_nce(q[:1], k[:1], n, 0.3))
    own = torch.full((4, 1), 0.3, dtype=torch.float64)
    assert torch.allclose(info_nce(q, k, n, own, in_batch=True), info_nce(q, k, n, 0.3, in_batch=True))


@pytest.mark.parametrize("variant", ["out", "in"])
@pytest.mark.parametrize("side", [None, 3])
def test_sup_con_skips_an_anchor_without_a_positive_and_keeps_it_as_a_candidate(variant, side):
    z, labels = draw(9, 5), torch.tensor([0, 1, 2, 0, 1, 4, 0, 7, 1])
    rows = [unit(row) for row in z.tolist()]
    expected = []
    for i in (0, 1, 3, 4, 6, 8):
        others = [j for j in range(9) if j != i]
        total = sum(math.exp(dot(rows[i], rows[j]) / 0.2) for j in others)
        share = [math.exp(dot(rows[i], rows[j]) / 0.2) / total for j in others if labels[j] == labels[i]]
        expected.append(
            -sum(map(math.log, share)) / len(share) if variant == "out" else -math.log(sum(share) / len(share))
        )
    with tiling(side):
        losses = sup_con(z, labels, 0.2, variant=variant, singletons="skip", reduction="none")
        assert losses.tolist() == pytest.approx(expected, rel=1e-10)
        mean = sup_con(z, labels, 0.2, variant=variant, singletons="skip")
        assert mean.item() == pytest.approx(sum(expected) / 6, rel=1e-10)
        assert torch.autograd.gradcheck(
            lambda x: sup_con(x, labels, 0.2, variant=variant, singletons="skip"), z.clone().requires_grad_()
        )
    plain = sup_con(z, labels, torch.full((9, 1), 0.2, dtype=torch.float64), variant=variant, singletons="skip")
    assert torch.allclose(mean, plain)


def test_sup_con_skip_is_the_default_where_every_label_has_company():
    z, labels = draw(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    for side in (None, 3):
        with tiling(side):
            assert sup_con(z, labels, 0.2, singletons="skip") == sup_con(z, labels, 0.2)


def test_clip_loss_equals_cross_entropy_in_both_directions():
    image, text, t = draw(6, 4), draw(6, 4, seed=1), torch.tensor(1.3, dtype=torch.float64)
    logits = t.exp() * F.normalize(image) @ F.normalize(text).T
    own = torch.arange(6)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert torch.allclose(clip_loss(image, text, t), expected)


def test_regression_loss_is_two_minus_two_cosines():
    p, t = draw(5, 3), draw(5, 3, seed=1)
    assert torch.allclose(regression_loss(p, t), 2 - 2 * F.cosine_similarity(p, t).mean())


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.005, 0.1, 1.0])
@pytest.mark.parametrize("n", [2, 7, 64])
def test_nt_xent_equals_log_2n_minus_1_when_collapsed(n, temperature):
    z = torch.ones(n, 3, dtype=torch.float64)
    assert nt_xent(z, z, temperature).item() == pytest.approx(math.log(2 * n - 1), rel=1e-12)


def test_info_nce_equals_log_n_when_collapsed():
    z = torch.ones(8, 3, dtype=torch.float64)
    assert info_nce(z, z).item() == pytest.approx(math.log(8))
    assert info_nce(z, z, torch.ones(20, 3, dtype=torch.float64)).item() == pytest.approx(math.log(21))


def test_clip_loss_of_one_pair_is_zero_and_of_equal_embeddings_log_n():
    assert clip_loss(draw(1, 3), draw(1, 3, seed=1), 2.0).item() == pytest.approx(0.0, abs=1e-12)
    assert clip_loss(torch.ones(5, 3), torch.ones(5, 3), 2.0).item() == pytest.approx(math.log(5), rel=1e-6)


def test_sup_con_with_distinct_labels_is_nt_xent():
    z1, z2 = draw(5, 4), draw(5, 4, seed=1)
    labels = torch.arange(5).repeat(2)
    for variant in ("out", "in"):
        assert torch.allclose(sup_con(torch.cat([z1, z2]), labels, 0.3, variant=variant), nt_xent(z1, z2, 0.3))


def test_sup_con_with_one_label_is_at_least_log_of_the_number_of_positives():
    labels = torch.zeros(6, dtype=torch.long)
    assert sup_con(draw(6, 4), labels, 0.5).item() > math.log(5)
    assert sup_con(torch.ones(6, 4), labels, 0.5).item() == pytest.approx(math.log(5), rel=1e-6)


def test_sup_con_in_is_at_most_out():
    for seed in range(20):
        z, labels = draw(12, 4, seed=seed), torch.arange(3).repeat(4)
        assert sup_con(z, labels, 0.1, variant="in") <= sup_con(z, labels, 0.1, variant="out") + 1e-12


# The five rows on which at least one public library is wrong or NaN (N = 32 pairs, d = 64, float32).


def pairs(kind):
    a = draw(32, 64, dtype=torch.float32)
    b = draw(32, 64, seed=1, dtype=torch.float32)
    if kind == "collapsed":
        a = b = torch.ones(32, 64)
    elif kind == "opposite":
        b = -a
    elif kind == "zero row":
        b = a + 0.1 * b
        b[3] = 0
    return a, b


@pytest.mark.parametrize(
    ("kind", "temperature"),
    [("collapsed", 0.1), ("collapsed", 0.01), ("opposite", 0.01), ("opposite", 0.005), ("zero row", 0.02)],
)
def test_right_where_public_libraries_are_wrong(kind, temperature):
    a, b = pairs(kind)
    a.requires_grad_()
    loss = nt_xent(a, b, temperature)
    z = F.normalize(torch.cat([a.detach(), b]).double())
    s = (z @ z.T / temperature).masked_fill(torch.eye(64, dtype=torch.bool), -math.inf)
    expected = F.cross_entropy(s, torch.arange(64).roll(32))
    assert loss.item() == pytest.approx(expected.item(), rel=2e-5)
    (gradient,) = torch.autograd.grad(loss, a)
    assert torch.isfinite(gradient).all()
    if kind == "collapsed":
        assert loss.item() == pytest.approx(math.log(63), rel=1e-6)
    if (
        kind == "opposite"
    ):  # the positive is the worst candidate: the loss cannot be below 2 / temperature - 1 / temperature
        assert loss.item() > 1 / temperature


# --- gradients --------------------------------------------------------------------------------------------------------


def grads():
    z1, z2 = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    negatives = draw(4, 5, 3, seed=2).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1])
    return {
        "nt_xent": (lambda a, b, t: nt_xent(a, b, t), (z1, z2, t)),
        "info_nce batch": (lambda a, b, t: info_nce(a, b, None, t), (z1, z2, t)),
        "info_nce own": (lambda a, b, n: info_nce(a, b, n, 0.3), (z1, z2, negatives)),
        "sup_con out": (lambda a, t: sup_con(a, labels, t), (z1, t)),
        "sup_con in": (lambda a, t: sup_con(a, labels, t, variant="in"), (z1, t)),
        "clip_loss": (lambda a, b, t: clip_loss(a, b, t), (z1, z2, t)),
        "regression_loss": (lambda a: regression_loss(a, z2.detach()), (z1,)),
        "normalize": (normalize, (z1,)),
    }


@pytest.mark.parametrize("name", list(grads()))
def test_gradcheck(name):
    function, inputs = grads()[name]
    assert torch.autograd.gradcheck(function, inputs)


def test_gradient_of_negatives_sums_to_minus_gradient_of_positive():
    logits = draw(5, 5).requires_grad_()
    positives = torch.eye(5, dtype=torch.bool)
    (g,) = torch.autograd.grad(softmax_contrast(logits, positives), logits)
    assert torch.allclose(g.sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert (g[positives] < 0).all() and (g[~positives] > 0).all()


def test_masked_candidates_receive_no_gradient_and_do_not_change_the_loss():
    logits = draw(4, 6).requires_grad_()
    positives = torch.zeros(4, 6, dtype=torch.bool)
    positives[:, 0] = True
    candidates = torch.ones(4, 6, dtype=torch.bool)
    candidates[:, 5] = False
    loss = softmax_contrast(logits, positives, candidates)
    (g,) = torch.autograd.grad(loss, logits)
    assert (g[:, 5] == 0).all()
    assert torch.allclose(loss, softmax_contrast(logits[:, :5], positives[:, :5]))


def test_gradient_is_orthogonal_to_every_embedding():
    z1, z2 = draw(5, 4).requires_grad_(), draw(5, 4, seed=1)
    (g,) = torch.autograd.grad(nt_xent(z1, z2, 0.2), z1)
    assert torch.allclose((g * z1).sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-12)


def test_regression_loss_sends_no_gradient_to_the_target():
    p, t = draw(3, 2).requires_grad_(), draw(3, 2, seed=1).requires_grad_()
    regression_loss(p, t).backward()
    assert t.grad is None and p.grad is not None


# --- symmetries and reductions ----------------------------------------------------------------------------------------


def test_nt_xent_is_unchanged_by_swapping_views_permuting_scaling_and_rotating():
    z1, z2 = draw(6, 4), draw(6, 4, seed=1)
    loss = nt_xent(z1, z2, 0.3)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(draw(4, 4, seed=2)).Q
    for other in [(z2, z1), (z1[order], z2[order]), (1e4 * z1, 1e-4 * z2), (z1 @ rotation, z2 @ rotation)]:
        assert torch.allclose(nt_xent(*other, 0.3), loss)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reduction_none_holds_what_is_reduced(reduction):
    z1, z2 = draw(6, 4), draw(6, 4, seed=1)
    each = nt_xent(z1, z2, 0.3, reduction="none")
    assert each.shape == (12,)
    assert torch.allclose(getattr(each, reduction)(), nt_xent(z1, z2, 0.3, reduction=reduction))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_precision_agrees_with_float64(dtype):
    z1, z2, labels = draw(16, 8), draw(16, 8, seed=1), torch.arange(4).repeat(4)
    a, b = z1.to(dtype), z2.to(dtype)
    for got, expected in [
        (nt_xent(a, b, 0.5), nt_xent(z1, z2, 0.5)),
        (info_nce(a, b, None, 0.5), info_nce(z1, z2, None, 0.5)),
        (sup_con(a, labels, 0.5), sup_con(z1, labels, 0.5)),
        (clip_loss(a, b, 0.7), clip_loss(z1, z2, 0.7)),
        (regression_loss(a, b), regression_loss(z1, z2)),
    ]:
        assert got.dtype == torch.promote_types(dtype, torch.float32)
        assert got.item() == pytest.approx(expected.item(), rel=DTYPES[dtype])


def test_siglip_equals_the_double_loop():
    a, b, t, bias = draw(5, 4), draw(5, 4, seed=1), 1.3, -2.0
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = math.exp(t) * dot(unit(a[i].tolist()), unit(b[j].tolist())) + bias
            total += math.log1p(math.exp(-logit if i == j else logit)) / 5
    assert siglip_loss(a, b, t, bias).item() == pytest.approx(total, rel=1e-12)


def test_siglip_adds_up_over_blocks_of_captions_where_clip_does_not():
    a, b = draw(6, 4), draw(6, 4, seed=1)
    whole, own = (
        siglip_loss(a, b, 1.0, -1.0),
        sum(siglip_loss(a[i], b[i], 1.0, -1.0) / 2 for i in (slice(3), slice(3, 6))),
    )
    across = a[:3], b[3:], a[3:], b[:3]
    crossed = sum(-F.logsigmoid(-(math.e * cosine_similarity(x, y) - 1)).sum() / 6 for x, y in (across[:2], across[2:]))
    torch.testing.assert_close(whole, own + crossed)


def test_gradcheck_of_siglip():
    t, bias = torch.tensor(1.0, dtype=torch.float64, requires_grad=True), torch.tensor(-1.0, dtype=torch.float64)
    inputs = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_(), t, bias.requires_grad_()
    assert torch.autograd.gradcheck(siglip_loss, inputs)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_meet_float32_ones(half):
    z1, z2, queue = draw(6, 8, dtype=torch.float32), draw(6, 8, seed=1, dtype=torch.float32), draw(9, 8, seed=2)
    z = z1.to(half).requires_grad_()
    for mixed, wide in [
        (nt_xent(z, z2, 0.2), nt_xent(z1.to(half).float(), z2, 0.2)),
        (info_nce(z, z2, queue.float(), 0.2), info_nce(z1.to(half).float(), z2, queue.float(), 0.2)),
        (clip_loss(z, z2, 1.0), clip_loss(z1.to(half).float(), z2, 1.0)),
    ]:
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed, wide)
        (gradient,) = torch.autograd.grad(mixed, z)
        assert gradient.dtype == half and torch.isfinite(gradient).all()


def test_autocast_is_off_inside_a_loss():
    z1, z2 = draw(16, 8, dtype=torch.float32), draw(16, 8, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), tiling(None):
        inside = nt_xent(z1, z2, 0.05)
    with tiling(None):
        torch.testing.assert_close(inside, nt_xent(z1, z2, 0.05))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 800.0), (torch.bfloat16, 1e30), (torch.float32, 1e25)])
def test_long_vectors_keep_their_direction(dtype, size):
    x = draw(3, 4096, dtype=torch.float32).clamp(-3, 3)
    long = (size * x).to(dtype).requires_grad_()
    unit_rows = normalize(long)
    assert (unit_rows.float().norm(dim=1) - 1).abs().max() < 1e-2
    assert ((unit_rows.float() * normalize(x)).sum(1) > 0.99).all()
    unit_rows.float().sum().backward()
    assert torch.isfinite(long.grad).all()


# --- degrees instead of masks -----------------------------------------------------------------------------------------


def naive_weighted(logits, positives, candidates, variant):
    rows = []
    for s, p, c in zip(logits.tolist(), positives.tolist(), candidates.tolist(), strict=True):
        z, total = sum(w * math.exp(x) for x, w in zip(s, c, strict=True)), sum(p)
        if variant == "out":
            rows.append(-sum(w / total * math.log(math.exp(x) / z) for x, w in zip(s, p, strict=True)))
        else:
            rows.append(-math.log(sum(w / total * math.exp(x) / z for x, w in zip(s, p, strict=True))))
    return rows


@pytest.mark.parametrize("variant", ["out", "in"])
def test_weighted_contrast_equals_the_loop(variant):
    logits, positives, candidates = draw(4, 6), draw(4, 6, seed=1).abs(), draw(4, 6, seed=2).abs()
    positives[:, 1], candidates[0, 2] = 0, 0
    found = weighted_contrast(logits, positives, candidates, variant=variant, reduction="none")
    assert found.tolist() == pytest.approx(naive_weighted(logits, positives, candidates, variant), rel=1e-12)


@pytest.mark.parametrize("variant", ["out", "in"])
def test_weights_of_zero_and_one_are_masks(variant):
    logits, positives = draw(4, 6), torch.eye(4, 6, dtype=torch.bool) | torch.eye(4, 6, dtype=torch.bool).roll(1, 1)
    candidates = positives | (draw(4, 6, seed=3) > 0)
    by_mask = softmax_contrast(logits, positives, candidates, variant=variant)
    torch.testing.assert_close(weighted_contrast(logits, positives, candidates, variant=variant), by_mask)
    floats = weighted_contrast(logits, positives.double(), candidates.double(), variant=variant)
    torch.testing.assert_close(floats, by_mask)


@pytest.mark.parametrize("variant", ["out", "in"])
def test_gradcheck_of_weighted_contrast_with_a_weight_of_zero(variant):
    logits, weights = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).abs().requires_grad_()
    keep = torch.ones(3, 4, dtype=torch.float64)
    keep[0, 1] = 0
    assert torch.autograd.gradcheck(lambda s, w: weighted_contrast(s, w * keep, w, variant=variant), (logits, weights))
    (gradient,) = torch.autograd.grad(weighted_contrast(logits, weights, weights * keep, variant=variant), weights)
    assert torch.isfinite(gradient).all()


def test_finite_under_bfloat16_autocast_at_a_tiny_temperature():
    z1, z2 = draw(16, 8, dtype=torch.float32).requires_grad_(), draw(16, 8, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z1, z2, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z1.grad).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu():
    z1, z2, labels = draw(64, 16), draw(64, 16, seed=1), torch.arange(8).repeat(8)
    for f in (
        lambda a, b, y: nt_xent(a, b, 0.1),
        lambda a, b, y: sup_con(a, y, 0.1),
        lambda a, b, y: clip_loss(a, b, 2.0),
    ):
        assert torch.allclose(f(z1.cuda(), z2.cuda(), labels.cuda()).cpu(), f(z1, z2, labels))


# --- degenerate input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zero", "duplicates", "huge", "tiny"])
def test_degenerate_rows_stay_finite(kind):
    z1, z2 = draw(8, 4, dtype=torch.float32), draw(8, 4, seed=1, dtype=torch.float32)
    if kind == "zero":
        z1[2] = 0
    elif kind == "duplicates":
        z1[:], z2[:] = z1[0], z1[0]
    else:
        z1 *= {"huge": 1e4, "tiny": 1e-15}[kind]
    z1.requires_grad_()
    labels = torch.arange(4).repeat(2)
    for loss in (
        nt_xent(z1, z2, 0.005),
        info_nce(z1, z2, temperature=0.005),
        sup_con(z1, labels, 0.005),
        clip_loss(z1, z2, math.log(200)),
        regression_loss(z1, z2),
    ):
        (g,) = torch.autograd.grad(loss, z1)
        assert torch.isfinite(loss) and torch.isfinite(g).all()


def test_normalize_leaves_zero_at_zero_with_a_gradient_of_ordinary_size():
    x = torch.zeros(2, 3, requires_grad=True)
    y = normalize(x)
    y.sum().backward()
    assert (y == 0).all() and (x.grad.abs() <= 1).all()


def test_cosine_similarity_is_one_with_itself():
    assert torch.allclose(cosine_similarity(draw(4, 3), draw(4, 3)).diagonal(), torch.ones(4, dtype=torch.float64))


def test_masks_name_the_right_entries():
    assert other_view_mask(2).long().tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert same_label_mask(torch.tensor([1, 2, 1])).long().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


# --- bad input says what is wrong -------------------------------------------------------------------------------------

GOOD = draw(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: nt_xent(GOOD, GOOD[:3]), ValueError, r"z2.*\(n, d\) with n = 4 as in z1, got \(3, 3\)"),
        (lambda: nt_xent(GOOD, draw(4, 2)), ValueError, "z2.*d = 3 as in z1"),
        (lambda: nt_xent(GOOD[:1], GOOD[:1]), ValueError, "at least 2 rows.*got 1"),
        (lambda: nt_xent(GOOD[:0], GOOD[:0]), ValueError, "z1.*at least one element"),
        (lambda: nt_xent(GOOD, GOOD, 0.0), ValueError, "temperature.*greater than 0.*got 0"),
        (lambda: nt_xent(GOOD, GOOD, -1), ValueError, "temperature.*got -1"),
        (lambda: nt_xent(GOOD, GOOD, math.nan), ValueError, "temperature"),
        (lambda: nt_xent(GOOD, GOOD, "0.1"), TypeError, "temperature.*str"),
        (lambda: nt_xent(GOOD, GOOD * math.nan), ValueError, "z2.*finite"),
        (lambda: nt_xent(GOOD.long(), GOOD.long()), TypeError, "z1.*floating"),
        (lambda: nt_xent(GOOD[0], GOOD[0]), ValueError, r"z1.*shape \(n, d\), got \(3,\)"),
        (lambda: nt_xent(GOOD.numpy(), GOOD), TypeError, "z1.*torch.Tensor.*ndarray"),
        (lambda: nt_xent(GOOD, GOOD, reduction="average"), ValueError, "reduction.*'mean'.*got 'average'"),
        (lambda: sup_con(GOOD, torch.tensor([0, 0, 1])), ValueError, r"labels.*m = 4 as in z, got \(3,\)"),
        (lambda: sup_con(GOOD, torch.tensor([0, 0, 1, 2])), ValueError, "labels.*twice"),
        (lambda: sup_con(GOOD, torch.arange(4), singletons="skip"), ValueError, "labels.*all 4 are different"),
        (lambda: sup_con(GOOD, torch.arange(4), singletons="drop"), ValueError, "singletons"),
        (lambda: info_nce(GOOD, GOOD, GOOD, in_batch=1), TypeError, "in_batch"),
        (lambda: sup_con(GOOD, torch.tensor([0, 0, -1, -1])), ValueError, "labels.*got -1"),
        (lambda: sup_con(GOOD, torch.tensor([0.0, 0, 1, 1])), TypeError, "labels.*integer"),
        (lambda: sup_con(GOOD, torch.tensor([0, 0, 1, 1]), variant="both"), ValueError, "variant"),
        (lambda: info_nce(GOOD[:1], GOOD[:1]), ValueError, "query.*or pass negatives"),
        (lambda: info_nce(GOOD, GOOD, draw(5, 2)), ValueError, "negatives.*d = 3 as in query"),
        (lambda: info_nce(GOOD, GOOD, draw(3, 5, 3)), ValueError, "negatives.*n = 4 as in query"),
        (lambda: info_nce(GOOD, GOOD, draw(0, 3)), ValueError, "negatives"),
        (lambda: clip_loss(GOOD, GOOD, math.inf), ValueError, "log_scale"),
        (lambda: regression_loss(GOOD, GOOD[:2]), ValueError, "target.*n = 4 as in prediction"),
        (
            lambda: softmax_contrast(GOOD, torch.zeros(4, 3, dtype=torch.bool)),
            ValueError,
            "positives.*row 0 has none",
        ),
        (lambda: clip_loss(GOOD, GOOD, 100.0), ValueError, "log_scale.*clamp.*got 100"),
        (lambda: nt_xent(GOOD, GOOD, 1e-39), ValueError, "temperature.*1e-30.*got 1e-39"),
        (lambda: nt_xent(GOOD, GOOD.to("meta")), ValueError, "z2.*meta"),
        (lambda: weighted_contrast(GOOD, -GOOD.abs()), ValueError, "positives.*entries"),
        (lambda: weighted_contrast(GOOD, GOOD.abs(), 0 * GOOD), ValueError, "candidates.*row 0 has none"),
        (lambda: softmax_contrast(GOOD, torch.ones(4, 3)), TypeError, "positives.*boolean"),
        (
            lambda: softmax_contrast(GOOD, torch.ones(4, 3, dtype=torch.bool), torch.zeros(4, 3, dtype=torch.bool)),
            ValueError,
            "positives, candidates.*must be a candidate",
        ),
        (lambda: MomentumTeacher(torch.nn.Linear(2, 2), 1.5), ValueError, "momentum.*1.5"),
        (lambda: FeatureQueue(0, 3), ValueError, "size"),
        (lambda: FeatureQueue(3, 2).push(GOOD), ValueError, r"features.*\(n, 2\), got \(4, 3\)"),
    ],
)
def test_bad_input_names_the_argument(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_beta_draws_have_the_right_moments_and_repeat_with_the_generator():
    x = draw_beta(2.0, 8.0, 20_000, generator=torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(0.2, abs=0.005)
    assert x.var().item() == pytest.approx(16 / 1100, rel=0.05)
    assert torch.equal(x, draw_beta(2.0, 8.0, 20_000, generator=torch.Generator().manual_seed(0)))
    assert draw_beta(1.0, 1.0).shape == ()
    with pytest.raises(ValueError, match="b"):
        draw_beta(1.0, 0.0)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_queue_keeps_the_newest_and_forgets_the_oldest():
    queue, rows = FeatureQueue(5, 3), normalize(draw(8, 3))
    assert queue.features.shape == (0, 3) and not queue.is_full
    queue.push(rows[:3])
    assert queue.features.shape == (3, 3)
    queue.push(rows[3:8])
    assert queue.is_full
    kept = {tuple(round(v, 5) for v in r) for r in queue.features.tolist()}
    assert kept == {tuple(round(v, 5) for v in r) for r in rows[3:8].tolist()}


def test_queue_larger_batch_keeps_the_last_rows_and_holds_no_graph():
    queue = FeatureQueue(2, 3)
    queue.push(draw(6, 3).requires_grad_())
    assert not queue.features.requires_grad
    assert torch.allclose(queue.features.sum(0), normalize(draw(6, 3))[-2:].sum(0).float(), atol=1e-6)


def test_queue_survives_a_state_dict_round_trip():
    queue, copy = FeatureQueue(4, 3), FeatureQueue(4, 3)
    queue.push(draw(3, 3))
    copy.load_state_dict(queue.state_dict())
    assert torch.equal(copy.features, queue.features)


def test_teacher_follows_the_running_average():
    student = torch.nn.Linear(2, 1, bias=False)
    teacher = MomentumTeacher(student, momentum=0.75)
    start = student.weight.detach().clone()
    with torch.no_grad():
        student.weight.add_(1.0)
    for k in range(1, 4):
        teacher.update(student)
        assert torch.allclose(teacher.network.weight, start + 1 - 0.75**k, **rounding(8))
    assert not teacher(torch.ones(1, 2)).requires_grad


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_teacher_at_the_ends_of_momentum(momentum):
    student = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    teacher = MomentumTeacher(student, momentum)
    before = teacher.network[0].weight.clone()
    with torch.no_grad():
        student[0].weight.mul_(2)
    student(torch.randn(8, 3))  # moves the BatchNorm statistics
    teacher.update(student)
    assert torch.equal(teacher.network[0].weight, before if momentum == 1 else student[0].weight)
    assert torch.equal(teacher.network[1].running_mean, student[1].running_mean)


def test_teacher_refuses_another_network():
    with pytest.raises(ValueError, match="student"):
        MomentumTeacher(torch.nn.Linear(2, 2)).update(torch.nn.Linear(3, 2))
