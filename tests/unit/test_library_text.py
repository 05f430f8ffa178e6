"""Docstrings of a library as words."""

import pytest
import torch

from cl_teach.datasets import library_text

SOURCE = '''
"""One two three four five six seven eight."""


class Thing:
    """One two three four five six seven, eight nine.

    >>> left_out()
    """

    def short(self):
        """Too short."""

    def again(self):
        """One two three four five six seven eight."""
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "thing.py").write_text(SOURCE)
    (tmp_path / "test_thing.py").write_text(SOURCE.replace("One", "Never"))
    (tmp_path / "broken.py").write_text('"""Never closed')
    return tmp_path


def test_each_docstring_once_without_code_tests_and_broken_files(folder):
    text = library_text(20, folder=folder)
    said = sorted(" ".join(text.words[i] for i in document) for document in text.documents)
    assert said == [
        "<start> one two three four five six seven , eight nine .",
        "<start> one two three four five six seven eight .",
    ]


def test_rare_words_share_a_token_and_prompts_begin_without_one(folder):
    text = library_text(6, folder=folder)  # start, rare and the four most frequent
    assert len(text.words) == 6 and any((document == 1).any() for document in text.documents)
    assert text.prompts(0, 2, 5).shape == (2, 5)
    with pytest.raises(ValueError, match="first"):
        text.prompts(0, 12, 12)
    with pytest.raises(ValueError, match="first"):
        text.prompts(0, 2, 500)


def test_the_order_is_drawn_and_the_texts_are_the_same(folder):
    one, two = (library_text(20, seed=seed, folder=folder).documents for seed in (0, 1))
    assert sorted(map(torch.Tensor.tolist, one)) == sorted(map(torch.Tensor.tolist, two))


def test_the_standard_library_is_large_enough_to_learn_from():
    text = library_text()
    assert len(text.documents) > 3000 and sum(map(len, text.documents)) > 150_000 and len(text.words) == 2000


@pytest.mark.parametrize("wrong", [{"vocabulary": 2}, {"seed": -1}])
def test_a_wrong_number_is_named(folder, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        library_text(folder=folder, **wrong)


def test_a_folder_without_docstrings_is_named(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        library_text(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="folder"):
        library_text(folder=tmp_path / "none")
