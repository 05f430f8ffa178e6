"""A classifier of token sets: a small perceptron for every token, a mean, a linear layer; with room for masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..core.checks import check_batch, check_callable, check_count, check_flag, check_in_range, check_shapes, check_type

__all__ = ["TokenClassifier"]


class TokenClassifier(nn.Module):
    """Token-wise layers, mean over the tokens, a linear classifier; a mask can follow every layer.

    Args:
        sizes: widths of the layers, input first.
        classes: K.
        mask: makes the mask of a width: a module that is called with tokens ``(B, S, width)`` and its noise; None for
            a network without masks.
        mask_input: whether one also stands before the first layer.
        dropout: on the input of the classifier, behind the features.

    Shape:
        ``(B, S, sizes[0])`` tokens, or ``(B, sizes[0])`` vectors (one token), to features ``(B, sizes[-1])`` and logits
        ``(B, K)``.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        *,
        mask: Callable[[int], nn.Module] | None = None,
        mask_input: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_type((list, tuple), sizes=sizes)
        check_batch(len(sizes), 2, name="sizes", why="(the input and one layer)")
        check_count(**{f"sizes[{i}]": size for i, size in enumerate(sizes)}, classes=classes)
        check_flag(mask_input=mask_input)
        check_in_range(0, 1, dropout=dropout)
        self.sizes, self.mask_input = tuple(sizes), mask is not None and mask_input
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.masks = nn.ModuleList()
        if mask is not None:
            check_callable(mask=mask)
            self.masks.extend(mask(width) for width in (sizes if mask_input else sizes[1:]))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(sizes[-1], classes))

    def forward(self, x: Tensor, noises: Sequence[Tensor | None] | None = None) -> tuple[Tensor, Tensor]:
        """Features and logits; ``noises`` has one ``(B, width)`` a mask, or None where the mask draws it."""
        check_type(Tensor, x=x)
        check_shapes(x=(x, f"B {self.sizes[0]}" if x.ndim == 2 else f"B S {self.sizes[0]}"))
        x = (x[:, None] if x.ndim == 2 else x).to(next(self.parameters()).dtype)
        drawn = [None] * len(self.masks) if noises is None else noises
        check_type((list, tuple), noises=drawn)
        if len(drawn) != len(self.masks):
            raise ValueError(f"noises: expected one for each of {len(self.masks)} masks, got {len(drawn)}")
        widths = self.sizes if self.mask_input else self.sizes[1:]
        for i, (noise, width) in enumerate(zip(drawn, widths, strict=False)):
            check_shapes(x=(x, "B S d"), **{f"noises[{i}]": (noise, f"B {width}?")})
        if self.mask_input:
            x = self.masks[0](x, drawn[0])
        for i, layer in enumerate(self.layers, start=int(self.mask_input)):
            x = layer(x).relu()
            if len(self.masks):
                x = self.masks[i](x, drawn[i])
        features = x.mean(1)  # (B, h)
        return features, self.classifier(features)
