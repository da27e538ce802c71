"""Messages that come up over a screen: as much of one as the window has room for, from its
beginning.
"""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from dgc.talk import shown

# cells of text at most (Textual's); share of the window (the style in app.py); bar and blanks
# beside
_WIDEST, _SHARE, _FRAME = 57, 0.9, 5
_AROUND = 4  # lines: two blank ones of the message, one above it, and the line of keys


def fitted(title: str, message: str, columns: int, lines: int) -> tuple[str, str]:
    """Title and message with every control character written out, and no longer than the window:
    Textual stands a message on the last line and lets what is too high go out at the top, so that
    of a long one the beginning, which says what it is about, would not be seen.
    """
    title, message = shown(title), shown(message, newlines=True)
    width = max(1, min(_WIDEST, int(columns * _SHARE) - _FRAME))
    room = max(1, lines - _AROUND - bool(title))
    wrapped = Text(message).wrap(Console(width=width), width, overflow="fold")
    told = [line.plain.rstrip() for line in wrapped]
    if len(told) > room:
        told = [*told[: room - 1], _cut(told[room - 1] + " …", width)]
        message = "\n".join(told)
    return _cut(title, width), message


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip(" …") + "…"
