"""Names of files as text, and back: any bytes may be a name, but not every byte can stand in a
line, JSON, or message.

A control character, a byte that is not UTF-8 and the backslash itself become escapes (`\\n`,
`\\xe9`, `\\\\`); all else stays as it is. So each name has one text, each text one name, and no
text moves a terminal's cursor.
"""

from __future__ import annotations

import os
import re
import unicodedata

_NAMED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BACK = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.|$)", re.DOTALL)


def written(name: str) -> str:
    """The text of a name as `os.listdir` gives it."""
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(map(_escaped, name))


def _escaped(letter: str) -> str:
    if letter in _NAMED:
        return _NAMED[letter]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that it could not decode
        return f"\\x{code - 0xDC00:02x}"
    if letter.isprintable() or unicodedata.category(letter) in ("Zs", "Co"):
        return letter
    return (
        f"\\x{code:02x}"
        if code < 0x80
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def unwritten(text: str) -> str:
    """The name that a text stands for.
    Raises ValueError for an escape that `written` does not write.
    """
    if "\\" not in text:
        return text
    name = _ESCAPE.sub(lambda found: os.fsdecode(_bytes(found[1])), text)
    return os.fsdecode(os.fsencode(name))


def _bytes(escape: str) -> bytes:
    if escape in _BACK:
        return _BACK[escape]
    if len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if len(escape) > 3:
        return chr(int(escape[1:], 16)).encode()
    raise ValueError(f"\\{escape} is no escape (there are \\\\, \\n, \\r, \\t, \\xHH)")
