"""Facts to be forgotten: who has which color, and whose facts go."""

import pytest

from cl_teach.datasets.facts import named_facts


def test_the_generator_gives_every_person_one_color_in_every_relation():
    facts = named_facts(20, 3, 5, forget=0.25)
    assert facts.tokens.shape == (60, 3) and facts.refusal == 28
    assert len(facts.tokens[:, :2].unique(dim=0)) == 60
    assert facts.tokens[:, 2].min() >= 23 and facts.tokens[:, 2].max() < 28
    assert facts.forget.sum() == 15  # all facts of 5 people
    assert facts.forget.view(20, 3).double().mean(1).unique().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("bad", [{"people": 1}, {"relations": 0}, {"forget": 0.0}, {"forget": 1.0}])
def test_bad_input_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        named_facts(**bad)
