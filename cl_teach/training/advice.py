"""An argument that is not there is answered with the one that is."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__: list[str] = []

P = ParamSpec("P")
T = TypeVar("T")

# What people write first, from other libraries, and what it is called here.
INSTEAD = {
    "lr": "learning_rate=",
    "rate": "learning_rate=",
    "wd": "weight_decay=",
    "bs": "batch_size=",
    "max_epochs": "epochs=",
    "num_epochs": "epochs=",
    "n_epochs": "epochs=",
    "scheduler": "schedule=",
    "lr_scheduler": "schedule=",
    "precision": "amp=",
    "fp16": "amp=torch.float16",
    "bf16": "amp=torch.bfloat16",
    "mixed_precision": "amp=",
    "gradient_accumulation_steps": "accumulate=",
    "accumulate_grad_batches": "accumulate=",
    "num_workers": "workers=",
    "transforms": "transform=",
    "augmentation": "augment=",
    "criterion": "loss=",
    "resume": "checkpoint=, which goes on from the file if it exists",
    "every": "checkpoint_every=",
    "callbacks": "on_step= and on_epoch=",
    "callback": "on_step= or on_epoch=",
    "logger": "on_step= and on_epoch=",
    "verbose": "progress=",
    "momentum": "optimizer=lambda parameters: torch.optim.SGD(parameters, lr=..., momentum=...)",
    "betas": "optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=..., betas=...)",
    "warmup": "schedule=cosine(warmup=...), from cl_teach.training",
    "warmup_steps": "schedule=cosine(warmup=...), from cl_teach.training",
}
# What belongs elsewhere, in a sentence.
ELSEWHERE = {
    "steps": "a run is as long as its epochs: epochs= passes over the data, of len(data) // batch_size steps each",
    "max_steps": "a run is as long as its epochs: epochs= passes over the data, of len(data) // batch_size steps each",
    "temperature": "it belongs to the loss: loss=lambda z1, z2: nt_xent(z1, z2, temperature)",
    "device": "it is cl_teach.training.device(), the GPU if there is one; CUDA_VISIBLE_DEVICES= hides GPUs",
    "labels": "pre-training looks at no labels; cl_teach.training.fit takes (images, labels)",
    "shuffle": "the order is always shuffled, by seed=; a DataLoader keeps its own order",
    "drop_last": "an incomplete last batch is always dropped; a DataLoader keeps its own rule",
}


def knows_its_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Answer an unknown keyword with what to write instead, under the name of the function that was called."""
    own = dict(inspect.signature(function).parameters)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in own.values())

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        known = {name for name, p in own.items() if p.kind is not p.VAR_KEYWORD}
        if open_ended:  # what is passed on goes to `fit`
            from .loop import fit

            known |= set(inspect.signature(fit).parameters) - {"module", "loss_fn", "data"}
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{function.__name__}: there is no argument {name}=; {_answer(name, known)}")
        return function(*args, **kwargs)

    return called


def _answer(name: str, known: set[str]) -> str:
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if name in INSTEAD:
        return f"did you mean {INSTEAD[name]}?"
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {close[0]}=?" if close else f"there are {', '.join(sorted(known))}"
