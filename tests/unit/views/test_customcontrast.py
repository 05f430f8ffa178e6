"""Chen et al. (2024): comparing pictures of a subject instead of only redrawing them."""

import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize, nt_xent
from cl_teach.datasets import draw_subjects
from cl_teach.models.subject import Denoiser, SubjectReader, add_noise
from cl_teach.views.customcontrast import (
    CustomContrast,
    cscl,
    draw_clips,
    macl,
    macl_by_layer,
    negative_subject_weights,
    picture_similarity,
)

S = draw(2, 7, 4)
Y = torch.tensor([0, 1, 0, 2, 0, 1, 3])  # subjects 2 and 3 have one picture
R = torch.rand(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("similarity", [None, R])
def test_macl_equals_the_loops(similarity):
    z, tau, total = normalize(S), 0.3, 0.0
    for layer in z:
        anchors = []
        for i in range(7):
            P = [j for j in range(7) if j != i and Y[j] == Y[i]]
            N = [j for j in range(7) if Y[j] != Y[i]]
            scale = 1 if similarity is None else sum(1 - R[i, m] for m in N) / len(N)
            w = {n: 1 if similarity is None else (1 - R[i, n]) / scale for n in N}
            bottom = sum(w[n] * math.exp(layer[i] @ layer[n] / tau) for n in N)
            pairs = [math.exp(layer[i] @ layer[p] / tau) for p in P]
            if P:
                anchors.append(sum(-math.log(e / (e + bottom)) for e in pairs) / len(P))
        total += sum(anchors) / len(anchors) / 2
    assert macl(S, Y, tau, similarity=similarity).item() == pytest.approx(float(total), rel=1e-12)


def test_two_pictures_of_every_subject_are_nt_xent():
    z = draw(1, 10, 4)
    assert torch.allclose(macl(z, torch.arange(5).repeat(2), 0.3), nt_xent(z[0, :5], z[0, 5:], 0.3))


def test_cscl_is_the_clip_loss_and_symmetric():
    v, t = draw(5, 4), draw(5, 4, seed=1)
    assert torch.allclose(cscl(v, t, 0.3), clip_loss(v, t, -math.log(0.3)))
    assert torch.allclose(cscl(v, t), cscl(t, v))
    assert cscl(torch.ones(5, 4), torch.ones(5, 4)).item() == pytest.approx(math.log(5), rel=1e-6)


def test_a_constant_similarity_is_the_plain_loss_and_so_is_one_of_1():
    for value in (0.0, 0.4, 1.0):
        assert torch.allclose(macl(S, Y, similarity=torch.full_like(R, value)), macl(S, Y))


def test_weights_have_mean_one_over_the_negatives_and_no_gradient():
    weights = negative_subject_weights(R.clone().requires_grad_(), Y)
    negatives = Y[:, None] != Y
    assert torch.allclose(weights.sum(1), negatives.sum(1).double()) and not weights.requires_grad
    assert (weights[~negatives] == 0).all()


def test_a_similar_negative_is_repelled_less():
    def pull(r):
        similarity = torch.full((4, 4), 0.3, dtype=torch.float64)
        similarity[0, 2] = r
        negative = S[:1, 2:3].clone().requires_grad_()
        layers = torch.cat([S[:1, :2], negative, S[:1, 3:4]], 1)
        labels = torch.tensor([0, 0, 1, 2])
        z = normalize(layers)
        weights = negative_subject_weights(similarity, labels)
        p = weights[0] * (z[0, 0] @ z[0].T / 0.2).exp()
        loss = macl(layers, labels, similarity=similarity)
        return torch.autograd.grad(loss, negative)[0].norm(), p[2] / p.sum()

    strengths = [pull(r) for r in (0.0, 0.3, 0.6, 0.9)]
    assert all(a[1] > b[1] for a, b in zip(strengths, strengths[1:], strict=False))
    only_anchor_1 = pull(1.0)[0]  # picture 0 no longer repels, picture 1 still does
    assert 0 < only_anchor_1 < pull(0.3)[0]


def test_one_subject_gives_zero_with_zero_gradient():
    s = S.clone().requires_grad_()
    loss = macl(s, torch.zeros(7, dtype=torch.long), similarity=R)
    loss.backward()
    assert loss == 0 and (s.grad == 0).all()


def test_layers_are_averaged_in_any_order_and_gradients_are_orthogonal():
    s = S.clone().requires_grad_()
    loss = macl(s, Y, similarity=R)
    loss.backward()
    assert torch.allclose(macl(S.flip(0), Y, similarity=R), loss) and loss >= 0
    assert torch.allclose(macl_by_layer(S, Y)[1], macl(S[1:], Y))
    assert torch.allclose((s.grad * S).sum(2), torch.zeros(2, 7, dtype=torch.float64), atol=1e-12)


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda s: macl(s, Y, similarity=R), (S.clone().requires_grad_(),))
    v, t = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cscl(a, b, 0.3), (v, t))


