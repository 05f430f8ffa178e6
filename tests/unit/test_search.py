"""Search without gradients."""

import pytest
import torch

from cl_teach.core.search import first_simplex, nelder_mead

START = torch.tensor([[0.0, 0.0], [0.4, 0.1], [0.1, 0.5]]).double()
CENTER = torch.tensor([0.6, 0.65]).double()


def bowl(point):
    return ((point - CENTER) ** 2).sum().item() + 0.5 * ((point - CENTER).prod()).item()


def run(objective=bowl, simplex=START, **settings):
    return nelder_mead(objective, simplex, **{"max_evaluations": 60, "cache_tolerance": 1e-9, **settings})


def test_it_finds_the_bottom_and_the_best_vertex_never_gets_worse():
    found = run(tolerance=1e-9)
    assert (found.best - CENTER).abs().max() < 0.01
    best = [bowl(simplex[0]) for simplex in found.simplices]
    assert best == sorted(best, reverse=True)
    assert all(sorted(map(bowl, s)) == [bowl(x) for x in s] for s in found.simplices)
    assert found.best_value == bowl(found.best) <= best[-1]


def test_only_the_order_of_values_counts():
    found, other = run(tolerance=1e-12), run(lambda x: 7 * bowl(x) ** 0.5 - 2, tolerance=1e-12)
    assert len(found.simplices) > 10
    assert torch.equal(found.simplices, other.simplices)


def test_a_moved_problem_has_a_moved_search():
    shift = torch.tensor([3.0, -2.0]).double()
    moved = run(lambda x: bowl(x - shift), START + shift, tolerance=1e-12)
    assert torch.allclose(moved.simplices - shift, run(tolerance=1e-12).simplices)


def test_the_first_iteration_reflects_and_expands_by_hand():
    found = run()
    best, middle, worst = START[2], START[1], START[0]  # values by hand: 0.27, 0.33, 0.98 about
    centroid = (best + middle) / 2
    assert torch.allclose(found.simplices[0], torch.stack([best, middle, worst]))
    candidates = [centroid + k * (centroid - worst) for k in (1, 2)]
    assert torch.allclose(found.simplices[1], torch.stack(sorted([best, middle, min(candidates, key=bowl)], key=bowl)))


def test_close_points_share_a_value_and_cost_nothing():
    calls = []
    found = nelder_mead(lambda x: calls.append(x) or bowl(x), START, max_evaluations=40, tolerance=1e-12)
    assert len(calls) == found.evaluations
    far = torch.stack(calls)
    gaps = (far[:, None] - far[None]).abs().amax(-1) + torch.eye(len(far)).double()
    assert gaps.min() >= 5e-3


def test_the_budget_is_kept_up_to_one_iteration():
    assert run(max_evaluations=3).evaluations == 3
    assert 10 <= run(max_evaluations=10, tolerance=1e-12).evaluations <= 10 + 4


def test_equal_values_end_the_search_after_a_shrink():
    found = run(lambda x: 1.0)
    assert len(found.simplices) == 1
    assert found.evaluations == 3 + 2 + 2  # vertices, mirrored and contracted, two that were shrunk


def test_a_search_among_cached_points_ends_and_infinity_means_not_there():
    for tolerance in (1e-9, 10.0):  # the second: one cell holds the whole simplex, so nothing is ever evaluated again
        found = run(lambda x: x.sum().item(), cache_tolerance=tolerance, tolerance=1e-12, max_iterations=25)
        assert len(found.simplices) <= 25
    assert run(lambda x: float("inf")).best_value == float("inf")
    walled = run(lambda x: bowl(x) if x[0] < 0.5 else float("inf"), tolerance=1e-9)
    assert walled.best[0] < 0.5 and walled.best_value < bowl(START[0])


def test_the_first_simplex_lies_between_its_bounds():
    found = first_simplex(torch.zeros(3), torch.tensor([1.0, 2.0, 4.0]), generator=torch.Generator().manual_seed(0))
    assert found.shape == (4, 3) and (found >= 0).all() and (found <= torch.tensor([1.0, 2.0, 4.0])).all()
    assert found.unique(dim=0).shape == (4, 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: run(simplex=START[:2]), "simplex"),
        (lambda: run(shrink=0.0), "shrink"),
        (lambda: first_simplex(torch.zeros(2), torch.ones(3)), "top"),
        (lambda: run(lambda x: float("nan")), "objective"),
        (lambda: run(max_evaluations=0), "max_evaluations"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
