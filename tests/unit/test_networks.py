"""Generated networks, attributed interactions and bundles: the planted truth is really in them."""

import pytest
import torch

from cl_teach.datasets.networks import attributed_interactions, item_bundles, paper_network


def flat(data):
    for x in data:
        yield from x if isinstance(x, list) else [x]


def test_authors_tell_the_class_and_papers_hardly_do():
    data = paper_network(900, 300, paper_signal=0.3, author_signal=2.0)

    def explained(x, labels):  # share of the variance between the class means
        means = torch.stack([x[labels == c].mean(0) for c in range(3)])
        return ((means[labels] - x.mean(0)).square().sum() / (x - x.mean(0)).square().sum()).item()

    assert explained(data.papers, data.labels) < 0.03
    assert explained(data.authors, torch.arange(300) % 3) > 0.1


def test_links_stay_in_the_class_as_often_as_asked():
    data = paper_network(3000, 300, 12, inside=0.7, written_by=1)
    expected = 0.7 + 0.3 / 3
    for link in (data.writes, data.about):
        assert (link.sum(1) == 1).all()
        same = data.labels == link.argmax(1) % 3
        assert same.double().mean().item() == pytest.approx(expected, abs=0.03)
    assert paper_network(written_by=2).writes.sum(1).max() == 2


def test_liking_is_decided_by_the_informative_fields_alone():
    data = attributed_interactions(informative=2, fields=5)
    for i, j in ((0, 0), (3, 17), (100, 200), (399, 299)):
        agree = (data.user_fields[i, :2] == data.item_fields[j, :2]).all()
        assert data.liked[i, j] == agree
    assert data.liked.double().mean().item() == pytest.approx(1 / 16, abs=0.01)


def test_nobody_has_met_a_cold_item_and_everybody_met_liked_ones():
    data = attributed_interactions(met=3, cold=0.15)
    assert data.cold.sum() == 45 and not data.train[:, data.cold].any()
    assert not (data.train & ~data.liked).any()
    assert (data.train.sum(1) == (data.liked & ~data.cold).sum(1).clamp_max(3)).all()
    assert data.train.sum(1).max() == 3 and data.liked[:, data.cold].any()


def test_bundles_hold_different_items_of_one_style():
    data = item_bundles(bundles=60, held_out=40)
    assert len(data.train) == 60 and len(data.test) == 40
    for bundle in data.train + data.test:
        assert 4 <= len(bundle) <= 6 and len(bundle.unique()) == len(bundle)
        assert len(data.styles[bundle].unique()) == 1


def test_feedback_is_missing_for_cold_items_and_tells_the_style_of_the_others():
    data = item_bundles(cold=0.3)
    assert (~data.warm).sum() == 90 and (data.feedback[~data.warm] == 0).all()
    x = torch.nn.functional.normalize(data.feedback[data.warm])
    nearest = (x @ x.T).fill_diagonal_(-2).argmax(1)
    styles = data.styles[data.warm]
    assert (styles[nearest] == styles).double().mean() > 0.5  # chance is 1/12


@pytest.mark.parametrize("make", [paper_network, attributed_interactions, item_bundles])
def test_same_seed_same_data_other_seed_other_data(make):
    assert all(torch.equal(a, b) for a, b in zip(flat(make(seed=3)), flat(make(seed=3)), strict=True))
    other = zip(flat(make(seed=3)), flat(make(seed=4)), strict=True)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in other)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: paper_network(classes=20), "classes"),
        (lambda: paper_network(inside=1.2), "inside"),
        (lambda: paper_network(author_signal=-1.0), "author_signal"),
        (lambda: attributed_interactions(informative=7), "informative"),
        (lambda: attributed_interactions(cold=2.0), "cold"),
        (lambda: item_bundles(largest=40), "largest"),
        (lambda: item_bundles(rank=1000), "rank"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
