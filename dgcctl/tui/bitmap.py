"""A frame as pixels, with the mono-spaced font that matplotlib brings; the dots of the charts are
drawn one by one.

(That font has every sign of the screens but braille.)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.strip import Strip

from dgc.errors import DataError

FONT_SIZE = 20
BRAILLE = range(0x2800, 0x2900)
# the bits of a braille character: (bit, column, row) of its 2 x 4 dots
_DOTS = ((0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0), (4, 1, 1), (5, 1, 2), (6, 0, 3), (7, 1, 3))
RGB = tuple[int, int, int]


class Glyphs:
    """Characters as masks of one cell each, drawn once."""

    def __init__(self) -> None:
        self._masks: dict[tuple[str, bool], Image.Image] = {}

    @cached_property
    def fonts(self) -> tuple[ImageFont.FreeTypeFont, ImageFont.FreeTypeFont]:
        """Plain and bold."""
        folder = _font_folder()
        return tuple(ImageFont.truetype(folder / f"{name}.ttf", FONT_SIZE) for name in _FONTS)  # type: ignore[return-value]

    @cached_property
    def cell(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ascent, descent = self.fonts[0].getmetrics()
        return round(self.fonts[0].getlength("M")), ascent + descent

    def mask(self, character: str, bold: bool) -> Image.Image:
        """How much of each pixel the character covers."""
        key = (character, bold)
        if key not in self._masks:
            width, height = self.cell
            image = Image.new("L", (width * max(1, cell_len(character)), height), 0)
            draw = ImageDraw.Draw(image)
            # The font has no braille.
            if ord(character[0]) in BRAILLE:
                _draw_dots(draw, ord(character[0]) - BRAILLE.start, width, height)
            else:
                draw.text((0, 0), character, fill=255, font=self.fonts[bold])
            self._masks[key] = image
        return self._masks[key]


_FONTS = ("DejaVuSansMono", "DejaVuSansMono-Bold")


def _font_folder() -> Path:
    """Found without importing matplotlib, which takes its time. Raises DataError where it is not
    installed.
    """
    found = importlib.util.find_spec("matplotlib")
    if found is None or not found.submodule_search_locations:
        raise DataError("a picture needs the fonts of matplotlib, which is not installed")
    return Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"


def _draw_dots(draw: ImageDraw.ImageDraw, bits: int, width: int, height: int) -> None:
    for bit, column, row in _DOTS:
        if bits >> bit & 1:
            x, y = (2 * column + 1) * width / 4, (2 * row + 1) * height / 8
            draw.ellipse((x - 2, y - 2, x + 1, y + 1), fill=255)


def picture(strips: Sequence[Strip], theme: TerminalTheme) -> Image.Image:
    """Draw a frame; `theme` says what the terminal's own colours are."""
    glyphs = Glyphs()
    width, height = glyphs.cell
    columns = max((strip.cell_length for strip in strips), default=1)
    image = Image.new(
        "RGB", (columns * width, max(1, len(strips)) * height), tuple(theme.background_color)
    )
    for row, strip in enumerate(strips):
        column = 0
        for text, style, _ in strip:
            _draw_text(
                image, glyphs, (column * width, row * height), text, style or Style.null(), theme
            )
            column += cell_len(text)
    return image


def _draw_text(
    image: Image.Image,
    glyphs: Glyphs,
    at: tuple[int, int],
    text: str,
    style: Style,
    theme: TerminalTheme,
) -> None:
    front, back = colours(style, theme)
    x, y = at
    width, height = glyphs.cell
    image.paste(back, (x, y, x + cell_len(text) * width, y + height))
    if style.underline:
        image.paste(front, (x, y + height - 2, x + cell_len(text) * width, y + height - 1))
    for character in text:
        cells = cell_len(character)
        if not character.isspace() and cells:
            image.paste(front, (x, y), glyphs.mask(character, bool(style.bold)))
        x += cells * width


def colours(style: Style, theme: TerminalTheme) -> tuple[RGB, RGB]:
    """Of the letters and of what is behind them, as a terminal of this theme shows them."""
    front = style.color.get_truecolor(theme) if style.color else theme.foreground_color
    back = (
        style.bgcolor.get_truecolor(theme, foreground=False)
        if style.bgcolor
        else theme.background_color
    )
    if style.reverse:
        front, back = back, front
    if style.dim:
        front = [(a + b) // 2 for a, b in zip(front, back, strict=True)]  # type: ignore[assignment]
    return _rgb(front), _rgb(back)


def _rgb(colour: Sequence[int]) -> RGB:
    red, green, blue = colour
    return red, green, blue
