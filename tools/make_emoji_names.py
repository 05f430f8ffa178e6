"""Make the emoji that ship with `cl_teach`: small pictures with their names in fourteen languages.

    python tools/make_emoji_names.py NotoColorEmoji.ttf FOLDER_WITH_THE_PACKAGE_EMOJI

Debian's package `fonts-noto-color-emoji` has the font, the wheel `emoji` the names; both are checked against their
SHA-256 first. Chosen is every emoji of one code point that the font can draw and that has a name in all languages.
The script prints the checksum of the file that it wrote; it belongs into `cl_teach/datasets/emoji.py` and
`data/README.md`. Another version of Pillow may round a pixel differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from pack_arrays import pack_arrays
from PIL import Image, ImageDraw, ImageFont

SIZE = 16
GLYPH = 136  # the font's bitmaps are 136 wide and 128 high, at size 109
FONT_SHA256 = "e5899ed38b8ed83e08bd3ac5de09791e9d19d288333a796de1d35ad17396f1ec"
NAMES_SHA256 = "68d0dc4ac61ccb49c1335809ffb963bcca0fdb4a7e04278ff597125a2b043122"
VARIATION = "\ufe0f"  # asks for the colored form; a character of its own, and no part of the name
TARGET = Path(__file__).parents[1] / "cl_teach" / "datasets" / "emoji_names.npz"


def check(path: Path, expected: str) -> None:
    """Refuse a file that is not the one this was made from."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path} has SHA-256 {found}, expected {expected}")


def read_names(folder: Path) -> dict[str, dict[str, str]]:
    """Names of every emoji of one code point, by language, as the package spells them."""
    check(folder / "emoji" / "unicode_codes" / "emoji.json", NAMES_SHA256)
    sys.path.insert(0, str(folder))
    import emoji

    others = sorted(p.stem[-2:] for p in (folder / "emoji" / "unicode_codes").glob("emoji_??.json"))
    for language in others:
        emoji.config.load_language(language)
    languages = ["en", *others]
    complete = emoji.STATUS["fully_qualified"]
    return {
        sign: {code: names[code].strip(":").replace("_", " ").strip() for code in languages}
        for sign, names in emoji.EMOJI_DATA.items()
        if names["status"] == complete
        and len(sign.replace(VARIATION, "")) == 1
        and all(code in names for code in languages)
    }


def draw(sign: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """The emoji on white, (16, 16, 3) bytes."""
    canvas = Image.new("RGB", (GLYPH, GLYPH), "white")
    ImageDraw.Draw(canvas).text((0, (GLYPH - 128) // 2), sign, font=font, embedded_color=True)
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", type=Path, help="NotoColorEmoji.ttf")
    parser.add_argument("package", type=Path, help="folder that holds the package emoji")
    parser.add_argument("--target", type=Path, default=TARGET, help="the file to write")
    arguments = parser.parse_args()

    check(arguments.font, FONT_SHA256)
    known, font = TTFont(arguments.font).getBestCmap(), ImageFont.truetype(arguments.font, 109)
    rows = read_names(arguments.package)
    names = {sign: row for sign, row in rows.items() if ord(sign.replace(VARIATION, "")) in known}
    signs = sorted(names)
    text = {"signs": signs, "names": {code: [names[sign][code] for sign in signs] for code in names[signs[0]]}}
    arrays = {
        "images": np.stack([draw(sign.replace(VARIATION, ""), font) for sign in signs]),
        "text": np.frombuffer(json.dumps(text, ensure_ascii=False).encode(), np.uint8),
    }
    pack_arrays(arguments.target, arrays)


if __name__ == "__main__":
    main()
