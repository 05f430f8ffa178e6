"""Smaller pictures in notebooks: fewer colors where nobody sees it, then the tightest packing.

Figures are flat areas, lines, and letters with soft edges. Sixty-four well chosen colors show them as 16 million do,
in a quarter of the bytes. `compress` looks for the smallest palette whose error stays below what the eye finds and
keeps the colors of a picture for which there is none, such as a photograph. A picture that it made is left alone.
"""

from __future__ import annotations

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import zopfli.png
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

PALETTES = (16, 24, 32, 48, 64, 128, 256)
MOST_FITTED = 4096  # colors, the most frequent ones, from which a palette is learned
#: How far colors may move, in steps of 1/255 of the channel that moves most: of the picture as a whole, and of all but
#: one pixel in a thousand. Those few are pixels of soft edges, each a little more or less soft.
MEAN_ERROR, RARE_ERROR = 0.5, 24.0
MAKER = "cl_teach"  # stands in the file's Software field: what has it was compressed before

#: In the text of a notebook's file: pictures as outputs, and pictures inside HTML.
STORED = re.compile(r'(?<="image/png": ")[A-Za-z0-9+/=]+|(?<=data:image/png;base64,)[A-Za-z0-9+/=]+')


def errors(before: Image.Image, after: Image.Image) -> NDArray[np.int64]:
    """Largest difference over the three channels, for every pixel (height, width)."""
    difference = np.asarray(before.convert("RGB"), np.int64) - np.asarray(after.convert("RGB"), np.int64)
    return np.abs(difference).max(axis=-1)


def with_palette(image: Image.Image, colors: int) -> Image.Image:
    """The picture with at most this many colors, chosen by k-means.

    A color weighs the square root of its pixels, so that a thin line keeps its color beside a wide background; and
    where one color makes up most of its cluster it stays exactly as it is.
    """
    pixels = np.asarray(image.convert("RGB"), np.uint32)  # (height, width, 3)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    found, index, counts = np.unique(codes.ravel(), return_inverse=True, return_counts=True)
    values = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.float64)  # (found, 3)
    if len(found) <= colors:
        labels, centers = np.arange(len(found)), values
    else:
        with threadpool_limits(1):  # the sums of several threads differ in their last digits
            heavy = np.argsort(-counts, kind="stable")[:MOST_FITTED]
            model = KMeans(colors, n_init=1, random_state=0, max_iter=15)
            labels = model.fit(values[heavy], sample_weight=np.sqrt(counts[heavy])).predict(values)
        centers = np.zeros((colors, 3))
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            heaviest = members[counts[members].argmax()]
            dominates = 2 * counts[heaviest] > counts[members].sum()
            centers[label] = (
                values[heaviest] if dominates else np.average(values[members], axis=0, weights=counts[members])
            )
    order = np.argsort(-np.bincount(labels[index], minlength=len(centers)), kind="stable")
    place = np.empty(len(centers), np.uint8)
    place[order] = np.arange(len(centers))
    paletted = Image.fromarray(place[labels][index].reshape(codes.shape), "P")
    paletted.putpalette(np.rint(centers[order]).astype(np.uint8).ravel().tolist())
    return paletted


def packed(image: Image.Image) -> bytes:
    """The picture as a PNG file, packed tightly."""
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", MAKER)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True, pnginfo=note)
    # "0": rows as they are, best for palettes; "m": the filter with the smallest sum, best for many colors
    filters = "0" if image.mode == "P" else "0m"
    # one round: fifteen take three times as long for one percent
    return zopfli.png.optimize(
        file.getvalue(), filter_strategies=filters, keepchunks=["tEXt"], num_iterations=1, num_iterations_large=1
    )


@cache
def smaller(png: bytes) -> bytes:
    """The same picture in fewer bytes, or the same bytes if there is no better way.

    Args:
        png: a PNG file. With transparency, or with the mark of an earlier call, it comes back as it is.

    Raises:
        ValueError: it is no PNG file.
    """
    try:
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        image.load()
    except OSError as error:
        raise ValueError(f"png: expected a PNG file, got {len(png)} bytes that are none") from error
    if image.info.get("Software") == MAKER or "transparency" in image.info:
        return png
    if "A" in image.getbands() and image.getchannel("A").getextrema() != (255, 255):
        return png
    flat = image.convert("RGB")
    for colors in PALETTES:
        candidate = with_palette(flat, colors)
        moved = errors(flat, candidate)
        if moved.mean() <= MEAN_ERROR and np.quantile(moved, 0.999) <= RARE_ERROR:
            break
    else:
        candidate = image if image.mode == "P" else flat
    return min(packed(candidate), png, key=len)


def compress(text: str, jobs: int = 1) -> str:
    """The text of a notebook's file with every stored PNG made smaller; nothing else changes."""

    def replaced(match: str) -> str:
        return base64.b64encode(smaller(base64.b64decode(match))).decode("ascii")

    found = list(dict.fromkeys(STORED.findall(text)))
    with ThreadPoolExecutor(max(1, jobs)) as pool:  # packing runs outside Python's lock
        better = dict(zip(found, pool.map(replaced, found), strict=True))
    return STORED.sub(lambda match: better[match.group()], text)
