"""Ren et al. (2024): a token hidden twice is imagined twice, and both imaginations should agree."""

import math

import pytest
import torch
from torch.nn.functional import normalize
from unit_helpers import draw

from cl_teach.datasets.point_clouds import point_clouds
from cl_teach.evaluation import effective_rank
from cl_teach.models.point_transformer import make_patches, to_token_order, visible_first
from cl_teach.signals.point_cmae import (
    PointCMAE,
    chamfer_distance,
    comask_contrast,
    comasked,
    draw_masks,
    draw_scale_and_shift,
)


def masks(n, groups, seed, ratio=0.6):
    return draw_masks(n, groups, ratio, generator=torch.Generator().manual_seed(seed))


B, G, C = 3, 10, 4
D1, D2 = draw(B, G, C), draw(B, G, C, seed=1)
M1, M2 = masks(B, G, 0), masks(B, G, 1)
BOTH = comasked(M1, M2)
P, Q = draw(3, 5, 3, seed=2), draw(3, 7, 3, seed=3)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_both_pairings_equal_the_loops():
    pairs = [(b, g) for b in range(B) for g in range(G) if M1[b, g] and M2[b, g]]
    same = sum(1 - cosine(D1[b, g], D2[b, g]) for b, g in pairs) / len(pairs)
    assert comask_contrast(D1, D2, M1, M2).item() == pytest.approx(same, rel=1e-12)
    every = sum(1 - cosine(D1[b, g], D2[b, h]) + 0.01 for b, g in pairs for h in range(G)) / (len(pairs) * G)
    assert comask_contrast(D1, D2, M1, M2, pairing="all", eps=0.01).item() == pytest.approx(every, rel=1e-12)


def test_equal_imaginations_cost_nothing_and_opposite_ones_two():
    assert comask_contrast(D1, D1, M1, M1).item() == pytest.approx(0, abs=1e-12)
    assert comask_contrast(D1, -D1, M1, M1).item() == pytest.approx(2)
    assert comask_contrast(D1, D1, M1, M1, pairing="all") > 0.1  # only a collapse would bring this to 0


def test_scales_do_not_matter_and_gradients_are_orthogonal():
    scale = draw(B, G, 1, seed=4).abs() + 0.1
    for pairing in ("same", "all"):
        d1, d2 = D1.clone().requires_grad_(), D2.clone().requires_grad_()
        loss = comask_contrast(d1, d2, M1, M2, pairing=pairing)
        assert torch.allclose(comask_contrast(scale * D1, D2 / scale, M1, M2, pairing=pairing), loss)
        loss.backward()
        for d in (d1, d2):
            assert (d.grad * d.detach()).sum(-1).abs().max() < 1e-12 and d.grad.abs().max() > 1e-3


def test_who_gets_a_gradient_depends_on_the_pairing():
    for pairing, wanted in (("same", BOTH), ("all", BOTH.any(1, keepdim=True).expand(B, G))):
        d1, d2 = D1.clone().requires_grad_(), D2.clone().requires_grad_()
        comask_contrast(d1, d2, M1, M2, pairing=pairing).backward()
        assert torch.equal(d1.grad.abs().sum(-1) > 0, BOTH)
        assert torch.equal(d2.grad.abs().sum(-1) > 0, wanted)
    assert not BOTH.all() and BOTH.any(1).all()


def test_swapping_the_branches_changes_only_the_all_pairs_form():
    assert torch.allclose(comask_contrast(D2, D1, M2, M1), comask_contrast(D1, D2, M1, M2))
    forth, back = (comask_contrast(*x, pairing="all") for x in ((D1, D2, M1, M2), (D2, D1, M2, M1)))
    assert abs(forth - back) > 1e-3


def test_no_doubly_masked_token_gives_zero_with_gradient_zero():
    d = D1.clone().requires_grad_()
    loss = comask_contrast(d, D2, M1, ~M1)
    loss.backward()
    assert loss == 0 and not d.grad.any()


