"""Verma et al. (2023): texts without a picture gather at the image of nothing."""

import copy
import math

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.crossmodal.visualness import (
    TIPCLIP,
    best_threshold,
    draw_null_image,
    loss_floor,
    macro_f1,
    majority_label,
    mine_sentences,
    tip_clip,
    tip_clip_terms,
    visualness,
)
from cl_teach.datasets.captions import CAPTION_WORDS, abstract_sentences, sprite_captions
from cl_teach.datasets.sprites import sprites
from cl_teach.evaluation import mean_reciprocal_rank
from cl_teach.models import MLP

IMAGE, TEXT, NULL = draw(6, 5), draw(6, 5, seed=1), draw(5, seed=2)
VISUAL = torch.tensor([True, False, True, False, False, True])
NONE, ALL = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
T = math.log(5)


def test_equals_the_loops():
    x = [normalize(IMAGE[i] if VISUAL[i] else NULL) for i in range(6)]
    t, i2t, t2i = normalize(TEXT), 0.0, 0.0
    for j in range(6):
        own = math.exp(5 * x[j] @ t[j])
        i2t -= math.log(own / sum(math.exp(5 * x[j] @ t[k]) for k in range(6))) / 6
        t2i -= math.log(own / sum(math.exp(5 * x[k] @ t[j]) for k in range(6))) / 6
    terms = tip_clip_terms(IMAGE, TEXT, NULL, VISUAL, T)
    assert terms.image_to_text.item() == pytest.approx(i2t) and terms.text_to_image.item() == pytest.approx(t2i)
    assert tip_clip(IMAGE, TEXT, NULL, VISUAL, T).item() == pytest.approx((i2t + t2i) / 2)


def test_without_non_visual_items_it_is_the_clip_loss_and_null_is_left_alone():
    null = NULL.clone().requires_grad_()
    loss = tip_clip(IMAGE, TEXT, null, ALL, T)
    assert torch.allclose(loss, clip_loss(IMAGE, TEXT, T))
    assert not torch.autograd.grad(loss, null)[0].any()


def test_one_non_visual_item_whose_image_is_null_is_the_clip_loss():
    one = ALL.clone()
    one[4] = False
    assert torch.allclose(tip_clip(IMAGE, TEXT, IMAGE[4], one, T), clip_loss(IMAGE, TEXT, T))


def test_images_of_non_visual_items_do_not_enter():
    image = IMAGE.clone().requires_grad_()
    (grad,) = torch.autograd.grad(tip_clip(image, TEXT, NULL, VISUAL, T), image)
    assert not grad[~VISUAL].any() and (grad[VISUAL].abs().sum(1) > 0).all()


def test_permuting_the_non_visual_texts_changes_nothing():
    order = torch.tensor([0, 4, 2, 1, 3, 5])
    for a, b in zip(
        tip_clip_terms(IMAGE, TEXT, NULL, VISUAL, T),
        tip_clip_terms(IMAGE, TEXT[order], NULL, VISUAL, T),
        strict=True,
    ):
        assert torch.allclose(a, b)


def test_a_batch_without_visual_items_says_nothing_to_the_texts_about_images():
    text = TEXT.clone().requires_grad_()
    terms = tip_clip_terms(IMAGE, text, NULL, NONE, T)
    assert terms.text_to_image.item() == pytest.approx(math.log(6)) and terms.image_to_text >= math.log(6)
    assert torch.autograd.grad(terms.text_to_image, text)[0].abs().max() < 1e-12
    rows = (5 * normalize(TEXT) @ normalize(NULL)).log_softmax(0)
    assert terms.image_to_text.item() == pytest.approx(-rows.mean().item())


def test_both_directions_stay_above_their_floor_and_a_perfect_space_reaches_it():
    assert loss_floor(VISUAL) == pytest.approx(0.5 * math.log(3)) and loss_floor(ALL) == 0
    for term in tip_clip_terms(IMAGE, TEXT, NULL, VISUAL, T):
        assert term > loss_floor(VISUAL)
    corners = torch.eye(5, dtype=torch.float64)
    places = torch.tensor([0, 4, 1, 4, 4, 2])
    for term in tip_clip_terms(corners[places], corners[places], corners[4], VISUAL, math.log(100)):
        assert term.item() == pytest.approx(loss_floor(VISUAL))


