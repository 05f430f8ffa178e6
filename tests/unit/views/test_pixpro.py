"""Xie et al. (2021): cells at the same place of the image are positives."""

import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.core.crop_geometry import (
    cell_centers,
    crop,
    draw_boxes,
    positive_cells,
)
from cl_teach.views.pixpro import (
    PixelPropagation,
    PixPro,
    momentum_at,
    pix_contrast,
    pixpro,
    propagate_cells,
)

X1, X2, K1, K2 = (draw(3, 4, 2, 3, seed=s) for s in range(4))
BOX1 = torch.tensor([[0.0, 0.0, 0.6, 0.5], [0.2, 0.1, 0.9, 0.8], [0.0, 0.0, 0.2, 0.2]], dtype=torch.float64)
BOX2 = torch.tensor([[0.1, 0.1, 0.7, 0.6], [0.8, 0.2, 0.3, 0.9], [0.6, 0.6, 0.9, 0.9]], dtype=torch.float64)
A = positive_cells(BOX1, BOX2, 2, 3)


def test_positive_cells_equal_a_loop_over_pairs():
    for n in range(3):
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = BOX1[n].tolist(), BOX2[n].tolist()
        unit = max(math.hypot((ax1 - ax0) / 3, (ay1 - ay0) / 2), math.hypot((bx1 - bx0) / 3, (by1 - by0) / 2))
        for i in range(6):
            for j in range(6):
                x = ax0 + (i % 3 + 0.5) * (ax1 - ax0) / 3 - bx0 - (j % 3 + 0.5) * (bx1 - bx0) / 3
                y = ay0 + (i // 3 + 0.5) * (ay1 - ay0) / 2 - by0 - (j // 3 + 0.5) * (by1 - by0) / 2
                assert bool(A[n, i, j]) == (math.hypot(x, y) / unit < 0.7)
    assert A[0].any() and A[1].any() and not A[2].any()


def test_losses_equal_loops_over_cells():
    values = {"pixpro": 0.0, "contrast": 0.0}
    for x, k, mask in ((X1, K2, A), (X2, K1, A.mT)):
        for n in range(3):
            cosine = normalize(x[n].flatten(1).T) @ normalize(k[n].flatten(1).T).T
            pairs = [cosine[i, j] for i in range(6) for j in range(6) if mask[n, i, j]]
            values["pixpro"] += -2 * sum(pairs) / (len(pairs) + 1e-6) / 3
            cells = []
            for i in range(6):
                e = (cosine[i] / 0.3).exp()
                if mask[n, i].any():
                    cells.append(-(e[mask[n, i]].sum() / e.sum()).log())
            values["contrast"] += sum(cells) / max(len(cells), 1) / 3 / 2
    assert torch.allclose(pixpro(X1, X2, K1, K2, A), values["pixpro"])
    assert torch.allclose(pix_contrast(X1, X2, K1, K2, A), values["contrast"])


def test_propagation_equals_a_loop_over_cells():
    g = draw(3, 4, 2, 3, seed=9)
    y = propagate_cells(X1, g, gamma=1.5)
    for n in range(3):
        x, h = normalize(X1[n].flatten(1).T), normalize(g[n].flatten(1).T)
        for i in range(6):
            mixed = sum(max(float(x[i] @ x[j]), 0.0) ** 1.5 * h[j] for j in range(6))
            assert torch.allclose(y[n].flatten(1)[:, i], mixed / mixed.norm())


def test_same_crop_twice_matches_each_cell_with_itself_and_reaches_the_minimum():
    same = positive_cells(BOX1, BOX1, 2, 3, 0.5)
    assert torch.equal(same, torch.eye(6, dtype=torch.bool).expand(3, 6, 6))
    assert pixpro(X1, X2, X2, X1, same).item() == pytest.approx(pixpro(X2, X1, X1, X2, same).item())
    assert pixpro(X1, X1, X1, X1, same).item() == pytest.approx(-4, abs=1e-5)
    assert pixpro(X1, X1, -X1, -X1, same).item() == pytest.approx(4, abs=1e-5)


def test_mirroring_a_view_with_its_box_changes_nothing():
    mirrored = positive_cells(BOX1, BOX2[:, [2, 1, 0, 3]], 2, 3)
    for loss in (pixpro, pix_contrast):
        assert torch.allclose(loss(X1, X2.flip(3), K1, K2.flip(3), mirrored), loss(X1, X2, K1, K2, A))


def test_positives_are_symmetric_and_grow_to_all_with_the_threshold():
    assert torch.equal(positive_cells(BOX2, BOX1, 2, 3), A.mT)
    assert positive_cells(BOX1, BOX2, 2, 3, 1e6).all()
    assert not (A & ~positive_cells(BOX1, BOX2, 2, 3, 1.0)).any()


@pytest.mark.parametrize("loss", [pixpro, pix_contrast])
def test_crops_without_overlap_cost_nothing_and_have_no_gradient(loss):
    x1 = X1.clone().requires_grad_()
    value = loss(x1, X2, K1, K2, torch.zeros_like(A))
    value.backward()
    assert value.item() == 0 and not x1.grad.any()


@pytest.mark.parametrize("loss", [pixpro, pix_contrast])
def test_an_image_without_overlap_stays_in_the_mean(loss):
    without = loss(X1[:2], X2[:2], K1[:2], K2[:2], A[:2])
    assert torch.allclose(loss(X1, X2, K1, K2, A), without * 2 / 3)


def test_contrast_is_zero_when_all_cells_are_positive():
    assert abs(pix_contrast(X1, X2, K1, K2, torch.ones_like(A)).item()) < 1e-12


@pytest.mark.parametrize("loss", [pixpro, pix_contrast])
def test_scale_of_maps_does_not_matter(loss):
    assert torch.allclose(loss(3 * X1, X2, K1, 0.1 * K2, A), loss(X1, X2, K1, K2, A))


def test_gamma_interpolates_between_one_value_for_all_cells_and_each_cell_itself():
    x = X1.abs()  # all similarities positive
    flat = propagate_cells(x, X2, gamma=0.0).flatten(2)
    assert torch.allclose(flat, flat[:, :, :1].expand_as(flat))
    assert torch.allclose(propagate_cells(x, X2, gamma=1e6), normalize(X2, dim=1))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradient_passes_through_both_sides_of_the_propagation(gamma):
    x, g = X1[:2].clone().requires_grad_(), X2[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: propagate_cells(a, b, gamma=gamma), (x, g))


@pytest.mark.parametrize("loss", [pixpro, pix_contrast])
def test_gradient_is_right_and_keys_are_constants(loss):
    x1, x2 = X1.clone().requires_grad_(), X2.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, K1, K2, A), (x1, x2))
    key = K1.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(x1, x2, key, K2, A), key, allow_unused=True)
    assert g is None


