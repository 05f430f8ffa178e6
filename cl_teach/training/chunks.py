"""Gradient caching: a batch of any size with the activations of a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from ..core.checks import check_count, check_embeddings, check_flag, check_module, check_type
from .generators import generators_of, rewound

__all__ = ["in_chunks"]


def in_chunks(network: nn.Module, inputs: Tensor, chunk: int, *, freeze_statistics: bool = False) -> Tensor:
    """Embed a batch of any size with the activations of ``chunk`` rows in memory: gradient caching.

    Forward, each chunk's activations are thrown away and only its embeddings are kept; backward, each chunk is embedded
    once more, with the same random numbers, and used up before the next. The loss still sees the whole batch, so value
    and gradient are those of ``network(inputs)``, for the price of one more forward pass.

    The random numbers are those of torch and of every ``torch.Generator`` that the network holds or its functions name.
    A network that draws from elsewhere (Python's ``random``, say) is found out and refused in the backward pass.

    Args:
        network: its training mode must treat rows independently. Batch normalization does not: each chunk would be
            normalized by itself, so it is refused.
        inputs: ``(n, ...)``.
        chunk: rows at a time, at least 1; the last chunk may be smaller.
        freeze_statistics: let batch normalization use the statistics it has stored and leave them as they are. This is
            for a network that has been trained: a fresh one has stored none.

    Returns:
        ``(n, d)``, what ``network(inputs)`` gives.

    Raises:
        ValueError: batch normalization in training mode, without ``freeze_statistics``.

    Source:
        Gao, Zhang, Han and Callan, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (2021).
        Here PyTorch's activation checkpointing does both passes.
    """
    check_module(network=network)
    check_type(Tensor, inputs=inputs)
    check_count(chunk=chunk)
    check_flag(freeze_statistics=freeze_statistics)
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(f"inputs: expected at least one row, got shape {tuple(inputs.shape)}")
    if inputs.is_floating_point() and inputs.is_cpu:  # on a GPU it would make every step wait; the loss looks at them
        check_embeddings(ndim=inputs.ndim, inputs=inputs)
    normalizing = _batch_normalization(network)
    if normalizing and not freeze_statistics:
        name = next(iter(normalizing))
        raise ValueError(
            f"network: {name or 'it'} is batch normalization in training mode, whose statistics would be those of "
            f"chunks of {chunk} rows; use norm='group' or 'layer' in the package's encoders and heads, "
            "freeze_statistics=True for a network that has been trained, or batches that fit"
        )
    generators = generators_of(network)

    def embed(rows: Tensor) -> Tensor:
        with _evaluating(list(normalizing.values())):
            try:
                return network(rows)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise ValueError(
                    f"inputs: the network does not take rows of shape {tuple(rows.shape)} and {rows.dtype} ({error})"
                ) from error

    embeddings = []
    for i, rows in enumerate(inputs.split(chunk)):
        # The first chunk is embedded to its end and compared; the others stop where nothing more is needed.
        with set_checkpoint_early_stop(i > 0):
            z: Tensor = checkpoint(
                embed if i else _compared(embed), rows, use_reentrant=False, context_fn=_Replay(generators)
            )
        embeddings.append(z)
    return torch.cat(embeddings)


def embedded(network: nn.Module, views: Tensor, chunk: int | None, freeze_statistics: bool) -> Tensor:
    """Embeddings in at least float32, all at once or in chunks; a misfit of network and images becomes a sentence."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), views.dtype)
    views = views.to(dtype)
    try:
        z = network(views) if chunk is None else in_chunks(network, views, chunk, freeze_statistics=freeze_statistics)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and not str(error).startswith("inputs"):
            raise
        raise ValueError(
            f"images: encoder and head do not take views of shape {tuple(views.shape)} and {views.dtype} ({error})"
        ) from error
    return z.float() if z.dtype.itemsize < 4 else z


class _Replay:
    """The contexts of the two passes: the first notes where the generators stand, the second puts them back there."""

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), rewound(self.generators, [generator.get_state() for generator in self.generators])


def _compared(embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Refuse a second pass that gives something else than the first: its gradient would belong to other numbers."""
    first: list[Tensor] = []

    def twice(rows: Tensor) -> Tensor:
        z = embed(rows)
        if not first:
            first.append(z.detach())
        elif (z.detach() - first[0]).norm() > 0.05 * first[0].norm():  # far more than rounding, even in bfloat16
            raise ValueError(
                "network: it embeds the same rows differently in the second pass, so the gradient would be that of "
                "other numbers; let it draw from torch's global state or from a torch.Generator in an attribute, and "
                "keep no state that a forward pass changes"
            )
        return z

    return twice


def _batch_normalization(network: nn.Module) -> dict[str, nn.Module]:
    kinds = nn.modules.batchnorm._BatchNorm
    return {name: module for name, module in network.named_modules() if isinstance(module, kinds) and module.training}


@contextmanager
def _evaluating(modules: list[nn.Module]) -> Iterator[None]:
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module in modules:
            module.train()