def test_the_single_non_visual_text_is_pulled_toward_null():
    one = ALL.clone()
    one[4] = False
    for seed in range(5):
        text = normalize(draw(6, 5, seed=10 + seed)).requires_grad_()
        loss = tip_clip_terms(IMAGE, text, NULL, one, T).text_to_image
        (grad,) = torch.autograd.grad(loss, text)
        # Moving against the gradient brings the text closer to NULL; its length does not matter.
        moved = normalize(text.detach() - 1e-4 * grad)
        assert moved[4] @ normalize(NULL) > text[4] @ normalize(NULL)


def test_score_is_0_at_null_1_across_and_2_opposite():
    across = torch.tensor([NULL[1], -NULL[0], 0, 0, 0], dtype=torch.float64)
    scores = visualness(torch.stack([3 * NULL, across, -NULL]), NULL)
    assert torch.allclose(scores, torch.tensor([0.0, 1.0, 2.0]).double(), atol=1e-12)


def test_gradcheck():
    scale = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    leaves = [x.clone().requires_grad_() for x in (IMAGE, TEXT, NULL)]
    assert torch.autograd.gradcheck(lambda i, t, n, s: tip_clip(i, t, n, VISUAL, s), (*leaves, scale))


def test_large_scales_and_zero_rows_stay_finite():
    text = torch.cat([torch.zeros(2, 5), torch.ones(4, 5)]).requires_grad_()
    loss = tip_clip(IMAGE.float(), text, torch.zeros(5), VISUAL, math.log(200))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(text.grad).all()


def test_mining_keeps_the_clear_sentences_and_finds_their_image():
    similarity = torch.tensor([[0.1, 0.4], [0.36, 0.2], [0.1, 0.17], [0.1, 0.3], [0.35, 0.0], [0.18, 0.0]])
    mined = mine_sentences(similarity)
    assert mined.kept.tolist() == [True, True, True, False, False, False]
    assert mined.is_visual.tolist() == [True, True] + [False] * 4
    assert mined.image[:2].tolist() == [1, 0]


def test_majorities_of_nine_raters():
    ratings = torch.tensor([[5, 6, 7, 5, 5, 1, 1, 1, 1], [1, 2, 3, 3, 3, 7, 7, 7, 7], [5, 5, 5, 5, 4, 3, 3, 3, 3]])
    kept, is_visual = majority_label(ratings)
    assert kept.tolist() == [True, True, False] and is_visual.tolist() == [True, False, False]


def test_f1_equals_scikit_learn_and_the_threshold_is_the_best_one():
    scores, truth = draw(80, seed=5), draw(80, seed=5) + draw(80, seed=6) > 0.3
    best = best_threshold(scores, truth)
    for threshold in (*torch.linspace(-3, 3, 61).tolist(), best):
        f1 = macro_f1(scores, truth, threshold)
        assert f1 == pytest.approx(f1_score(truth, scores > threshold, average="macro", zero_division=0))
        assert f1 <= macro_f1(scores, truth, best)
    assert macro_f1(scores, truth, best) > 0.6


SAID = ("shape", "color", "column", "row", "size")


def corpus(n, seed):
    generator = torch.Generator().manual_seed(seed)
    made = sprites(n, seed=seed, size=16)
    visual = torch.rand(n, generator=generator) < 0.35
    captions = sprite_captions(made.factors, SAID, generator=generator)
    others = abstract_sentences(n, SAID, generator=generator)
    return made.images, torch.where(visual[:, None], captions, others), visual


def tip(null=0):
    torch.manual_seed(0)
    see = nn.Sequential(nn.Flatten(), nn.LayerNorm(768), MLP([768, 128, 16], norm="none"))
    words = nn.EmbeddingBag(len(CAPTION_WORDS), 48, padding_idx=0)
    read = nn.Sequential(words, MLP([48, 64, 16], norm="none"))
    return TIPCLIP(see, read, draw_null_image((3, 16, 16), generator=torch.Generator().manual_seed(null)))


