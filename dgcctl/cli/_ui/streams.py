"""Standard output and standard error as a program finds them: closed, full, or in a narrow
encoding.

Nobody who listens (a closed stream, a reader who has gone) is no error: the work goes on in
silence. A letter that the encoding lacks is written in letters that it has.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import TextIO

_ERRORS = "dgcctl.spelt"
_SPELT = {
    "±": "+-",
    "…": "...",
    "\u00d7": "x",
    "·": ".",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "\u2013": "-",
}


def prepare() -> None:
    """Open what is closed, so that no file of ours gets its number; let every letter be written."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _take(descriptor)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    codecs.register_error(_ERRORS, _spelt)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors=_ERRORS)  # type: ignore[union-attr]


def _take(descriptor: int) -> None:
    """Give the null device this number."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    os.set_inheritable(descriptor, True)


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that an encoding lacks: a spelling of ours, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_SPELT.get(letter) or _escape(letter) for letter in letters), error.end


def _escape(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("ascii", "backslashreplace").decode("ascii")


def silence(stream: TextIO) -> None:
    """From here on nothing reaches this stream, nor fails when the program ends and flushes it."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def finish() -> None:
    """Flush, so that the interpreter finds nothing to complain about."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            silence(stream)
