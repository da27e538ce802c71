"""What a terminal sends, read as keys and pastes: Textual's own reader with three of its readings
mended.

- A paste ends at its end mark and nowhere else: Textual takes an escape sequence inside of it for
  keys, so that a copied log with colours could quit the dashboard or stop a training.
- Escape and a key right after it are these two keys: Textual takes them for alt and the key (no
  key here has alt) or drops the escape.
- A line feed is Enter: what is typed before the dashboard has taken the terminal over gets one
  for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from textual import events
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.message import Message

ESCAPE = "\x1b"
SEEN_ESCAPE = "␛"  # stands for an escape character inside a paste
_OPENERS = "[O"  # after an escape: the terminal's own keys (arrows, mouse, pastes)
_DELETE_WORD = "\x1b\x7f"  # alt+backspace, in text fields


class Parser(XTermParser):
    """Reads what the terminal sends."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._inside = False  # of a paste
        self._recent = ""  # outside: what may be the begin of the begin mark
        self._held = ""  # inside: what may be the begin of the end mark

    def feed(self, data: str) -> Iterable[Message]:
        plain = "".join(self._defused(data))
        return super().feed(plain) if plain or not data else ()

    def _defused(self, data: str) -> Iterator[str]:
        """The same with no escape character inside pastes; an end mark is handed on whole."""
        for character in data:
            if self._inside:
                yield from self._pasted(character)
            else:
                self._recent = (self._recent + character)[-len(BRACKETED_PASTE_START) :]
                self._inside = self._recent == BRACKETED_PASTE_START
                yield character

    def _pasted(self, character: str) -> Iterator[str]:
        self._held += character
        # What may still become the end mark is held back; as soon as it cannot, its first
        # character is text. (The mark may come in two pieces, in two reads.)
        while self._held and not BRACKETED_PASTE_END.startswith(self._held):
            yield self._held[0].replace(ESCAPE, SEEN_ESCAPE)
            self._held = self._held[1:]
        if self._held == BRACKETED_PASTE_END:
            self._inside, self._held, self._recent = False, "", ""
            yield BRACKETED_PASTE_END

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        # No key here has alt, so an escape and one letter after it are what they look like.
        pair = len(sequence) == 2 and sequence[0] == ESCAPE and sequence[1] not in _OPENERS
        if alt or (pair and sequence != _DELETE_WORD):
            yield events.Key("escape", ESCAPE)
            sequence = sequence[-1]
        if sequence == "\n":
            sequence = "\r"
        yield from super()._sequence_to_key_events(sequence)


def mend_reading(driver_class: Any) -> None:
    """Let a driver of Textual read through `Parser` (one that reads no terminal has none to
    change).
    """
    # The driver makes its parser by this name and offers no place to hand in another one.
    module = sys.modules[driver_class.__module__]
    if hasattr(module, "XTermParser"):
        module.XTermParser = Parser  # type: ignore[attr-defined]


def one_line(text: str) -> str:
    """What is pasted goes into fields of one line: line ends become blanks."""
    return " ".join(line for line in text.splitlines() if line.strip())
