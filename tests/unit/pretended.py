"""A GPU that is none: tensors that lie in main memory, say that they are on a card, and refuse what a card refuses.

It finds, where there is no GPU, what would go wrong on one: an index, a mask or a constant that was made on the
processor and meets an embedding that was not. Of kernels, precision and speed it knows nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("cuda", 0)
aten = torch.ops.aten
# What may take a tensor of the processor beside one of the card: copies, and positions to look up.
MIXED = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class OnCard(Tensor):
    """A tensor that says it is on a card."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor, requires_grad: bool = False) -> OnCard:
        about = {"strides": elem.stride(), "storage_offset": elem.storage_offset(), "dtype": elem.dtype}
        found = Tensor._make_wrapper_subclass(cls, elem.size(), **about, layout=elem.layout)
        found.elem = elem.detach()
        return found.requires_grad_(requires_grad)

    @property
    def device(self) -> torch.device:
        """Where it says it is."""
        return CARD

    @property
    def is_cuda(self) -> bool:
        """So it says."""
        return True

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        """Back in main memory; autograd follows."""
        return _Home.apply(self)

    def tolist(self) -> Any:
        """Waits for the card, but works."""
        return self.elem.tolist()

    def numpy(self, **_: Any) -> Any:
        """As torch says it."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __deepcopy__(self, memo: dict[int, Any]) -> OnCard:
        if id(self) not in memo:
            memo[id(self)] = OnCard(self.elem.clone(), self.requires_grad)
        return memo[id(self)]

    def __repr__(self, **_: Any) -> str:
        return f"OnCard({self.elem})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [x for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, Tensor)]
        strangers = [x for x in inputs if not isinstance(x, OnCard)]
        if strangers and func not in MIXED and (any(x.ndim for x in strangers) or func is aten.cat.default):
            shapes = [tuple(x.shape) for x in strangers]
            raise RuntimeError(f"{func}: all tensors must be on one device, these are on the processor: {shapes}")

        def inside(x: Any) -> Any:
            return x.elem if isinstance(x, OnCard) else torch.device("cpu") if isinstance(x, torch.device) else x

        def outside(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            for each in inputs:  # what was changed in place is the same tensor as before
                if isinstance(each, OnCard) and each.elem is x:
                    return each
            return OnCard(x)

        return tree_map(outside, func(*tree_map(inside, args), **tree_map(inside, kwargs or {})))


class _Home(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: OnCard) -> Tensor:
        return x.elem.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return OnCard(grad)


class _Away(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> OnCard:
        return OnCard(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: OnCard) -> Tensor:
        return grad.elem


def to_device(x: Tensor, where: torch.device) -> Tensor:
    """`Tensor.to` for a card that is none."""
    if where.type == "cpu":
        return x.cpu() if isinstance(x, OnCard) else x
    if isinstance(x, OnCard):
        return x
    return OnCard(x, x.requires_grad) if x.is_leaf else _Away.apply(x)
