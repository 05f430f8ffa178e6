"""Kinakh et al. (2021): a fixed scattering front end, and a pretext task beside the contrast."""

import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.models.scattering import JigsawHead, Scattering, ScatteringAdapter, gabor, morlet, periodize
from cl_teach.views.scatsimclr import (
    ScatSimCLR,
    cut_tiles,
    distant_permutations,
    rotations,
    scatsimclr_terms,
    shuffle_tiles,
)

SCATTERING = Scattering((16, 16), scales=2, angles=4, dtype=torch.float64)
IMAGES = draw(3, 2, 16, 16)
Z1, Z2, LOGITS, TURNS = draw(4, 5), draw(4, 5, seed=1), draw(16, 4, seed=2), torch.arange(4).repeat(4)


def convolve(x, f):
    """Circular convolution as a sum of shifted images."""
    return sum(f[a, b] * x.roll((a, b), (0, 1)) for a in range(f.shape[0]) for b in range(f.shape[1]))


def test_one_scale_is_the_loop_over_wavelets_in_space():
    scattering = Scattering((8, 6), scales=1, angles=3, dtype=torch.float64)
    x = draw(8, 6)
    padded = F.pad(x[None, None], scattering.padding, mode="reflect")[0, 0]
    shape = tuple(padded.shape)
    assert shape == (12, 10)
    low = gabor(shape, 0.8).real
    maps = [convolve(padded, low)]
    for i in range(3):
        wave = morlet(shape, 0.8, (int(3 - 3 / 2 - 1) - i) * math.pi / 3, 0.75 * math.pi, 4 / 3)
        maps.append(convolve(convolve(padded.to(wave.dtype), wave).abs(), low))
    expected = torch.stack(maps)[:, ::2, ::2][:, 1:-1, 1:-1]
    assert torch.allclose(scattering(x[None, None])[0], expected, atol=1e-10)