def test_a_small_temperature_zeros_and_duplicates_stay_finite():
    s = torch.cat([S.float(), S.float()[:, :2], torch.zeros(2, 1, 4)], 1).requires_grad_()
    loss = macl(s, torch.cat([Y, torch.tensor([5, 1, 0])]), 0.005, similarity=torch.ones(10, 10))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(s.grad).all()


def test_bad_input_names_the_argument():
    with pytest.raises(ValueError, match="labels"):
        macl(S, torch.arange(7))
    with pytest.raises(ValueError, match="labels"):
        macl(S, Y[:5])
    with pytest.raises(ValueError, match="temperature"):
        macl(S, Y, 0.0)
    with pytest.raises(ValueError, match="similarity"):
        macl(S, Y, similarity=R + 1)
    with pytest.raises(TypeError, match="layers"):
        macl(S.long(), Y)
    with pytest.raises(ValueError, match="textual"):
        cscl(S[0], S[0, :5])
    with pytest.raises(ValueError, match="frames"):
        draw_clips(torch.zeros(4, 2, 1, 3))


def test_clips_hold_three_different_frames_of_every_subject():
    frames = torch.arange(5.0 * 4).reshape(5, 4, 1, 1)
    clips = draw_clips(frames, generator=torch.Generator().manual_seed(0))
    rows = torch.stack(clips).flatten(1)  # (3, 5)
    assert (rows // 4 == torch.arange(5)).all()
    assert all(len(column.unique()) == 3 for column in rows.T)


def test_noise_keeps_the_picture_at_time_0_and_replaces_it_at_time_1():
    x, noise = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    mixed = add_noise(x, noise, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(mixed, torch.stack([x[0], noise[1]]))


def test_similarity_of_pictures_is_between_0_and_1():
    similarity = picture_similarity(torch.cat([S, -S]))
    assert torch.allclose(similarity[0, [0, 2]], torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_the_whole_step_lowers_its_losses_and_leaves_the_frozen_parts_alone():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    pictures, _, _ = draw_subjects(12, 6, generator=generator)
    frames = pictures.reshape(12, 6, 4, 8)
    method = CustomContrast(nn.Linear(8, 8), SubjectReader(8), Denoiser(8))
    parts = (method.image_encoder, method.denoiser.body, method.denoiser.text)
    frozen = [p for part in parts for p in part.parameters()]
    before = [p.clone() for p in frozen]
    optimizer, history = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3), []
    for _ in range(200):
        rows = torch.randperm(12, generator=generator)[:8]
        terms = method.loss(frames[rows], torch.ones(8, 1, 8), generator=generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        history.append(terms)
    for name in ("diffusion", "cscl", "macl"):
        values = [getattr(terms, name).item() for terms in history]
        assert sum(values[-20:]) < 0.95 * sum(values[:20]), name
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))


def explained(z, v):
    """R^2 of a least-squares prediction of v, fitted on the even rows and tested on the odd ones."""
    z = torch.cat([z, torch.ones(len(z), 1)], 1)
    fit = torch.linalg.lstsq(z[::2], v[::2]).solution
    rest = v[1::2] - z[1::2] @ fit
    return 1 - (rest.square().sum() / (v[1::2] - v[1::2].mean(0)).square().sum()).item()


def test_contrast_removes_the_view_that_reconstruction_keeps():
    def run(contrast):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        pictures, s, v = draw_subjects(24, 80, generator=generator)
        similarity = (1 + normalize(s) @ normalize(s).T) / 2
        net = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 8))
        decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 32))
        optimizer = torch.optim.Adam([*net.parameters(), *decoder.parameters()], lr=2e-3)
        losses = []
        for _ in range(400):
            y = torch.randint(24, (32,), generator=generator).repeat(2)
            x = pictures[y, torch.randint(40, (64,), generator=generator)]
            z = net(x)
            if contrast:
                loss = macl(z[None], y, similarity=similarity[y][:, y].clamp(0, 1))
            else:
                loss = (decoder(z) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
        with torch.no_grad():
            seen, new = normalize(net(pictures[:, :40])), normalize(net(pictures[:, 40:]))
        nearest = (new.flatten(0, 1) @ normalize(seen.mean(1)).T).argmax(1)
        found = (nearest == torch.arange(24).repeat_interleave(40)).float().mean().item()
        return found, explained(new.flatten(0, 1), v[:, 40:].flatten(0, 1))

    (subject_ae, view_ae), (subject_cl, view_cl) = run(False), run(True)
    assert subject_cl > subject_ae + 0.2
    assert view_cl < view_ae - 0.4