def train(method, null=0, steps=300):
    model, (images, texts, visual) = tip(null), corpus(2000, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator, above = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        rows = torch.randperm(2000, generator=generator)[:64]
        rows = rows[visual[rows]] if method == "visual only" else rows
        own = images[rows][visual[rows]]
        own = images[:1].expand_as(own) if method == "one image" else own
        loss = model.loss(own, texts[rows], visual[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        above.append(loss.item() - loss_floor(visual[rows]))
    images, texts, visual = corpus(1000, 100)
    scores = model.score(texts)
    rank = mean_reciprocal_rank(model.similarity(texts[visual], images[visual]), torch.arange(int(visual.sum())))
    return above, roc_auc_score(visual, scores), rank, scores, visual


def test_training_separates_the_texts_and_still_retrieves():
    above, auc, rank, scores, visual = train("tip")
    assert sum(above[-20:]) < 0.3 * sum(above[:20])  # what can be learned is the part above the floor
    assert auc > 0.98 and rank > 0.15
    theta = best_threshold(scores[:500], visual[:500])
    assert macro_f1(scores[500:], visual[500:], theta) > 0.95
    _, plain_auc, plain_rank, *_ = train("visual only")
    assert plain_auc < 0.9 and rank > 0.7 * plain_rank
    _, shared_auc, shared_rank, *_ = train("one image")
    assert shared_auc > 0.98 and shared_rank < 0.05


def test_another_null_image_serves_as_well():
    assert train("tip", null=1, steps=200)[1] > 0.97


def test_the_loss_takes_images_of_visual_items_or_of_all_and_the_null_embedding_moves():
    model, (images, texts, visual) = tip(), corpus(12, 1)
    before = model.null_embedding.detach()
    with torch.no_grad():
        padded = torch.zeros(12, 16).index_put((visual.nonzero()[:, 0],), model.image_tower(images[visual]))
        expected = tip_clip(padded, model.text_tower(texts), before, visual, model.log_scale)
    loss = model.loss(images[visual], texts, visual)
    assert torch.allclose(loss, expected) and torch.allclose(model(images, texts, visual), expected)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss.backward()
    optimizer.step()
    assert not torch.allclose(model.null_embedding, before)
    assert torch.isfinite(model.loss(images[:0], texts, torch.zeros(12, dtype=torch.bool)))
    model.log_scale.data.fill_(9.0)
    model.after_step()
    assert model.log_scale.item() == pytest.approx(math.log(100))


def test_saved_and_loaded_it_scores_the_same_and_a_loss_changes_nothing():
    (model, fresh), (images, texts, visual) = (tip(null) for null in (0, 1)), corpus(12, 1)
    fresh.load_state_dict(model.state_dict())
    before = copy.deepcopy(model.state_dict())
    (model.loss(images, texts, visual) + model.eval().loss(images, texts, visual)).backward()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(model.score(texts), fresh.score(texts))


def test_half_precision_meets_a_float32_null_image_and_autocast_works():
    exact = tip_clip(IMAGE, TEXT, NULL, VISUAL, T)
    assert abs(tip_clip(IMAGE.bfloat16(), TEXT.bfloat16(), NULL.float(), VISUAL, T) - exact) < 0.05
    model, (images, texts, visual) = tip(), corpus(12, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(images, texts, visual)
        assert torch.isfinite(model.score(texts)).all()
    assert found.dtype == torch.float32 and abs(found - model.loss(images, texts, visual)) < 0.1


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: tip_clip(IMAGE, TEXT[:5], NULL, VISUAL, T), ValueError, "text"),
        (lambda: tip_clip(IMAGE, TEXT, NULL[:4], VISUAL, T), ValueError, "null_image"),
        (lambda: tip_clip(IMAGE, TEXT, NULL, VISUAL.long(), T), TypeError, "is_visual"),
        (lambda: tip_clip(IMAGE, TEXT, NULL, VISUAL[:5], T), ValueError, "is_visual"),
        (lambda: tip_clip(IMAGE, TEXT * math.nan, NULL, VISUAL, T), ValueError, "text"),
        (lambda: tip_clip(IMAGE, TEXT, NULL, VISUAL, math.inf), ValueError, "log_scale"),
        (lambda: visualness(TEXT.long(), NULL), TypeError, "text"),
        (lambda: visualness(TEXT, NULL[:2]), ValueError, "null_image"),
        (lambda: mine_sentences(IMAGE, 0.1, 0.2), ValueError, "visual_above"),
        (lambda: majority_label(torch.tensor([[1, 8, 3]]), 2), ValueError, "ratings"),
        (lambda: majority_label(torch.ones(2, 9).long(), 4), ValueError, "needed"),
        (lambda: macro_f1(NULL, VISUAL, 0.5), ValueError, "is_visual"),
        (lambda: TIPCLIP(nn.Identity(), nn.Identity(), NULL, scale=0.0), ValueError, "scale"),
        (lambda: tip()(torch.rand(1, 3, 16, 16), torch.ones(3, 4, dtype=torch.int64), ALL[:3]), ValueError, "images"),
        (lambda: tip_clip(IMAGE, TEXT, NULL, VISUAL, 100.0), ValueError, "log_scale"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