@pytest.mark.parametrize(("scales", "angles"), [(1, 4), (2, 3), (3, 2)])
def test_number_and_size_of_the_maps(scales, angles):
    scattering = Scattering((28, 20), scales=scales, angles=angles)
    count = 1 + angles * scales + angles**2 * scales * (scales - 1) // 2
    assert scattering.maps == count
    assert scattering(torch.rand(2, 3, 28, 20)).shape == (2, 3 * count, 28 // 2**scales, 20 // 2**scales)


def test_channels_are_scattered_one_by_one():
    both = SCATTERING(IMAGES)
    for c in range(2):
        assert torch.allclose(both[:, 25 * c : 25 * (c + 1)], SCATTERING(IMAGES[:, c : c + 1]))


def test_wavelets_do_not_see_a_constant():
    s = SCATTERING(torch.full((1, 1, 16, 16), 3.0, dtype=torch.float64))[0]
    assert torch.allclose(s[0], torch.tensor(3.0).double(), rtol=1e-3)  # the gain is pi / 3.1415
    assert s[1:].abs().max() < 1e-10
    assert torch.allclose(SCATTERING(IMAGES + 5)[:, 1:25], SCATTERING(IMAGES)[:, 1:25], atol=1e-10)


def test_scale_passes_through_and_the_sign_only_to_the_low_pass():
    s, t = SCATTERING(IMAGES[:, :1]), SCATTERING(-2 * IMAGES[:, :1])
    assert torch.allclose(t[:, :1], -2 * s[:, :1]) and torch.allclose(t[:, 1:], 2 * s[:, 1:])
    assert (s[:, 1:] > 0).all()


def test_a_small_shift_changes_scattering_far_less_than_pixels():
    def change(f):
        x = draw(20, 1, 17, 17)
        a, b = f(x[..., 1:, 1:]), f(x[..., :-1, 1:])
        return ((a - b).abs().sum() / a.abs().sum()).item()

    assert change(SCATTERING) < 0.5 * change(lambda x: x)


def test_first_order_maps_tell_orientations_apart():
    wave = (torch.arange(16, dtype=torch.float64) * math.pi / 2).sin().expand(16, 16)
    s = SCATTERING(torch.stack([wave, wave.T])[:, None])[:, 1:5].mean((2, 3))
    assert s[0].argmax() != s[1].argmax()
    assert s.max(1).values.min() > 2 * s.median(1).values.max()


def test_there_are_no_parameters_and_the_gradient_reaches_the_images():
    assert not list(SCATTERING.parameters())
    scattering = Scattering((5, 5), scales=1, angles=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(scattering, draw(1, 1, 5, 5).requires_grad_())
    zero = torch.zeros(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    SCATTERING(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_periodizing_samples_the_filter_in_space():
    """Without frequencies above the new limit nothing is lost, so every second pixel is the new filter."""
    f = gabor((24, 16), 3.2).real
    spectrum = torch.fft.fft2(f).real
    space = torch.fft.ifft2(periodize(spectrum, 1)).real
    assert torch.allclose(space, 4 * f[::2, ::2], atol=1e-6)
    assert periodize(spectrum, 0) is spectrum


def test_highest_frequency_is_kept_on_the_negative_side_only():
    spectrum = torch.arange(1.0, 9.0, dtype=torch.float64).expand(8, 8)
    assert (periodize(spectrum, 1)[0] / periodize(spectrum, 1)[0, 0]).tolist() == [1, 2, 7, 8]


def test_rotations_are_clockwise_and_labeled_in_turn():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    turned, labels = rotations(torch.cat([image, image + 4]))
    assert turned[:4, 0].tolist() == [[[1, 2], [3, 4]], [[3, 1], [4, 2]], [[4, 3], [2, 1]], [[2, 4], [1, 3]]]
    assert torch.equal(turned[4:], turned[:4] + 4) and labels.tolist() == [0, 1, 2, 3] * 2


def test_tiles_are_thirds_read_row_by_row_and_enlarged():
    image = torch.arange(9.0).reshape(1, 1, 3, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)  # nine gray squares
    tiles = cut_tiles(image)
    assert tiles.shape == (1, 9, 1, 12, 12)
    assert torch.allclose(tiles[0, :, 0], torch.arange(9.0)[:, None, None].expand(9, 12, 12))
    odd = torch.arange(8.0).expand(1, 1, 8, 8)  # thirds at 2.67 and 5.33: whole pixels 0-1, 3-4, 6-7
    ends = cut_tiles(odd)[0, :3, 0].flatten(1)
    assert ends.amin(1).tolist() == pytest.approx([0, 3, 6]) and ends.amax(1).tolist() == pytest.approx([1, 4, 7])


def test_shuffling_puts_tiles_where_the_permutation_says_and_its_inverse_undoes_it():
    tiles = draw(3, 9, 1, 2, 2)
    orders = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(k)) for k in range(3)])
    shuffled = shuffle_tiles(tiles, orders)
    for i in range(3):
        for k in range(9):
            assert torch.equal(shuffled[i, k], tiles[i, orders[i, k]])
    assert torch.equal(shuffle_tiles(shuffled, orders.argsort(1)), tiles)


def test_chosen_permutations_are_farther_apart_than_random_ones():
    chosen = distant_permutations(35, generator=torch.Generator().manual_seed(0))
    assert chosen.shape == (35, 9) and torch.equal(chosen.sort(1).values, torch.arange(9).expand(35, 9))

    def least(p):
        distances = (p[:, None] != p).sum(2)
        return distances[~torch.eye(len(p), dtype=torch.bool)].min()

    random = torch.rand(35, 9, generator=torch.Generator().manual_seed(1)).argsort(1)
    assert least(chosen) >= 7 > least(random)


def test_jigsaw_head_shares_its_first_layer_and_knows_the_places():
    torch.manual_seed(0)
    head, h = JigsawHead(6, 5, hidden=8).eval(), torch.randn(3, 9, 6)
    expected = head.order(torch.cat([head.tile(h[:, k]) for k in range(9)], 1))
    assert torch.allclose(head(h), expected, atol=1e-6) and head(h).shape == (3, 5)
    assert not torch.allclose(head(h.flip(1)), head(h), atol=1e-3)


def test_loss_is_the_loop_over_views_and_rotations():
    z, total = F.normalize(torch.cat([Z1, Z2])), 0.0
    for i in range(8):
        s = [(z[i] @ z[j] / 0.5).item() for j in range(8)]
        total += math.log(sum(math.exp(s[j]) for j in range(8) if j != i)) - s[(i + 4) % 8]
    pretext = sum(LOGITS[i].exp().sum().log().item() - LOGITS[i, TURNS[i]].item() for i in range(16)) / 16
    terms = scatsimclr_terms(Z1, Z2, LOGITS, TURNS, 0.5, pretext_weight=0.3)
    assert terms.contrastive.item() == pytest.approx(total / 8) and terms.pretext.item() == pytest.approx(pretext)
    assert terms.loss.item() == pytest.approx(total / 8 + 0.3 * pretext)


def test_loss_is_symmetric_bounded_below_and_differentiable():
    terms = scatsimclr_terms(Z1, Z2, LOGITS, TURNS)
    assert torch.allclose(terms.loss, scatsimclr_terms(Z2, Z1, LOGITS, TURNS).loss)
    assert terms.contrastive > math.log(1 + 6 * math.exp(-2 / 0.5))
    leaves = [x.clone().requires_grad_() for x in (Z1, Z2, LOGITS)]
    assert torch.autograd.gradcheck(lambda a, b, c: scatsimclr_terms(a, b, c, TURNS).loss, leaves)


def test_low_temperature_zeros_and_duplicates_stay_finite():
    z1 = Z1.float()
    z1[0], z1[1] = 0, z1[2]
    z1.requires_grad_()
    loss = scatsimclr_terms(z1, Z2.float(), LOGITS.float(), TURNS, 0.005).loss
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z1.grad).all()


