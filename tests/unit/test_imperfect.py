"""Long-tailed and noisily labeled versions of a set."""

import pytest
import torch

from cl_teach.datasets import ImageSet, digits, fashion_mnist, long_tailed, noisy_labels


def test_class_sizes_fall_geometrically_from_the_smallest_class_to_that_over_the_imbalance():
    sizes = torch.bincount(long_tailed(fashion_mnist(), 100.0).labels)
    expected = [round(1000 * 100 ** (-c / 9)) for c in range(10)]
    assert sizes.tolist() == expected


def test_imbalance_one_evens_out_the_classes():
    data = digits()
    assert torch.bincount(long_tailed(data, 1.0).labels).unique().tolist() == [int(torch.bincount(data.labels).min())]


def test_images_stay_with_their_labels_and_the_seed_chooses_them():
    data = digits()
    numbered = ImageSet(torch.arange(len(data.labels))[:, None].float(), data.labels, data.classes)
    a, b, c = (long_tailed(numbered, 20.0, seed=s) for s in (0, 0, 1))
    assert torch.equal(data.labels[a.images[:, 0].long()], a.labels)
    assert torch.equal(a.images, b.images)
    assert not torch.equal(a.images, c.images)


def test_exactly_the_rate_of_labels_is_wrong_and_spread_over_all_other_classes():
    labels = torch.arange(10).repeat(200)
    noisy = noisy_labels(labels, 10, 0.4, seed=3)
    assert (noisy != labels).sum() == 800
    table = torch.zeros(10, 10).index_put_((labels, noisy), torch.ones(2000), accumulate=True)
    assert (table > 0).all()
    assert torch.equal(noisy_labels(labels, 10, 0.0), labels)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: long_tailed(digits(), 0.5), "imbalance"),
        (lambda: long_tailed(ImageSet(torch.zeros(2, 1), torch.tensor([0, 0]), ("a", "b"))), "data"),
        (lambda: noisy_labels(torch.tensor([0, 1]), 2, 1.5), "rate"),
        (lambda: noisy_labels(torch.tensor([0, 5]), 2, 0.5), "labels"),
        (lambda: noisy_labels(torch.tensor([0, 0]), 1, 0.5), "num_classes"),
    ],
)
def test_refuses_what_makes_no_sense(call, word):
    with pytest.raises((TypeError, ValueError), match=word):
        call()
