"""Color, size and shape of all figures of the book, and figures that move without a kernel.

One palette (Okabe and Ito, made for color-blind readers), one color for one method through the whole book,
direct labels instead of legends, all seeds drawn. Figures keep an opaque white face, so that they read in
dark mode too. :mod:`.look` holds palette and style,
:mod:`.movable` the slider over stored pictures, :mod:`.highlight` text with a background by a value,
:mod:`.play_html` and :mod:`.play_states` the playgrounds that compute in the page, :mod:`.plots` the rest.
"""

from .highlight import Highlighted, Passage, highlight
from .look import (
    BLACK,
    BLUE,
    COLORS,
    CYCLE,
    GRAY,
    GREEN,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    STYLES,
    VERMILLION,
    Style,
    color,
    style,
    use_style,
)
from .movable import MAX_FRAMES, Frames, frames
from .play_html import PLAYGROUNDS, Playground, play
from .plots import circle, curves, image_grid, intervals, similarity_histogram

__all__ = [
    "BLACK",
    "BLUE",
    "COLORS",
    "CYCLE",
    "GRAY",
    "GREEN",
    "MAX_FRAMES",
    "ORANGE",
    "PALETTE",
    "PLAYGROUNDS",
    "PURPLE",
    "Passage",
    "SKY",
    "STYLES",
    "VERMILLION",
    "Frames",
    "Highlighted",
    "Playground",
    "Style",
    "circle",
    "color",
    "curves",
    "frames",
    "highlight",
    "image_grid",
    "intervals",
    "play",
    "similarity_histogram",
    "style",
    "use_style",
]