PERMUTATIONS = distant_permutations(6, generator=torch.Generator().manual_seed(0))


def as_it_is(images, generator):
    return images


def make(weight, permutations=None, dropout=0.5, augment=as_it_is, **options):
    torch.manual_seed(0)
    scattering = Scattering((16, 16))
    adapter = ScatteringAdapter(scattering.maps, width=16, blocks=1)
    options |= {"pretext_weight": weight, "permutations": permutations, "dropout": dropout}
    return ScatSimCLR(scattering, adapter, augment, **options)


def run(method, images, generator, steps, learning_rate=3e-3):
    """Train on batches that ``images`` makes; the terms of every step."""
    optimizer, found = torch.optim.Adam(method.train().parameters(), lr=learning_rate), []
    for _ in range(steps):
        terms = method.loss(images(), generator=generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        method.after_step()
        found.append([x.item() for x in terms])
    return torch.tensor(found)


def test_weight_zero_leaves_the_pretext_head_alone():
    for weight in (0.0, 0.3):
        method = make(weight)
        method.loss(IMAGES[:, :1].float()).loss.backward()
        assert (method.pretext[0].weight.grad.abs().max() > 0) == (weight > 0)
        assert method.adapter.layers[0].weight.grad.abs().max() > 0


def train(weight):
    generator = torch.Generator().manual_seed(0)
    templates = F.interpolate(torch.randn(24, 1, 5, 5, generator=generator), (16, 16), mode="bilinear")

    def augment(x, generator):
        return x + 0.2 * torch.randn(x.shape, generator=generator)

    def images():
        return templates[torch.randperm(24, generator=generator)[:12]]

    found = run(make(weight, augment=augment), images, generator, 80)
    return found[:10].mean(0), found[-10:].mean(0)


def test_training_lowers_the_contrast_and_the_weight_decides_about_the_pretext_task():
    first, last = train(0.3)
    _, without = train(0.0)
    assert last[0] < first[0] - 0.3 and last[1] < first[1] - 0.1
    assert last[2] < first[2] - 0.3 and last[2] < without[2] - 0.3


def test_jigsaw_step_is_the_loop_over_images():
    method = make(0.3, PERMUTATIONS).eval()
    images = IMAGES[:, :1].float()
    order = torch.randint(6, (3,), generator=torch.Generator().manual_seed(5))  # what the method draws
    terms = method.loss(images, generator=torch.Generator().manual_seed(5))
    losses = []
    for i in range(3):
        tiles = cut_tiles(images[i : i + 1])[0]
        features = torch.stack([method(tiles[p][None])[0] for p in PERMUTATIONS[order[i]].tolist()])
        losses.append(F.cross_entropy(method.pretext(features[None]), order[i : i + 1]).item())
    assert terms.pretext.item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    rotation = make(0.3).eval().loss(images)
    assert torch.allclose(terms.contrastive, rotation.contrastive)


def test_training_on_the_jigsaw_learns_where_tiles_belong():
    """Pictures share a slope of brightness, so the place of a tile shows in it; new pictures are scored."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 16)
    slope = 2 * ramp[:, None] + ramp

    def draw_images(n):
        return slope + 0.3 * F.interpolate(torch.randn(n, 1, 5, 5, generator=generator), (16, 16), mode="bilinear")

    def augment(x, generator):
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    def accuracy():
        order = torch.randint(6, (120,), generator=generator)
        tiles = shuffle_tiles(cut_tiles(draw_images(120)), PERMUTATIONS[order])
        with torch.no_grad():
            features = method.eval()(tiles.flatten(0, 1)).unflatten(0, (-1, 9))
            return (method.pretext(features).argmax(1) == order).float().mean().item()

    method = make(1.0, PERMUTATIONS, dropout=0.1, augment=augment)
    before = accuracy()
    found = run(method, lambda: draw_images(8), generator, 30, 5e-3)
    first, last = found[:5].mean(0), found[-5:].mean(0)
    assert last[0] < first[0] - 0.5 and last[2] < first[2] - 0.5
    assert before < 0.5 and accuracy() > 0.8


@pytest.mark.parametrize(
    ("call", "says", "error"),
    [
        (lambda: Scattering((4, 16)), "image_size", ValueError),
        (lambda: Scattering((16, 16), angles=0), "angles", ValueError),
        (lambda: SCATTERING(IMAGES[..., 1:]), "images: expected shape .n, c, 16, 16.", ValueError),
        (lambda: SCATTERING(IMAGES[0]), "images: expected shape", ValueError),
        (lambda: SCATTERING(IMAGES.long()), "images", TypeError),
        (lambda: gabor((4, 4), 0.0), "sigma", ValueError),
        (lambda: periodize(torch.ones(6, 8), 2), "spectrum", ValueError),
        (lambda: rotations(IMAGES[..., 1:]), "images.*side", ValueError),
        (lambda: scatsimclr_terms(Z1, Z2[:2], LOGITS, TURNS), "z2", ValueError),
        (lambda: scatsimclr_terms(Z1, Z2, LOGITS, TURNS + 1), "labels", ValueError),
        (lambda: scatsimclr_terms(Z1, Z2, LOGITS, TURNS.double()), "labels", TypeError),
        (lambda: scatsimclr_terms(Z1, Z2, LOGITS, TURNS, 0.0), "temperature", ValueError),
        (lambda: scatsimclr_terms(Z1, Z2, LOGITS, TURNS, 0.5, pretext_weight=-1.0), "pretext_weight", ValueError),
        (lambda: ScatteringAdapter(25, blocks=0), "blocks", ValueError),
        (lambda: cut_tiles(IMAGES[..., :2]), "images.*at least 3", ValueError),
        (lambda: shuffle_tiles(draw(2, 9, 1, 2, 2), PERMUTATIONS), "permutations: expected shape", ValueError),
        (lambda: shuffle_tiles(draw(6, 9, 1, 2, 2), PERMUTATIONS * 0), "permutations.*once", ValueError),
        (lambda: distant_permutations(35, candidates=20), "candidates", ValueError),
        (lambda: JigsawHead(0, 5), "feature_dim", ValueError),
        (lambda: make(0.3, PERMUTATIONS[:, :4]), r"permutations.*\(k, 9\)", ValueError),
        (lambda: make(0.3, PERMUTATIONS.float()), "permutations", TypeError),
        (lambda: make(0.3, warmup_steps=2.5), "warmup_steps", TypeError),
        (lambda: make(0.3).loss(IMAGES[:1, :1].float()), "at least 2 rows", ValueError),
    ],
)
def test_bad_input_is_named(call, says, error):
    with pytest.raises(error, match=says):
        call()