def test_chamfer_equals_the_loops_and_ignores_order():
    forth = sum(min(float((p - q).square().sum()) for q in Q[k]) for k in range(3) for p in P[k]) / 15
    back = sum(min(float((p - q).square().sum()) for p in P[k]) for k in range(3) for q in Q[k]) / 21
    assert chamfer_distance(P, Q).item() == pytest.approx(forth + back, rel=1e-12)
    assert torch.allclose(chamfer_distance(P[:, torch.randperm(5)], Q.flip(1)), chamfer_distance(P, Q))
    assert torch.allclose(chamfer_distance(Q, P), chamfer_distance(P, Q))


def test_chamfer_is_zero_for_equal_sets_only_and_bounded_for_shifted_ones():
    assert chamfer_distance(P, P.flip(1)) == 0 and chamfer_distance(P[:, :4], P) > 0
    shift = torch.tensor([0.3, -0.1, 0.2]).double()
    assert 0 < chamfer_distance(P, P + shift) <= 2 * shift.square().sum() + 1e-12
    assert torch.allclose(chamfer_distance(P, P + shift / 100), 2 * (shift / 100).square().sum())


def test_masks_hide_exactly_the_floor_of_the_share_and_every_token_alike():
    assert draw_masks(5, 64).sum(1).tolist() == [38] * 5
    many = masks(4000, 10, 0)
    assert (many.float().mean(0) - 0.6).abs().max() < 0.04
    both = comasked(masks(4000, 64, 1), masks(4000, 64, 2)).sum(1).float()
    assert both.min() >= 12 and abs(both.mean() - 38**2 / 64) < 0.2


def test_decoder_order_is_visible_then_masked_and_can_be_undone():
    order = visible_first(M1)
    for row, mask in zip(order.tolist(), M1.tolist(), strict=True):
        assert row == [g for g in range(G) if not mask[g]] + [g for g in range(G) if mask[g]]
    decoded = D1.gather(1, order[..., None].expand(B, G, C))
    assert torch.equal(to_token_order(decoded, M1), D1)


def test_scale_and_shift_stay_in_range():
    scale, shift = draw_scale_and_shift(2000, generator=torch.Generator().manual_seed(0))
    assert scale.shape == shift.shape == (2000, 1, 3)
    assert 2 / 3 <= scale.min() < 0.67 and 1.49 < scale.max() <= 3 / 2
    assert -0.2 <= shift.min() < -0.19 and 0.19 < shift.max() <= 0.2


def test_gradchecks():
    small = D1[:1].clone().requires_grad_(), D2[:1].clone().requires_grad_()
    for pairing in ("same", "all"):
        assert torch.autograd.gradcheck(lambda a, b, p=pairing: comask_contrast(a, b, M1[:1], M2[:1], pairing=p), small)
    assert torch.autograd.gradcheck(chamfer_distance, (P.clone().requires_grad_(), Q.clone().requires_grad_()))


def test_zero_features_and_coinciding_points_stay_finite():
    d, p = torch.zeros(B, G, C, requires_grad=True), torch.zeros(2, 4, 3, requires_grad=True)
    loss = comask_contrast(d, D2.float(), M1, M2) + chamfer_distance(p, torch.zeros(2, 4, 3))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(d.grad).all() and torch.isfinite(p.grad).all()


CLOUDS = point_clouds(32, 96, seed=0).points


def build(**options):
    torch.manual_seed(0)
    return PointCMAE(8, 12, 16, heads=2, **options)


def test_hidden_patches_do_not_reach_their_branch():
    model, (centers, patches) = build(), make_patches(CLOUDS[:4], 8, 12)
    m1, m2 = masks(4, 8, 0), masks(4, 8, 1)
    changed = patches + 5.0 * m1[:, :, None, None]
    (a1, a2), (b1, b2) = model.decode(centers, patches, m1, m2), model.decode(centers, changed, m1, m2)
    assert torch.equal(a1.tokens, b1.tokens) and torch.equal(a1.patches, b1.patches)
    assert not torch.allclose(a2.tokens, b2.tokens)  # what the other branch sees of them matters
    assert a1.tokens.shape == (4, 8, 16) and a1.patches.shape == (4, 4, 12, 3)


