"""Generated preference pairs: one token decides, and it is where the data say. Pairs of docstrings."""

import pytest
import torch

from cl_teach.datasets.preferences import REJECTED, library_preferences, planted_preferences


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


def test_docstrings_give_every_kind_of_pair():
    data = library_preferences(80, 300, 4, 8)
    assert data.chosen.shape == data.rejected.shape == (80, 12) and len(data.words) == 300
    assert int(data.stream.max()) < 300 and int((data.stream == 0).sum()) > 300
    assert (data.chosen[:, 0] == 0).all() and torch.equal(data.chosen[:, :4], data.rejected[:, :4])
    assert (data.kind.bincount() == 20).all()
    assert torch.equal(data.changed, (data.chosen != data.rejected).sum(1))
    one, half, order, other = (data.kind == k for k in range(len(REJECTED)))
    assert data.changed[one].max() <= 1 and data.changed[half].max() <= 4
    assert torch.equal(data.chosen[order].sort(1).values, data.rejected[order].sort(1).values)
    wanted = {tuple(x) for x in data.chosen[:, 4:].tolist()}
    assert not wanted & {tuple(x) for x in data.rejected[other][:, 4:].tolist()}  # what one wants, none pushes down


def test_docstrings_repeat_with_the_seed_and_come_from_the_folder(tmp_path):
    a, b, c = (library_preferences(20, seed=seed).rejected for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    with pytest.raises(ValueError, match="prompt, response"):
        library_preferences(folder=tmp_path)


@pytest.mark.parametrize("bad", [{"n": 1}, {"vocabulary": 3}, {"response": 1}, {"prompt": 0}, {"seed": -1}])
def test_bad_pairs_of_docstrings_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        library_preferences(**bad)
