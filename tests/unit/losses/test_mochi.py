"""Kalantidis et al. (2020): negatives mixed in feature space."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import info_nce, normalize
from cl_teach.losses.mochi import Mixture, draw_mixture, hardest_rows, mix, mochi

Q, K, QUEUE = draw(4, 6), draw(4, 6, seed=1), draw(20, 6, seed=2)
HARD = hardest_rows(Q, QUEUE, 5)
MIXTURE = draw_mixture(HARD, 7, 3, generator=torch.Generator().manual_seed(0))


def test_without_synthetic_points_it_is_mocos_loss():
    nothing = draw_mixture(HARD, 0, 0)
    assert torch.allclose(mochi(Q, K, QUEUE, nothing, 0.2), info_nce(Q, K, QUEUE, 0.2))


def test_every_added_point_raises_the_loss():
    losses = [
        mochi(Q, K, QUEUE, draw_mixture(HARD, s, s, generator=torch.Generator().manual_seed(0)), 0.2) for s in (0, 1, 8)
    ]
    assert losses == sorted(losses) and losses[0] < losses[2]


def test_hard_rows_are_the_most_similar_ones():
    s = normalize(Q) @ normalize(QUEUE).T
    for i in range(4):
        assert set(HARD[i].tolist()) == set(s[i].topk(5).indices.tolist())
        assert HARD[i].tolist() == sorted(HARD[i].tolist())


def test_draws_stay_inside_each_querys_own_set_and_repeat_with_the_seed():
    for rows in (MIXTURE.first, MIXTURE.second, MIXTURE.partner):
        assert all(set(r.tolist()) <= set(h.tolist()) for r, h in zip(rows, HARD, strict=True))
    assert (MIXTURE.beta <= 0.5).all()
    again = draw_mixture(HARD, 7, 3, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(MIXTURE, again, strict=True))


def test_points_have_unit_length_and_the_stated_similarity():
    pairs, with_query = mix(Q, QUEUE, MIXTURE)
    for points in (pairs, with_query):
        assert torch.allclose(points.norm(dim=-1), torch.ones(points.shape[:2], dtype=torch.float64))
    q, n = normalize(Q), normalize(QUEUE)
    c = (n[MIXTURE.partner] * q[:, None]).sum(-1)
    b = MIXTURE.beta.double()
    exact = (b + (1 - b) * c) / (b**2 + (1 - b) ** 2 + 2 * b * (1 - b) * c).sqrt()
    got = (with_query * q[:, None]).sum(-1)
    assert torch.allclose(got, exact)
    assert (got >= c - 1e-12).all() and (got <= ((1 + c) / 2).sqrt() + 1e-12).all()


def test_mixing_with_oneself_gives_a_queue_entry():
    same = MIXTURE._replace(second=MIXTURE.first)
    assert torch.allclose(mix(Q, QUEUE, same)[0], normalize(QUEUE)[MIXTURE.first])
    ends = MIXTURE._replace(alpha=torch.zeros(4, 7))
    assert torch.allclose(mix(Q, QUEUE, ends)[0], normalize(QUEUE)[MIXTURE.second])


def test_only_the_query_gets_a_gradient_and_it_is_the_stated_one():
    q = normalize(Q).requires_grad_()
    k, queue = normalize(K).requires_grad_(), normalize(QUEUE).requires_grad_()
    mochi(q, k, queue, MIXTURE, 0.2, reduction="sum").backward()
    assert k.grad is None and queue.grad is None
    with torch.no_grad():
        candidates = torch.cat([k[:, None], queue.expand(4, -1, -1), *mix(q, queue, MIXTURE)], 1)
        p = ((candidates @ q[..., None]).squeeze(-1) / 0.2).softmax(1)
        free = ((p[..., None] * candidates).sum(1) - k) / 0.2
        tangent = free - (free * q).sum(1, keepdim=True) * q  # the loss normalizes, so only the tangent part arrives
    assert torch.allclose(q.grad, tangent)


def test_permuting_the_queue_with_the_draws_changes_nothing():
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    where = order.argsort()
    moved = Mixture(where[MIXTURE.first], where[MIXTURE.second], MIXTURE.alpha, where[MIXTURE.partner], MIXTURE.beta)
    assert torch.allclose(mochi(Q, K, QUEUE[order], moved), mochi(Q, K, QUEUE, MIXTURE))


def test_row_numbers_of_any_width_and_half_precision_queries():
    narrow = Mixture(*(x if x.is_floating_point() else x.to(torch.uint8) for x in MIXTURE))
    assert torch.equal(mochi(Q, K, QUEUE, narrow), mochi(Q, K, QUEUE, MIXTURE))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mochi(Q.bfloat16(), K.float(), QUEUE.float(), MIXTURE)
    assert torch.allclose(loss, mochi(Q.bfloat16().float(), K.float(), QUEUE.float(), MIXTURE))


def test_opposite_partners_do_not_make_a_nan():
    queue = torch.stack([QUEUE[0], -QUEUE[0]])
    half = Mixture(
        torch.zeros(4, 1).long(),
        torch.ones(4, 1).long(),
        torch.full((4, 1), 0.5),
        torch.zeros(4, 0).long(),
        torch.zeros(4, 0),
    )
    assert torch.isfinite(mochi(Q, K, queue, half))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: hardest_rows(Q, QUEUE, 21), "count"),
        (lambda: hardest_rows(Q, QUEUE[:, :3], 2), "queue"),
        (lambda: draw_mixture(HARD, -1, 0), "mixed"),
        (lambda: mochi(Q, K[:2], QUEUE, MIXTURE), "key"),
        (lambda: mochi(Q, K, QUEUE, MIXTURE, 0.0), "temperature"),
        (lambda: mix(Q[:1], QUEUE, MIXTURE), "mixture.first"),
        (lambda: mix(Q, QUEUE[:3], MIXTURE), "mixture"),
        (lambda: mix(Q, QUEUE, MIXTURE._replace(beta=MIXTURE.beta + 0.5)), "mixture.beta"),
        (lambda: mochi(Q, K, QUEUE * math.nan, MIXTURE), "queue"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
