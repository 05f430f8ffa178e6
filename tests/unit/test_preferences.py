"""Generated preference pairs: one token decides, and it is where the data say."""

import pytest
import torch

from cl_teach.datasets.preferences import planted_preferences


def test_the_marker_is_at_the_key_and_the_deciding_token_after_it():
    data, rows = planted_preferences(300), torch.arange(300)
    for tokens, key, decides in ((data.chosen, data.key_chosen, 2), (data.rejected, data.key_rejected, 3)):
        assert tokens.shape == (300, 11) and (tokens[:, 0] == 0).all()
        assert (tokens[rows, key] == 1).all() and (tokens[rows, key + 1] == decides).all()
        assert ((tokens < 4).sum(1) == 3).all()  # start, marker, and the token that decides
        assert set(key.tolist()) == set(range(1, 10))


def test_words_say_nothing_about_the_preference():
    data = planted_preferences(4000)
    counts = torch.stack([x.flatten().bincount(minlength=20)[4:].double() for x in (data.chosen, data.rejected)])
    assert (counts[0] / counts[1] - 1).abs().max() < 0.15


def test_as_many_pairs_are_exchanged_as_asked():
    plain, data = planted_preferences(200, seed=3), planted_preferences(200, flipped=0.3, seed=3)
    assert data.flipped.sum() == 60 and not plain.flipped.any()
    assert torch.equal(data.chosen[data.flipped], plain.rejected[data.flipped])
    assert torch.equal(data.chosen[~data.flipped], plain.chosen[~data.flipped])
    assert (data.chosen.gather(1, data.key_chosen[:, None]) == 1).all()


def test_one_seed_gives_one_data_set():
    assert torch.equal(planted_preferences(5).chosen, planted_preferences(5).chosen)
    assert not torch.equal(planted_preferences(5).chosen, planted_preferences(5, seed=1).chosen)


@pytest.mark.parametrize("bad", [{"n": 0}, {"vocabulary": 4}, {"length": 1}, {"flipped": 1.5}])
def test_bad_input_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        planted_preferences(**bad)
