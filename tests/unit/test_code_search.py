"""Functions and sentences as word numbers, the search that counts words, and the encoder that begins there."""

import pytest
import torch

from cl_teach.datasets import library_code, library_functions, library_sentences, python_tokens
from cl_teach.datasets.code_search import FIRST_WORD, NAMED, hash_words, split_words
from cl_teach.datasets.installed import documented_functions
from cl_teach.evaluation import mean_reciprocal_rank
from cl_teach.models.hashed_words import HashedWords, latent_vectors, word_rarity, word_scores

CODE = '''
def parse_size(text_in):
    """Turn the text of a size into bytes.

    It knows kilobytes. It knows megabytes as well, and no more.

    >>> parse_size("1 kB")
    """
    found = float(text_in) * 1.5
    return found if text_in else abs("no size")


class Reader:
    """Reads."""

    def read_all(self):
        """Read all that there is to read."""
        return self.file.read()
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sizes.py").write_text(CODE)
    for inside in ("pack", "test", "site-packages", "pack/tests"):
        (tmp_path / inside).mkdir()
        (tmp_path / inside / "more.py").write_text(f'def f():\n    """Say in four words {inside}."""\n    return 1\n')
    return tmp_path


class TestLibrary:
    def test_packages_count_and_tests_and_installed_packages_do_not(self, folder):
        assert [f.file for f in documented_functions(folder)] == ["sizes.py", "sizes.py", "pack/more.py"]
        assert [text for text, _ in library_functions(folder=folder)] == [
            "Turn the text of a size into bytes.",
            "Say in four words pack.",
        ]

    def test_methods_and_packages_can_be_chosen(self, folder):
        assert len(library_functions(methods=True, folder=folder)) == 3
        assert len(library_functions(packages=False, folder=folder)) == 1

    def test_files_outside_packages_come_first(self):
        everything = documented_functions()
        top = [("/" in f.file) for f in everything]
        assert top == sorted(top) and len(everything) > 3000
        assert not any({"test", "site-packages"} & set(f.file.split("/")[:-1]) for f in everything)

    def test_a_file_that_was_changed_is_read_again(self, folder):
        (folder / "new.py").write_text('def g():\n    """There are more words now."""\n    return 2\n')
        assert len(library_functions(folder=folder)) == 3


class TestTokens:
    def test_types(self):
        tokens = python_tokens('return maxSize + f(2.5, "two words", None)  # a comment')
        assert tokens == [
            ("return", "keyword"),
            *[("max", "name"), ("size", "name"), ("+", "operator"), ("f", "name"), ("(", "operator")],
            *[("2.5", "number"), (",", "operator"), ("two", "string"), ("words", "string"), (",", "operator")],
            *[("None", "keyword"), (")", "operator")],
        ]

    def test_hidden_names_are_those_that_the_author_chose(self):
        hidden = [text for text, _ in python_tokens("def f(x):\n    y = len(x)\n    return y.real", hide_names=True)]
        assert hidden == "def <name> ( <name> ) : <name> = len ( <name> ) return <name> . real".split()

    def test_a_formatted_string_is_a_string_in_every_python(self):
        tokens = python_tokens('x = f\'a {b:{width}} c\' + rf"""two\n{lines!r}"""')
        assert [text for text, _ in tokens] == ["x", "=", "f", "a", "b", "width", "c", "+", "rf", "two", "lines", "r"]
        assert {kind for text, kind in tokens if text not in ("x", "=", "+")} == {"string"}

    def test_code_that_cannot_be_parsed_is_refused(self):
        for hide in (True, False):
            with pytest.raises(ValueError, match="code: expected Python"):
                python_tokens("def f(:\n  'open", hide_names=hide)

    def test_a_word_has_one_number_wherever_it_stands(self):
        assert hash_words(split_words("parse_header")) == hash_words(["parse", "header"])
        assert min(hash_words(["a", "b", "c"], 2)) >= FIRST_WORD


class TestNumbers:
    def test_types_are_those_of_the_tokens_and_padding_has_none(self, folder):
        data = library_code(folder=folder, code_length=80)
        assert data.query.shape == (2, 24) and data.code.shape == data.types.shape == (2, 80)
        assert ((data.types == 0) == (data.code == 0)).all()
        assert set(data.types.unique().tolist()) <= {0, *NAMED.values()}
        assert data.names == ["sizes.py: parse_size", "pack/more.py: f"]

    def test_hidden_names_leave_questions_alone(self, folder):
        kept, hidden = (library_code(folder=folder, names=names) for names in ("kept", "hidden"))
        assert torch.equal(kept.query, hidden.query)
        assert int((hidden.code == NAMED["name"]).sum()) > 4 and not (kept.code == NAMED["name"]).any()

    def test_every_docstring_is_asked_once(self):
        texts = library_code(methods=True).texts
        assert len(set(texts)) == len(texts) > 3000

    def test_sentences_know_their_function_and_file_and_examples_are_left_out(self, folder):
        data = library_sentences(folder=folder)
        assert data.texts[:2] == ["Turn the text of a size into bytes.", "It knows megabytes as well, and no more."]
        assert data.function.tolist() == [0, 0, 1, 2] and data.file.tolist() == [0, 0, 0, 1]

    def test_a_folder_without_functions(self, tmp_path):
        for load in (library_code, library_sentences):
            with pytest.raises(ValueError, match="folder: expected"):
                load(folder=tmp_path)
            with pytest.raises(FileNotFoundError, match="nowhere"):
                load(folder=tmp_path / "nowhere")


class TestCounting:
    def test_scores_are_cosines_of_weighted_counts(self):
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randint(0, 7, (n, 5), generator=generator) for n in (3, 4))
        weights = torch.rand(7, generator=generator)
        found = word_scores(a, b, 7, weights)
        for i in range(3):
            for j in range(4):
                x, y = (torch.bincount(row[row > 0], minlength=7) * weights for row in (a[i], b[j]))
                assert torch.isclose(found[i, j], torch.nn.functional.cosine_similarity(x, y, dim=0), atol=1e-6)

    def test_a_text_without_words_scores_nothing(self):
        assert word_scores(torch.tensor([[0, 0]]), torch.tensor([[1, 2]]), 3).tolist() == [[0.0]]

    def test_rare_words_weigh_more(self):
        rarity = word_rarity(torch.tensor([[1, 2], [1, 3], [1, 3], [1, 0]]), 5)
        assert rarity[1] == 0 < rarity[3] < rarity[2] == rarity[4] and rarity[0] == 0

    def test_hashed_words_of_many_dimensions_count(self):
        data = library_code()
        query, code = data.query[:200] % 500, data.code[:200] % 500
        exact = word_scores(query, code, 500)
        torch.manual_seed(0)
        encoder = HashedWords(500, 4000)
        with torch.no_grad():
            a, b = (torch.nn.functional.normalize(encoder(x)) for x in (query, code))
        assert (a @ b.mT - exact).abs().mean() < 0.02
        ranks = [mean_reciprocal_rank(table, torch.arange(200)) for table in (exact, a @ b.mT)]
        assert abs(ranks[0] - ranks[1]) < 0.05

    def test_latent_vectors_bring_words_of_the_same_texts_together(self):
        texts = torch.tensor([[1, 2, 0], [2, 1, 0], [3, 4, 0], [4, 3, 0], [1, 2, 0], [3, 4, 5]])
        vectors = torch.nn.functional.normalize(latent_vectors(texts, 7, 3))
        assert vectors[1] @ vectors[2] > 0.99 > 0.5 > abs(vectors[1] @ vectors[3])
        assert (vectors[[0, 6]] == 0).all()

    def test_latent_vectors_do_not_depend_on_the_run(self):
        texts = torch.randint(0, 30, (50, 8), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(latent_vectors(texts, 30, 4), latent_vectors(texts, 30, 4), atol=1e-5)


class TestHashedWords:
    def test_padding_changes_nothing_and_order_neither(self):
        torch.manual_seed(0)
        encoder = HashedWords(9, 4, (6, 5)).eval()
        a, b = encoder(torch.tensor([[1, 2, 3]])), encoder(torch.tensor([[3, 1, 2, 0, 0]]))
        assert a.shape == (1, 5) and torch.allclose(a, b, atol=1e-6)

    def test_dropout_makes_two_readings_differ_in_training_alone(self):
        encoder, tokens = HashedWords(9, 50, dropout=0.3), torch.tensor([[1, 2]])
        assert not torch.equal(encoder(tokens), encoder(tokens))
        encoder.eval()
        assert torch.equal(encoder(tokens), encoder(tokens))

    def test_it_begins_with_given_vectors_and_padding_gets_no_gradient(self):
        vectors = torch.randn(9, 4)
        encoder = HashedWords(9, 4, vectors=vectors)
        encoder(torch.tensor([[1, 0]])).sum().backward()
        assert torch.equal(encoder.embedding.weight.data, vectors)
        assert encoder.embedding.weight.grad[0].abs().sum() == 0
