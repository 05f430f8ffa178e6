"""What the parts of a network put out while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..core.checks import check_module, check_type

__all__ = ["recorded"]


def recorded(network: nn.Module, layers: Sequence[str], inputs: Sequence[Any]) -> tuple[Any, list[Tensor]]:
    """Run a network once and keep the outputs of some of its parts.

    Args:
        network: called as ``network(*inputs)``.
        layers: names of parts, see ``network.named_modules()``. Of a part that returns a tuple (a recurrent layer, a
            transformer's block) the first tensor is kept.
        inputs: of the network, a list or a tuple.

    Returns:
        What the network returned, and one tensor a name, in order.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> output, (before,) = recorded(network, ["0"], [Tensor([[1.0, 2.0, 3.0]])])
        >>> bool((before.relu() == output).all())
        True
    """
    check_module(network=network)
    check_layers(network, layers)
    check_type((list, tuple), inputs=inputs)
    parts, found = dict(network.named_modules()), {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [parts[name].register_forward_hook(keep(name)) for name in layers]
    try:
        output = network(*inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        says = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"inputs, network: {type(network).__name__} does not take these inputs: {says}") from error
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if not isinstance(found.get(name), Tensor):
            raise ValueError(f"layers: expected parts that ran and put out a tensor, {name!r} did not")
    return output, [found[name] for name in layers]


def check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """Check that all are names of parts of the network."""
    check_type((list, tuple), layers=layers)
    known = dict(network.named_modules())
    for name in layers:
        if name not in known:
            some = ", ".join(repr(x) for x in list(known)[1:9])
            raise ValueError(f"layers: expected names of parts of the network ({some}, ...), got {name!r}")
