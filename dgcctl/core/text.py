"""What comes from a file is shown, never obeyed: one function between it and a terminal or a page.

A log line may hold an escape sequence that renames the terminal, a run name may hold a character
that turns the direction of writing. Such characters are written out (`\\x1b`, `\\u202e`), so that a
reader sees that they are there.

Square brackets stay as they are: where they would mean something (markup of Rich and Textual), the
text is handed over as plain text (`markup=False`, `rich.text.Text`), because no escaping is right
for those and for a plain print as well.
"""

from __future__ import annotations

import unicodedata

TAB = "    "
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": TAB}
# unseen though Unicode counts them as letters or marks: fillers of Hangul and Khmer, the grapheme
# joiner
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
# spaces of any width and private glyphs: not printable to Python, yet harmless
_SEEN = ("Zs", "Co")


def shown(text: str, *, newlines: bool = False) -> str:
    """The text without any character that a terminal, a page or a reader takes for something else.

    Control characters, marks of direction, characters without width and halves of surrogates (bytes
    of a file name that is not UTF-8) become their escapes; a tab becomes spaces. `newlines`: line
    ends stay line ends (`\\r\\n` is one). Given to this function again, the result stays as it is.
    """
    if newlines:
        return "\n".join(shown(line) for line in text.replace("\r\n", "\n").split("\n"))
    if text.isprintable() and _UNSEEN.isdisjoint(text):
        return text
    return "".join(_seen(letter) for letter in text)


def _seen(letter: str) -> str:
    if letter not in _UNSEEN and (letter.isprintable() or unicodedata.category(letter) in _SEEN):
        return letter
    return _NAMED.get(letter) or _escape(ord(letter))


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that it could not decode
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