def test_the_terms_are_those_of_the_formula():
    model, (centers, patches) = build(contrast_weight=3.0), make_patches(CLOUDS[:4], 8, 12)
    m1, m2 = masks(4, 8, 0), masks(4, 8, 1)
    d1, d2 = model.decode(centers, patches, m1, m2)
    wanted = sum(
        chamfer_distance(d.patches[b, None, k], patches[b, None, g])
        for d, m in ((d1, m1), (d2, m2))
        for b in range(4)
        for k, g in enumerate(m[b].nonzero()[:, 0])
    )
    terms = model.terms(CLOUDS[:4], m1, m2)
    assert terms.reconstruction.item() == pytest.approx(wanted.item() / 16, rel=1e-5)
    assert terms.contrast.item() == pytest.approx(comask_contrast(d1.tokens, d2.tokens, m1, m2).item(), rel=1e-5)
    assert terms.loss.item() == pytest.approx(1000 * terms.reconstruction.item() + 3 * terms.contrast.item(), rel=1e-5)


def test_equal_branches_under_equal_masks_agree_and_every_part_learns():
    model, m = build(), masks(8, 8, 0)
    terms = model.terms(CLOUDS[:8], masks(8, 8, 0), masks(8, 8, 1))
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    model.branches[1].load_state_dict(model.branches[0].state_dict())
    assert model.terms(CLOUDS[:8], m, m).contrast.item() == pytest.approx(0, abs=1e-6)


def test_features_do_not_depend_on_the_order_of_points_but_for_the_first():
    model = build()
    order = torch.cat([torch.zeros(1).long(), 1 + torch.randperm(95)])
    assert model(CLOUDS).shape == (32, 32)
    assert torch.allclose(model(CLOUDS[:, order]), model(CLOUDS), atol=1e-4)


def train(weight, pairing):
    """Reconstruction before and after, then the cosine of a doubly masked token with itself and with all tokens."""
    model, generator = build(contrast_weight=weight, pairing=pairing), torch.Generator().manual_seed(0)
    optimizer, seen = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05), []
    for _ in range(60):
        terms = model.loss(CLOUDS, generator=generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        seen.append(terms.reconstruction.item())
    m1, m2 = masks(32, 8, 5), masks(32, 8, 6)
    with torch.no_grad():
        d1, d2 = (normalize(d.tokens, dim=-1) for d in model.decode(*make_patches(CLOUDS, 8, 12), m1, m2))
    cosines, both = d1 @ d2.mT, comasked(m1, m2)
    return seen[0], sum(seen[-5:]) / 5, cosines.diagonal(dim1=1, dim2=2)[both].mean(), cosines[both].mean()


def test_the_features_are_made_of_what_is_known_of_the_cloud_and_of_its_patches():
    torch.manual_seed(0)
    model, clouds = PointCMAE(groups=6, size=5, dim=8), point_clouds(3, 30).points
    summary, tokens = model.encode(clouds)
    assert summary.shape == (3, 8) and tokens.shape == (3, 6, 8)
    assert torch.equal(model(clouds), torch.cat([summary, tokens.amax(1)], 1))


def test_training_reconstructs_and_the_term_brings_the_two_imaginations_together():
    _, _, without, _ = train(0.0, "same")
    start, end, same, to_all = train(50.0, "same")
    _, _, released_same, released_all = train(50.0, "all")
    assert end < 0.5 * start
    assert same > without + 0.2
    assert same - to_all > released_same - released_all + 0.03  # only the same-token form prefers the same token


def test_the_same_token_form_keeps_tokens_apart_and_the_all_pairs_form_collapses():
    ranks, cosines = {}, {}
    for pairing in ("same", "all"):
        d1, d2 = (draw(4, 24, 16, seed=s).float().requires_grad_() for s in (0, 1))
        optimizer, generator = torch.optim.Adam([d1, d2], lr=3e-2), torch.Generator().manual_seed(0)
        for _ in range(300):
            m1, m2 = (draw_masks(4, 24, generator=generator) for _ in range(2))
            loss = comask_contrast(d1, d2, m1, m2, pairing=pairing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        a, b = normalize(d1.detach(), dim=-1), normalize(d2.detach(), dim=-1)
        table = a @ b.mT
        cosines[pairing] = table.diagonal(dim1=1, dim2=2).mean().item(), table.mean().item()
        ranks[pairing] = effective_rank(a[0])
    assert cosines["same"][0] > 0.95 and cosines["same"][1] < 0.2
    assert cosines["all"][0] > 0.95 and cosines["all"][1] > 0.95
    assert ranks["same"] > 10


def test_a_saved_state_gives_the_same_loss_and_evaluation_changes_nothing():
    model, fresh = build(), PointCMAE(8, 12, 16, heads=2)
    fresh.load_state_dict(model.state_dict())
    model.eval()
    losses = [m.loss(CLOUDS, generator=torch.Generator().manual_seed(0)).loss for m in (model, fresh)]
    assert torch.equal(*losses)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True))


