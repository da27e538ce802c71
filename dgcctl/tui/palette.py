"""Colours by role, one table a theme; the table without colour says the same by bold, dim, reverse
and underline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, cast

from rich.color import Color, blend_rgb
from rich.style import Style
from textual.filter import LineFilter, Monochrome, NoColor
from textual.theme import BUILTIN_THEMES, Theme

DARK, LIGHT, PLAIN = "dgc-dark", "dgc-light", "dgc-plain"
THEMES = (DARK, LIGHT, PLAIN)
_SERIES_DARK = (
    "#4fc3f7",
    "#ffb74d",
    "#81c784",
    "#e57373",
    "#ba68c8",
    "#fff176",
    "#4db6ac",
    "#f48fb1",
)
_SERIES_LIGHT = (
    "#0277bd",
    "#c75b00",
    "#2e7d32",
    "#c62828",
    "#6a1b9a",
    "#7a6a00",
    "#00695c",
    "#ad1457",
)
_BACK = {"dgc-dark": Color.parse("#10161c"), "dgc-light": Color.parse("#ffffff")}
_FAINT = 0.42  # how much is left of a colour that lies behind
_SERIES_PLAIN = ("bold", "", "", "", "", "", "", "")

_ROLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        DARK: {
            "": "#d7dde4", "dim": "#7d8894", "head": "bold #9fb3c8", "title": "bold #ffffff",
            "good": "#81c784",
            "warn": "#ffca66", "bad": "#ff8a80", "accent": "#4fc3f7", "target": "#ffca66",
            "grid": "#3a444e",
            "cursor": "#ffffff", "faint": "#4a5a68",
            "select": "bold #ffffff on #24506e", "blurred": "#ffffff on #2a333c",
            "bar": "#4fc3f7", "track": "#3a444e", "match": "bold #10161c on #ffca66",
        },
        LIGHT: {
            "": "#1f2933", "dim": "#66717d", "head": "bold #3c4f63", "title": "bold #000000",
            "good": "#1b6e20",
            "warn": "#8a5300", "bad": "#b3261e", "accent": "#0266a3", "target": "#8a5300",
            "grid": "#ccd3da",
            "cursor": "#000000", "faint": "#b4c4d2",
            "select": "bold #ffffff on #0266a3", "blurred": "#000000 on #d5dde4",
            "bar": "#0266a3", "track": "#ccd3da", "match": "bold #ffffff on #8a5300",
        },
        PLAIN: {
            "": "", "dim": "dim", "head": "bold underline", "title": "bold", "good": "",
            "warn": "bold", "bad": "bold",
            "accent": "bold", "target": "bold", "grid": "dim", "cursor": "bold", "faint": "dim",
            "select": "reverse",
            "blurred": "underline", "bar": "bold", "track": "dim", "match": "bold reverse",
        },
    }
)  # fmt: skip


class Palette:
    """The styles of one theme."""

    def __init__(self, theme: str) -> None:
        self.theme = theme if theme in _ROLES else DARK
        self.plain = self.theme == PLAIN
        self._nocolor = NoColor()
        self._roles = {role: Style.parse(text) for role, text in _ROLES[self.theme].items()}
        names = {DARK: _SERIES_DARK, LIGHT: _SERIES_LIGHT, PLAIN: _SERIES_PLAIN}[self.theme]
        self._texts: dict[str, str] = {}
        self._parsed: dict[str, Style] = {}
        self._series = [Style.parse(text) for text in names]
        self._faint = [self._behind(style) for style in self._series]

    def style(self, role: str) -> Style:
        """The style of a role; `s0`, `s1`, ... are the colours of runs, `f0`, `f1`, ... the same
        for what lies behind (raw values under a smoothed line).
        """
        if role[:1] in ("s", "f") and role[1:].isdigit():
            series = self._series if role[0] == "s" else self._faint
            return series[int(role[1:]) % len(series)]
        return self._roles[role]

    def _behind(self, style: Style) -> Style:
        """A colour that has gone a good way towards the background."""
        if self.plain or style.color is None:
            return self._roles["faint"]
        # Blended and not `dim`: how dim a terminal draws is its own affair, and some do not.
        front, back = style.color.get_truecolor(), _BACK[self.theme].get_truecolor()
        return Style(color=Color.from_triplet(blend_rgb(back, front, _FAINT)))

    def text(self, role: str) -> str:
        """The same as a style string, for a canvas."""
        if role not in self._texts:
            style = self.style(role)
            self._texts[role] = str(style)
            self._parsed[self._texts[role]] = style
        return self._texts[role]

    def parsed(self, text: str) -> Style:
        """The style of such a string."""
        return self._parsed.get(text, Style.null())

    def filters(self, textuals: Sequence[LineFilter]) -> Sequence[LineFilter]:
        """Without colour: none at all, instead of the greys that Textual makes of NO_COLOR."""
        if not self.plain:
            return textuals
        others = [found for found in textuals if not isinstance(found, NoColor | Monochrome)]
        return [*others, self._nocolor]


class Coloured(Protocol):
    """An app with a palette: all that a widget needs to know of it."""

    @property
    def palette(self) -> Palette: ...


def palette_of(app: object) -> Palette:
    """The palette that holds now (the user may change it at any time, so no widget keeps one)."""
    return cast(Coloured, app).palette


def themes() -> list[Theme]:
    """The Textual themes that carry the widgets' own colours."""
    return [_dark(), _light(), _plain()]


def _dark() -> Theme:
    return Theme(
        name=DARK, primary="#4fc3f7", secondary="#81c784", accent="#4fc3f7", warning="#ffca66",
        error="#ff8a80",
        success="#81c784", foreground="#d7dde4", background="#10161c", surface="#161d24",
        panel="#1e2730", dark=True,
    )  # fmt: skip


def _light() -> Theme:
    return Theme(
        name=LIGHT, primary="#0266a3", secondary="#1b6e20", accent="#0266a3", warning="#8a5300",
        error="#b3261e",
        success="#1b6e20", foreground="#1f2933", background="#ffffff", surface="#f4f6f8",
        panel="#e6ebef", dark=False,
    )  # fmt: skip


def _plain() -> Theme:
    """The terminal's own two colours: Textual's theme of ANSI colours, whose colours the app then
    takes away.
    """
    base = BUILTIN_THEMES["ansi-dark"]
    reverse = {"block-cursor-text-style": "reverse", "input-cursor-text-style": "reverse"}
    return replace(base, name=PLAIN, variables={**base.variables, **reverse})
