"""Valid calls of the data sets of words to be searched, and of the models that count them."""

from __future__ import annotations

from pathlib import Path

import torch
from fuzzing import uniform, whole

from cl_teach.datasets import code_search, installed
from cl_teach.models import hashed_words

FOLDER = str(Path(torch.__file__).parent / "optim")

CALLS = {
    installed.documented_functions: lambda: dict(folder=FOLDER),
    installed.first_paragraph: lambda: dict(text="One line.\n\nAnother."),
    code_search.split_words: lambda: dict(text="parse_header"),
    code_search.hash_words: lambda: dict(words=["parse", "header"], buckets=16),
    code_search.python_tokens: lambda: dict(code="def f(x): return x + 1", hide_names=True),
    code_search.library_code: lambda: dict(
        methods=True, names="hidden", query_length=8, code_length=16, buckets=64, folder=FOLDER
    ),
    code_search.library_sentences: lambda: dict(shortest=4, length=8, buckets=64, folder=FOLDER),
    hashed_words.word_rarity: lambda: dict(tokens=whole(9, 3, 4), words=9),
    hashed_words.word_scores: [
        lambda: dict(queries=whole(9, 3, 4), items=whole(9, 5, 6), words=9, weights=uniform(9)),
        lambda: dict(queries=whole(9, 3, 4), items=whole(9, 5, 6), words=9),
    ],
    hashed_words.latent_vectors: lambda: dict(tokens=whole(9, 8, 4), words=9, dim=3, power=0.5),
    hashed_words.HashedWords: lambda: dict(words=9, dim=4, layers=[5, 3], dropout=0.1, vectors=uniform(9, 4)),
    hashed_words.HashedWords.forward: lambda: (hashed_words.HashedWords(9, 4, (3,)), dict(tokens=whole(9, 3, 4))),
}

UNCHECKED = {
    (installed.documented_functions, "folder"): "a folder that is not there is a FileNotFoundError that names it",
    (code_search.library_code, "folder"): "a folder that is not there is a FileNotFoundError that names it",
    (code_search.library_sentences, "folder"): "a folder that is not there is a FileNotFoundError that names it",
}
