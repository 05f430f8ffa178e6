"""Where crops of an image lie, and which cells of their feature maps show the same spot."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import check_count, check_generator, check_in_range, check_positive, check_shapes, check_type
from .precision import full_precision

__all__ = ["cell_centers", "crop", "draw_boxes", "positive_cells"]

SMALLEST = 1e-6  # area of a crop, as a share of the image's


@full_precision
def cell_centers(boxes: Tensor, height: int, width: int) -> Tensor:
    """Where the centers of the cells of a map lie in the original image.

    Args:
        boxes: ``(N, 4)`` crops as (x0, y0, x1, y1); x0 > x1 for a mirrored crop.
        height: rows of the map.
        width: columns of the map.

    Returns:
        ``(N, height * width, 2)`` as (x, y), row by row.
    """
    _check_boxes(boxes=boxes)
    check_count(height=height, width=width)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)  # (N, 1) each
    x = x0 + (torch.arange(width).to(boxes) + 0.5) * (x1 - x0) / width  # (N, W)
    y = y0 + (torch.arange(height).to(boxes) + 0.5) * (y1 - y0) / height  # (N, H)
    return torch.stack([x.repeat(1, height), y.repeat_interleave(width, 1)], 2)


@full_precision
def positive_cells(boxes1: Tensor, boxes2: Tensor, height: int, width: int, threshold: float = 0.7) -> Tensor:
    """Which cells of two crops lie closer than ``threshold``, measured in the larger cell diagonal of both.

    Args:
        boxes1: ``(N, 4)`` crops of the first views, see `cell_centers`.
        boxes2: ``(N, 4)`` crops of the second views.
        height: rows of the maps.
        width: columns of the maps.
        threshold: T > 0, strict.

    Returns:
        ``(N, P, P)`` boolean, P = height * width; row a cell of view 1, column a cell of view 2.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])  # one crop, and its mirror image
        >>> positive_cells(box, box[:, [2, 1, 0, 3]], 1, 3, 0.3).int().tolist()
        [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]]
    """
    _check_boxes(boxes1=boxes1, boxes2=boxes2)
    check_positive(threshold=threshold)
    a, b = cell_centers(boxes1, height, width), cell_centers(boxes2, height, width)  # (N, P, 2)
    distance = torch.linalg.vector_norm(a[:, :, None] - b[:, None], dim=3)  # (N, P, P)
    size = torch.tensor([width, height]).to(boxes1)
    diagonals = [torch.linalg.vector_norm((x[:, 2:] - x[:, :2]) / size, dim=1) for x in (boxes1, boxes2)]
    return distance / torch.maximum(*diagonals)[:, None, None] < threshold


def draw_boxes(
    n: int, scale: tuple[float, float] = (0.3, 1.0), *, flip: float = 0.5, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``(n, 4)`` crops of random area and place, with the image's proportions; the image is the unit square.

    Args:
        n: how many.
        scale: range of the area.
        flip: probability that a box is mirrored (x0 > x1).
        generator: source of the draws.
    """
    check_count(n=n)
    check_type((tuple, list), scale=scale)
    if len(scale) != 2:
        raise ValueError(f"scale: expected the lowest and the highest area, got {len(scale)} numbers")
    check_in_range(SMALLEST, 1, **{"scale[0]": scale[0]})
    check_in_range(scale[0], 1, **{"scale[1]": scale[1]})
    check_in_range(0, 1, flip=flip)
    check_generator(generator)
    u = torch.rand(4, n, generator=generator, device="cpu" if generator is None else generator.device)
    side = (scale[0] + (scale[1] - scale[0]) * u[0]).sqrt()
    x0, y0 = u[1] * (1 - side), u[2] * (1 - side)
    boxes = torch.stack([x0, y0, x0 + side, y0 + side], 1)
    return torch.where((u[3] < flip)[:, None], boxes[:, [2, 1, 0, 3]], boxes)


@full_precision
def crop(images: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Cut the boxes ``(N, 4)`` of `draw_boxes` out of images and resize them, bilinearly; mirrored where x0 > x1.

    ``(N, C, h, w)`` becomes ``(N, C, height, width)``.
    """
    check_shapes(images=(images, "n c h w"), boxes=(boxes, "n 4"))
    grid = 2 * cell_centers(boxes, height, width) - 1  # pixels are cells; grid_sample counts from -1 to 1
    return F.grid_sample(images, grid.unflatten(1, (height, width)), padding_mode="border", align_corners=False)


def _check_boxes(**boxes: Tensor) -> None:
    check_shapes(**{name: (x, "n 4") for name, x in boxes.items()})
    for name, x in boxes.items():
        if not torch.compiler.is_compiling() and (x[:, :2] == x[:, 2:]).any():
            raise ValueError(f"{name}: expected boxes with an area, got one with x0 = x1 or y0 = y1")
