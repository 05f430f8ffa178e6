"""What every method of this part promises: it can be stopped and goes on, does not learn where it only looks, and takes
half precision.
"""

import copy
import io

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.models import (
    MLP,
    ClassCritic,
    ClassPairGate,
    ClassTranslator,
    Denoiser,
    Scattering,
    ScatteringAdapter,
    SubjectReader,
    TranslatorTrainer,
    VariationGenerator,
    foreground,
)
from cl_teach.views import adainf, cdvg, customcontrast, genview, hydra, mcl, pixpro, scatsimclr, sepclr

LABELS = torch.arange(8) % 3
IMAGES = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
COLORS = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
VECTORS, OTHERS = draw(8, 6, dtype=torch.float32), draw(8, 6, seed=1, dtype=torch.float32)


def flat(size, out=16):
    return nn.Sequential(nn.Flatten(), nn.Linear(size, out), nn.BatchNorm1d(out), nn.ReLU())


def shake(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator).to(x)


def gen_view(host):
    direction = foreground.fit_foreground(foreground.patch_tokens(IMAGES), torch.arange(9) != 4).direction
    patches = nn.Sequential(nn.Conv2d(1, 16, 4, 4), nn.BatchNorm2d(16), nn.Flatten(2))
    turned = nn.Sequential(patches, nn.Unflatten(2, (9,)), _Swap())
    return genview.GenView(flat(144), nn.Linear(16, 6), MLP([6, 8, 6]), turned, direction, host=host, gamma=3.0)


class _Swap(nn.Module):
    def forward(self, x):
        return x.mT


def scat_sim_clr():
    scattering = Scattering((12, 12))
    permutations = scatsimclr.distant_permutations(5, generator=torch.Generator().manual_seed(0))
    adapter = ScatteringAdapter(scattering.maps, width=8, blocks=1)
    return scatsimclr.ScatSimCLR(scattering, adapter, shake, warmup_steps=2, permutations=permutations)


def pix_pro(objective):
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    return pixpro.PixPro(encoder, 8, dim=6, hidden=8, objective=objective, total_steps=9, augment=shake)


METHODS = {
    "pixpro": (lambda: pix_pro("pixpro"), (COLORS,)),
    "pixcontrast": (lambda: pix_pro("contrast"), (COLORS,)),
    "scatsimclr": (scat_sim_clr, (IMAGES,)),
    "adainf": (lambda: adainf.AdaInf(flat(144), nn.Linear(16, 6)), (IMAGES, torch.arange(8))),
    "adainf-byol": (lambda: adainf.AdaInf(flat(144), nn.Linear(16, 6), MLP([6, 8, 6])), (IMAGES, torch.arange(8))),
    "genview-mocov3": (lambda: gen_view("mocov3"), (IMAGES, IMAGES.flip(0))),
    "genview-simsiam": (lambda: gen_view("simsiam"), (IMAGES, IMAGES.flip(0))),
    "cdvg": (lambda: cdvg.CDvG(flat(432), 16, 3, ClassTranslator(3, 3, width=4), augment=shake), (COLORS, LABELS)),
    "customcontrast": (
        lambda: customcontrast.CustomContrast(nn.Linear(6, 6), SubjectReader(6), Denoiser(6)),
        (draw(8, 4, 3, 6, dtype=torch.float32), draw(8, 2, 6, dtype=torch.float32)),
    ),
    "mcl": (lambda: mcl.Stage(MLP([6, 8, 4]), LABELS, augment=shake), (VECTORS, torch.arange(8))),
    "mcl-pairs": (lambda: mcl.PairStage(MLP([6, 8, 4]), MLP([6, 8, 4]), LABELS), (VECTORS, OTHERS, torch.arange(8))),
    "hydra": (lambda: hydra.Hydra(MLP([6, 8, 8]), 8, 3), (VECTORS, LABELS)),
    "hydra-product": (lambda: hydra.Hydra(MLP([6, 8, 8]), 8, 3, form="product"), (VECTORS, LABELS)),
    "hydra-two-view": (
        lambda: hydra.Hydra(MLP([6, 8, 8]), 8, 3, form="two_view", learned_scale=True),
        (VECTORS, LABELS, OTHERS),
    ),
    "sepclr": (lambda: sepclr.SepCLR(MLP([6, 8, 4]), MLP([6, 8, 4])), (VECTORS, OTHERS, LABELS % 2)),
    "variations": (lambda: VariationGenerator((1, 12, 12), dim=8, hidden=16), (IMAGES,)),
}


def make(name):
    torch.manual_seed(0)
    return METHODS[name][0]()


def first(result):
    return result[0] if isinstance(result, tuple) else result


