"""What a program says: text from a file or an exception is shown, never obeyed. No torch.

A log line may hold an escape sequence that renames the terminal, a run name may hold a character
that turns the direction of writing. Such characters are written out (`\\x1b`, `\\u202e`), so that a
reader sees that they are there.

Square brackets stay as they are: where they would mean something (markup of Rich and Textual), the
text is handed over as plain text (`markup=False`, `rich.text.Text`), because no escaping is right
for those and for a plain print as well.

No other file of `dgc` prints (tests/contract/test_source_rules.py): its programs are started by
`dgcctl`, which shows what they say in the same way, but also by hand and by torchrun.
"""

from __future__ import annotations

import sys
import threading
import traceback
import unicodedata
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from dgc.errors import DgcError, RecipeError

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


def say(line: str) -> None:
    """One line of talk, on stderr, as it happens."""
    print(shown(line), file=sys.stderr, flush=True)


def say_error(error: DgcError) -> None:
    """What went wrong, on stderr: one line, for a recipe one for each problem."""
    problems = error.problems if isinstance(error, RecipeError) else [str(error)]
    print("error:", "\n".join(map(shown, problems)), file=sys.stderr, flush=True)


def put(text: str) -> None:
    """A result, on stdout; its line ends stay."""
    print(shown(text, newlines=True), flush=True)


def run_program(main: Callable[[], int]) -> NoReturn:
    """What stands under `if __name__ == "__main__"`: the program, its exit code, and its
    tracebacks, whose messages may hold anything.
    """
    sys.excepthook = _show_traceback
    threading.excepthook = lambda thread: _show_traceback(
        thread.exc_type, thread.exc_value, thread.exc_traceback
    )
    sys.exit(main())


def _show_traceback(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip()
    print(shown(text, newlines=True), file=sys.stderr)
