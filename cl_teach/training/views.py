"""Two random views of every image, made in a batch on the device or image by image in workers."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.checks import check_batch, check_callable, check_count, check_embeddings

__all__ = ["TwoViews"]

TO_TENSOR = "v2.Compose([..., v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])"


class TwoViews(Dataset[Any]):
    """A ``Dataset`` whose items are two random views of each image of another.

    `pretrain` makes it from ``transform=``; make it yourself for a ``DataLoader`` of your own.

    Args:
        data: a ``Dataset`` of images or of tuples that begin with one, or a tensor of images.
        transform: random view of one image, called twice.

    Example:
        >>> first, second = TwoViews(torch.rand(8, 3, 4, 4), lambda x: x.flip(-1))[2]
        >>> first.shape, torch.equal(first, second)
        (torch.Size([3, 4, 4]), True)
    """

    def __init__(self, data: Dataset[Any] | Tensor, transform: Callable[[Any], Tensor]) -> None:
        if not isinstance(data, Dataset | Tensor):
            raise TypeError(f"data: expected a Dataset or a tensor of images, got {type(data).__name__}")
        check_callable(transform=transform)
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(cast(Sized, self.data))

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = _first(self.data[row])
        return self.transform(image), self.transform(image)


def check_pictures(images: Any, augment: Any, transform: Any, batch_size: Any) -> Any:
    """What `fit` takes, after a look at what came; what cannot work is answered with what to write instead."""
    for name, call in {"augment": augment, "transform": transform}.items():
        if call is not None:
            check_callable(**{name: call})
    if type(augment).__module__.startswith("torchvision.transforms"):
        raise TypeError(
            f"augment: got torchvision's {type(augment).__name__}, which draws once for a whole batch; "
            "pass it as transform=, which is called twice for every image, or use simclr_augment()"
        )
    if hasattr(images, "images") and hasattr(images, "labels") and isinstance(images, tuple):
        raise TypeError("images: got a whole ImageSet; write images=train.images")
    if isinstance(images, DataLoader):
        if transform is not None:
            raise ValueError(
                "transform: a DataLoader reads its own Dataset; make it from TwoViews(dataset, transform), "
                "or pass the Dataset and workers= instead of the DataLoader"
            )
        return images
    if isinstance(images, Tensor):
        if transform is None and augment is None:
            raise TypeError("augment: it is needed, for example augment=simclr_augment(); or transform= for one image")
        if not images.is_floating_point() and transform is None:
            raise TypeError(f"images: expected a floating dtype, got {images.dtype}; use images.float() / 255")
        if images.is_floating_point():
            check_embeddings(ndim=images.ndim, images=images)
    elif not isinstance(images, Dataset):
        hint = "; use torch.from_numpy(...)" if isinstance(images, np.ndarray) else ""
        raise TypeError(
            f"images: expected a torch.Tensor, a Dataset or a DataLoader, got {type(images).__name__}{hint}"
        )
    if batch_size is not None and hasattr(images, "__len__"):
        check_count(batch_size=batch_size)
        rows = len(images) if not isinstance(images, Tensor) or images.ndim else 0
        check_batch(rows, batch_size, name="images", why=f"to fill one batch of batch_size={batch_size}")
    pictures: Any = images if transform is None else TwoViews(images, transform)
    if isinstance(pictures, Dataset) and hasattr(pictures, "__getitem__") and hasattr(pictures, "__len__"):
        if len(cast(Sized, pictures)) == 0:
            raise ValueError("images: expected at least one image, got an empty Dataset")
        with torch.random.fork_rng(devices=[]):
            _check_item(pictures[0], augment, transform)
    return pictures


def two_views(batch: tuple[Any, ...], augment: Callable[..., Tensor] | None, generator: torch.Generator) -> Tensor:
    """``(2 n, c, h, w)``: all first views, then all second ones."""
    views = batch[0] if isinstance(batch[0], tuple | list) else batch[:2]
    if not _are_views(views):
        if augment is None:
            raise TypeError(
                "augment: the batches hold one view of each image, so it is needed; "
                "or transform=, which makes two of one image"
            )
        views = (batch[0], batch[0])
    first, second = views
    for name, x in {"images": first, "images, second view": second}.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected batches of floating tensors, got {came}; {TO_TENSOR} makes them")
    if augment is not None:
        # In full precision: rounding to bfloat16 would be one more augmentation.
        with torch.autocast(first.device.type, enabled=False):
            first, second = augment(first, generator), augment(second, generator)
        for x in (first, second):
            if not isinstance(x, Tensor) or len(x) != len(views[0]):
                came = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"augment: expected a view of each of the {len(views[0])} images, got {came}")
    return torch.cat([first, second])


def _are_views(pair: Any) -> bool:
    """Two floating tensors of one shape, of more than labels."""
    return (
        len(pair) == 2
        and all(isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 for x in pair)
        and pair[0].shape == pair[1].shape
    )


def _first(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) else item


def _check_item(item: Any, augment: Any, transform: Any) -> None:
    """Look at one item before workers fail in words of their own."""
    image = _first(item)
    pair = image if isinstance(image, tuple | list) else (item[:2] if isinstance(item, tuple | list) else ())
    if len(pair) == 2 and all(isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 for x in pair):
        return
    where = "images: the result of transform" if transform is not None else "images: an item of the Dataset"
    if not isinstance(image, Tensor) or not image.is_floating_point():
        came = f"a tensor of {image.dtype}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise TypeError(f"{where} is {came}, but a floating tensor is needed; transform={TO_TENSOR} makes one")
    if augment is None:
        raise TypeError(
            "augment: the Dataset gives one view of each image, so it is needed, for example augment=simclr_augment(); "
            "or transform=, which makes two views of one image"
        )