def steps(method, optimizer, batch, generator, count):
    for _ in range(count):
        loss = first(method.loss(*batch, generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if hasattr(method, "after_step"):
            method.after_step()


def saved(state):
    """What comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same_state(a, b):
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other and (torch.equal(x, y) if isinstance(x, torch.Tensor) else str(x) == str(y)), name


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_training_goes_on_as_if_never_stopped(name):
    batch = METHODS[name][1]

    def optimizer_of(method):
        return torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2)

    torch.manual_seed(0)
    method, generator = make(name), torch.Generator().manual_seed(1)
    optimizer = optimizer_of(method)
    steps(method, optimizer, batch, generator, 3)
    states = saved([method.state_dict(), optimizer.state_dict()])
    draws, dropout = generator.get_state(), torch.get_rng_state()

    steps(method, optimizer, batch, generator, 3)
    torch.manual_seed(7)  # other weights than those that are loaded
    fresh = METHODS[name][0]()
    other = optimizer_of(fresh)
    fresh.load_state_dict(states[0])
    other.load_state_dict(states[1])
    torch.set_rng_state(dropout)
    steps(fresh, other, batch, torch.Generator().set_state(draws), 3)
    assert_same_state(method, fresh)


def test_a_saved_translator_goes_on_with_both_optimizers():
    def trainer():
        return TranslatorTrainer(ClassTranslator(3, 3, width=4), ClassCritic(3, 3, width=4), 3)

    torch.manual_seed(0)
    one, generator = trainer(), torch.Generator().manual_seed(0)
    for _ in range(3):
        one.step((COLORS, LABELS), generator=generator)
    state, draws = saved(one.state_dict()), generator.get_state()
    two = trainer()
    two.load_state_dict(state)
    found = [
        [method.step((COLORS, LABELS), generator=g).translator.item() for _ in range(3)]
        for method, g in ((one, generator), (two, torch.Generator().set_state(draws)))
    ]
    assert found[0] == found[1]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_looking_changes_nothing(name):
    method, batch = make(name).eval(), METHODS[name][1]
    before = copy.deepcopy(method)
    with torch.no_grad():
        a, b = (first(method.loss(*batch, generator=torch.Generator().manual_seed(0))) for _ in range(2))
    assert torch.equal(a, b)
    assert_same_state(before, method)


@pytest.mark.parametrize("name", METHODS)
def test_two_losses_before_one_backward_have_the_gradient_of_their_sum(name):
    batch = METHODS[name][1]
    together, apart = make(name).eval(), make(name).eval()
    sum(first(together.loss(*batch, generator=torch.Generator().manual_seed(k))) for k in range(2)).backward()
    for k in range(2):
        first(apart.loss(*batch, generator=torch.Generator().manual_seed(k))).backward()
    for a, b in zip(together.parameters(), apart.parameters(), strict=True):
        assert a.grad is b.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_under_autocast_and_with_weights_in_half_precision_the_loss_is_close(name):
    method, batch = make(name), METHODS[name][1]

    def loss(module):
        torch.manual_seed(0)
        return first(module.loss(*batch, generator=torch.Generator().manual_seed(0)))

    method.eval()
    right = loss(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        automatic = loss(method)
    automatic.backward()
    assert automatic.dtype == torch.float32
    half = loss(copy.deepcopy(method).to(torch.bfloat16))
    for got in (automatic, half):
        assert got.item() == pytest.approx(right.item(), rel=0.1, abs=0.15)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


Z1, Z2, WIDE = draw(6, 5), draw(6, 5, seed=1), draw(6, 3, seed=2)
MAPS = [draw(3, 4, 2, 2, seed=k) for k in range(4)]
TOKENS = [draw(5, 9, 6, seed=k) for k in range(2)]
CLASSES = torch.tensor([0, 1, 0, 2, 1, 0])
CELLS = draw(3, 4, 4, seed=9) > 0.5
LOSSES = {
    "pixpro": lambda m: pixpro.pixpro(*m(MAPS), CELLS),
    "pix_contrast": lambda m: pixpro.pix_contrast(*m(MAPS), CELLS),
    "propagate_cells": lambda m: pixpro.propagate_cells(*m(MAPS[:2])).square().mean(),
    "scatsimclr": lambda m: scatsimclr.scatsimclr_terms(*m([Z1, Z2, WIDE]), CLASSES).loss,
    "adainf": lambda m: adainf.nt_xent_with_ids(*m([Z1, Z2]), CLASSES),
    "moco": lambda m: genview.weighted_moco_loss(*m([Z1, Z2, Z2, Z1]), torch.ones(6), 0.5),
    "simsiam": lambda m: genview.weighted_simsiam_loss(*m([Z1, Z2, Z2 + Z1, Z1 - Z2]), torch.ones(6)),
    "quality": lambda m: genview.pair_quality(*m(TOKENS), draw(6, seed=3).float()).quality.mean(),
    "cdvg": lambda m: cdvg.cdvg_loss(*m([Z1, Z2, WIDE, WIDE + 1]), CLASSES).loss,
    "macl": lambda m: customcontrast.macl(*m([Z1[None]]), CLASSES, similarity=torch.full((6, 6), 0.3)),
    "cscl": lambda m: customcontrast.cscl(*m([Z1, Z2])),
    "mcl": lambda m: mcl.mcl_nt_xent(*m([Z1, Z2]), CLASSES),
    "mcl_clip": lambda m: mcl.mcl_clip(*m([Z1, Z2]), CLASSES),
    "hydra": lambda m: hydra.partner_contrast(hydra.gated_cosine(*m([Z1, Z2.sigmoid()])), CLASSES, CLASSES.roll(1)),
    "sepclr": lambda m: sepclr.sepclr(*m([Z1, Z2, WIDE, WIDE + 1]), CLASSES % 2).loss,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_half_precision_are_those_of_the_rounded_numbers(name, dtype):
    right = LOSSES[name](lambda tensors: [x.to(dtype).float() for x in tensors])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = LOSSES[name](lambda tensors: [x.to(dtype) for x in tensors])
        mixed = LOSSES[name](lambda tensors: [tensors[0].to(dtype), *(x.to(dtype).float() for x in tensors[1:])])
    assert got.dtype == mixed.dtype == torch.float32
    assert torch.allclose(got, right, rtol=1e-5, atol=1e-6) and torch.allclose(mixed, right, rtol=1e-5, atol=1e-6)


def test_an_image_without_positive_cell_has_a_gradient_of_zero_in_float16():
    maps = [x.half().requires_grad_() for x in MAPS]
    cells = CELLS.clone()
    cells[1] = False
    pixpro.pixpro(*maps, cells).backward()
    assert torch.isfinite(maps[0].grad).all() and not maps[0].grad[1].any() and maps[0].grad[0].any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_every_integer_type_give_the_same(dtype):
    y, p = CLASSES, CLASSES.roll(1)
    torch.manual_seed(0)
    gate = ClassPairGate(3, 4).eval()
    similarity = Z1 @ Z1.T
    calls = [
        lambda f: scatsimclr.scatsimclr_terms(Z1, Z2, WIDE, f(y)).loss,
        lambda f: adainf.nt_xent_with_ids(Z1, Z2, f(y)),
        lambda f: cdvg.cdvg_loss(Z1, Z2, WIDE, WIDE, f(y)).loss,
        lambda f: customcontrast.macl(Z1[None], f(y)),
        lambda f: mcl.mcl_nt_xent(Z1, Z2, f(y)),
        lambda f: mcl.mcl_clip(Z1, Z2, f(y)),
        lambda f: hydra.partner_contrast(similarity, f(y), f(p)),
        lambda f: hydra.draw_partners(f(y), 3, "distinct", generator=torch.Generator().manual_seed(0)).double(),
        lambda f: gate(f(y), f(p)),
        lambda f: sepclr.sepclr(Z1, Z2, WIDE, WIDE, f(y % 2)).loss,
    ]
    for call in calls:
        assert torch.equal(call(lambda x: x.to(dtype)), call(lambda x: x))


def test_pooling_does_not_spread_a_mask_over_other_samples():
    with pytest.raises(ValueError, match="mask"):
        genview.pool_patches(draw(5, 1, 6), draw(5, 9))


def test_scatsimclr_begins_the_pretext_task_after_its_warmup():
    method = scat_sim_clr()
    weights = []
    for _ in range(4):
        terms = method.loss(IMAGES, generator=torch.Generator().manual_seed(0))
        weights.append(((terms.loss - terms.contrastive) / terms.pretext).item())
        method.after_step()
    assert weights == pytest.approx([0, 0, 0.3, 0.3], abs=1e-5)


@pytest.mark.parametrize("form", ["cosine", "product", "two_view"])
def test_hydra_computes_the_form_it_is_asked_for(form):
    torch.manual_seed(0)
    options = {"form": form, "embedding_dim": 5, "gate_hidden": 7, "width": 4}
    method = hydra.Hydra(nn.Linear(6, 8), 8, 3, **options).eval()
    assert method.gate.embedding.weight.shape == (3, 5) and method.gate.first.weight.shape == (7, 5)
    partners = LABELS.roll(1)
    z, keys = (method.projector(method.backbone(x)) for x in (VECTORS, OTHERS))
    gate = method.gate(LABELS, partners)
    if form == "cosine":
        similarity, average = hydra.gated_cosine(z, gate), "pair"
    elif form == "product":
        similarity, average = hydra.gated_product(z, gate), "pair"
    else:
        similarity, average = hydra.gated_product(z, gate, keys), "anchor"
    expected = hydra.partner_contrast(similarity, LABELS, partners, 0.1, average=average)
    second = OTHERS if form == "two_view" else None
    assert torch.allclose(method.compare(VECTORS, LABELS, partners, second).contrast, expected)
    assert torch.allclose(method(VECTORS, LABELS, partners), gate * z)
    with pytest.raises(ValueError, match="second"):
        method.compare(VECTORS, LABELS, partners, None if form == "two_view" else OTHERS)


def test_frozen_parts_stay_in_evaluation_mode():
    assert not gen_view("mocov3").train().patches.training
    assert not make("cdvg").train().translator.training
    assert not make("customcontrast").train().image_encoder.training