def test_half_precision_and_autocast_stay_close():
    d1, d2 = D1.bfloat16().requires_grad_(), D2.bfloat16()
    loss = comask_contrast(d1, d2, M1, M2)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(d1.grad).all()
    assert torch.allclose(loss, comask_contrast(D1, D2, M1, M2).float(), rtol=0.02)
    model = build()
    right = model.loss(CLOUDS, generator=torch.Generator().manual_seed(0)).loss
    with torch.autocast("cpu", torch.bfloat16):
        low = model.loss(CLOUDS, generator=torch.Generator().manual_seed(0)).loss
    assert low.dtype == torch.float32 and torch.allclose(low, right, rtol=0.05)
    half = build().bfloat16()
    loss = half.loss(CLOUDS.bfloat16(), generator=torch.Generator().manual_seed(0)).loss
    loss.backward()
    assert torch.allclose(loss, right, rtol=0.2)
    assert all(torch.isfinite(p.grad).all() for p in half.parameters())


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: comask_contrast(D1, D2[:2], M1, M2), ValueError, "d2"),
        (lambda: comask_contrast(D1 * math.nan, D2, M1, M2), ValueError, "d1"),
        (lambda: comask_contrast(D1, D2, M1, M2[:2]), ValueError, "masks2"),
        (lambda: comask_contrast(D1, D2, M1.long(), M2), TypeError, "masks1"),
        (lambda: comask_contrast(D1, D2, M1, M2, pairing="other"), ValueError, "pairing"),
        (lambda: chamfer_distance(P, Q[:2]), ValueError, "true"),
        (lambda: chamfer_distance(P, Q[..., :2]), ValueError, "true"),
        (lambda: draw_masks(2, 4, 0.1), ValueError, "ratio"),
        (lambda: draw_masks(2, 4, 1.0), ValueError, "ratio"),
        (lambda: to_token_order(D1, M1[:2]), ValueError, "masks"),
        (lambda: draw_scale_and_shift(2, (0.0, 1.0)), ValueError, "scale"),
        (lambda: PointCMAE(pairing="other"), ValueError, "pairing"),
        (lambda: PointCMAE(contrast_weight=-1.0), ValueError, "contrast_weight"),
        (lambda: build().terms(CLOUDS[:2], torch.eye(8)[:2].cumsum(1) > 0, masks(2, 8, 0)), ValueError, "masks"),
        (lambda: build().loss(CLOUDS[0]), ValueError, "points"),
        (lambda: build().loss(torch.cat([CLOUDS, CLOUDS], 2)), ValueError, r"points: .* keep the coordinates"),
        (lambda: build()(CLOUDS.mT), ValueError, r"points: .* in the last dimension"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