def test_zero_and_equal_cells_and_a_low_temperature_stay_finite():
    x = X1.float().clone()
    x[0] = 0
    x[1] = x[1, :, :1, :1]
    x.requires_grad_()
    k = X2.float()
    y = propagate_cells(x, x, gamma=0.5)
    loss = pixpro(y, y, k, k, A) + pix_contrast(x, x, k, k, A, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all()


def test_propagation_averages_noise_away_within_segments_and_keeps_them_apart():
    means = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]], dtype=torch.float64)
    segment = (torch.arange(64) % 8 >= 4).long()
    clean = means[segment].T.reshape(1, 4, 8, 8)
    x = clean + 0.1 * draw(1, 4, 8, 8)
    y = PixelPropagation(4, layers=0, gamma=4.0)(x)

    def spread(maps):
        cells = normalize(maps.flatten(2)[0].T)
        return sum((cells[segment == s] - cells[segment == s].mean(0)).square().sum(1).mean() for s in (0, 1)).item()

    assert spread(y) < spread(x) / 10
    cells = y.flatten(2)[0].T
    assert (cells[segment == 0] @ cells[segment == 1].T).mean() < 0.2


def test_a_crop_shows_the_place_its_box_names():
    x = (torch.arange(32).double() + 0.5) / 32
    images = torch.stack([x.expand(32, 32), x[:, None].expand(32, 32)]).expand(5, 2, 32, 32)  # pixel = its place
    boxes = 0.1 + 0.8 * draw_boxes(5, generator=torch.Generator().manual_seed(3)).double()
    assert (boxes[:, 0] > boxes[:, 2]).any() and (boxes[:, 0] < boxes[:, 2]).any()
    found = crop(images, boxes, 6, 7)
    assert torch.allclose(found.flatten(2).mT, cell_centers(boxes, 6, 7))


