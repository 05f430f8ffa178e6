"""Drawn heartbeats: what belongs together is alike, level by level."""

import pytest
import torch

from cl_teach.datasets.series import few_patients, heart_beats


def test_shapes_ids_and_order():
    data = heart_beats(4, 3, 2, length=32)
    assert data.windows.shape == (24, 32, 1) and data.windows.dtype == torch.float32
    assert data.patients.tolist() == [p for p in range(4) for _ in range(6)]
    assert data.trials.tolist() == [t for t in range(12) for _ in range(2)]
    assert data.labels.tolist() == [p % 2 for p in range(4) for _ in range(6)]


def test_a_seed_fixes_everything_and_another_draws_other_patients():
    assert torch.equal(heart_beats(seed=3).windows, heart_beats(seed=3).windows)
    assert not torch.allclose(heart_beats(seed=3, noise=0.0).windows, heart_beats(seed=4, noise=0.0).windows, atol=0.1)


def test_distances_grow_from_window_to_trial_to_patient():
    data = heart_beats(noise=0.05)
    distance = torch.cdist(data.windows[..., 0], data.windows[..., 0])
    itself = torch.eye(len(distance), dtype=torch.bool)
    same_trial = data.trials[:, None] == data.trials
    same_patient = data.patients[:, None] == data.patients
    window = distance[same_trial & ~itself].mean()
    trial = distance[same_patient & ~same_trial].mean()
    patient = distance[~same_patient].mean()
    assert window < 0.8 * trial and trial < 0.8 * patient


def test_without_noise_all_windows_of_a_trial_are_one():
    windows = heart_beats(3, 2, 4, noise=0.0).windows.view(6, 4, 64)
    assert torch.equal(windows, windows[:, :1].expand_as(windows))


def test_illness_raises_the_st_segment_and_nothing_else():
    data = heart_beats(200, 1, 1, length=101, noise=0.0, st_shift=0.5)
    gap = data.windows[data.labels == 1].mean(0) - data.windows[data.labels == 0].mean(0)
    assert abs(gap[55, 0] - 0.5) < 0.1
    assert gap[:30].abs().max() < 0.1 and gap[85:].abs().max() < 0.1


def test_a_shift_moves_every_beat_by_its_own_share_of_the_window():
    still, moved = (heart_beats(1, 1, 200, length=101, noise=0.0, shift=s).windows[..., 0] for s in (0.0, 0.1))
    places = moved[:, 27:53].argmax(1) - still[:, 27:53].argmax(1)  # of the R wave, at 40 without a shift
    assert places.abs().max() <= 11 and places.min() < -7 and places.max() > 7
    aligned = torch.stack([row.roll(-int(k)) for row, k in zip(moved, places, strict=True)])
    assert ((aligned - still)[:, 20:70].abs().mean(1) < 0.1).all() and (moved - still)[:, 20:70].abs().mean() > 0.1


@pytest.mark.parametrize(
    "bad",
    [{"patients": 0}, {"trials": 0}, {"beats": 0}, {"length": 4}, {"noise": -1.0}, {"shift": 2.0}, {"wander": -1.0}],
)
def test_bad_input_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        heart_beats(**bad)


def test_wandering_moves_trials_and_leaves_the_beats_of_a_trial_alike():
    calm, wandering = (heart_beats(3, 4, 2, noise=0.0, wander=w).windows.view(3, 4, 2, 64) for w in (0.0, 5.0))
    assert torch.equal(wandering[:, :, 0], wandering[:, :, 1])
    between = [x.var(1).mean() for x in (calm, wandering)]
    assert between[1] > 10 * between[0]
    lines = (wandering - calm)[:, :, 0]  # the baseline alone: a sine and an offset
    assert lines[..., 1:].sub(lines[..., :-1]).abs().max() < 0.3


def test_few_patients_are_whole_and_as_many_ill_as_healthy():
    data = heart_beats(10, 2, 3)
    seen = set()
    for seed in range(8):
        rows = few_patients(data, 2, generator=torch.Generator().manual_seed(seed))
        assert len(rows) == 4 * 6 and (rows.diff() > 0).all()
        names = data.patients[rows].unique()
        assert len(names) == 4 and (names % 2).sum() == 2
        seen.add(tuple(names.tolist()))
    assert len(seen) > 4
    with pytest.raises(ValueError, match="per_class: expected at most 5"):
        few_patients(data, 6)
    with pytest.raises(TypeError, match="data"):
        few_patients(data.windows, 2)