def test_drawn_boxes_lie_in_the_image_and_have_the_asked_area():
    boxes = draw_boxes(500, (0.2, 0.4), flip=0.25, generator=torch.Generator().manual_seed(0))
    area = (boxes[:, 2] - boxes[:, 0]).abs() * (boxes[:, 3] - boxes[:, 1])
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert area.min() > 0.2 - 1e-5 and area.max() < 0.4 + 1e-5
    assert 0.15 < (boxes[:, 0] > boxes[:, 2]).float().mean() < 0.35


def test_momentum_rises_from_its_start_to_one():
    values = [momentum_at(k, 10, 0.9) for k in range(11)]
    assert values[0] == pytest.approx(0.9) and values[5] == pytest.approx(0.95) and values[10] == 1
    assert values == sorted(values)


def scenes(n, generator):
    """Two colored halves, split at a random column, under noise; and the half of each cell of an 8x8 map."""
    split = torch.randint(4, 13, (n, 1), generator=generator)
    label = (torch.arange(16) >= split).long()[:, None].expand(n, 16, 16)
    colors = torch.rand(n, 2, 3, generator=generator)
    images = colors[torch.arange(n)[:, None, None], label].permute(0, 3, 1, 2)
    return images + 0.1 * torch.randn(n, 3, 16, 16, generator=generator), label[:, ::2, ::2]


def train(objective, steps=80):
    generator = torch.Generator().manual_seed(0)
    images, _ = scenes(64, generator)
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    model = PixPro(encoder, 16, dim=16, hidden=32, objective=objective, momentum=0.9, total_steps=steps)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        rows = torch.randperm(64, generator=generator)[:32]
        loss = model.loss(images[rows], generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    assert model.teacher.momentum == 1  # after the last step
    return model, losses


def pair_cosines(model):
    """Mean cosine of pairs of cells of one image, within a half and across halves."""
    images, label = scenes(64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        z = normalize(model.eval().online(images).flatten(2).mT)
    same = label.flatten(1)[:, :, None] == label.flatten(1)[:, None]
    cosine = z @ z.mT
    return cosine[same].mean().item(), cosine[~same].mean().item()


def test_training_lowers_the_loss_and_pixpro_is_smoother_within_a_segment_than_pixcontrast():
    smooth, smooth_losses = train("pixpro")
    sharp, sharp_losses = train("contrast")
    for losses in (smooth_losses, sharp_losses):
        assert sum(losses[-10:]) < sum(losses[:10]) - 1
    assert pair_cosines(smooth)[0] > pair_cosines(sharp)[0] + 0.05


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cell_centers(BOX1[:, :3], 2, 2), "boxes.*\\(n, 4\\)"),
        (lambda: positive_cells(BOX1, BOX2[:2], 2, 2), "boxes2: expected shape"),
        (lambda: positive_cells(BOX1, BOX2[:, [0, 1, 0, 3]], 2, 2), "boxes2.*area"),
        (lambda: positive_cells(BOX1, BOX2, 2, 3, 0.0), "threshold"),
        (lambda: propagate_cells(X1, X2, gamma=-1.0), "gamma"),
        (lambda: propagate_cells(X1, X2[:, :, :1]), "transformed"),
        (lambda: propagate_cells(X1, X2, clamp=2.0), "clamp"),
        (lambda: pixpro(X1, X2[:2], K1, K2, A), "y2: expected shape"),
        (lambda: pixpro(X1, X2, K1, K2, A[:, :3]), "positives"),
        (lambda: pix_contrast(X1, X2, K1, K2, A, 0.0), "temperature"),
        (lambda: draw_boxes(4, (0.5, 0.3)), "scale"),
        (lambda: crop(X1, BOX1[:2], 4, 4), "boxes: expected shape"),
        (lambda: momentum_at(11, 10), "step"),
        (lambda: PixelPropagation(4, layers=2), "layers"),
        (lambda: PixPro(nn.Identity(), 3, objective="pixel"), "objective"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_positives_must_be_boolean():
    with pytest.raises(TypeError, match="positives"):
        pixpro(X1, X2, K1, K2, A.int())
