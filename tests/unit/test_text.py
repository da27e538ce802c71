"""What a file holds is shown, never obeyed."""

from __future__ import annotations

import unicodedata

import pytest

from dgcctl.core.text import shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("step 12  loss 0.3", "step 12  loss 0.3"),
        ("äöü 日本 ✓ \U0001f600", "äöü 日本 ✓ \U0001f600"),
        ("", ""),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("\x9b31m \x90 \x85", "\\x9b31m \\x90 \\x85"),
        ("\x7f\x00\x08", "\\x7f\\x00\\x08"),
        ("a\tb", "a    b"),
        ("one\ntwo\r\nthree\r", "one\\ntwo\\r\\nthree\\r"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("\u2066x\u2069\u200e\u061c", "\\u2066x\\u2069\\u200e\\u061c"),
        ("pass\u200bword\ufeff\u00ad\u2060\u200d", "pass\\u200bword\\ufeff\\xad\\u2060\\u200d"),
        ("\u3164\u115f", "\\u3164\\u115f"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\U000e0041"),
        (b"caf\xe9.png".decode("utf-8", "surrogateescape"), "caf\\xe9.png"),
        ("\ud800", "\\ud800"),
        ("[bold]x[/] \\[red]", "[bold]x[/] \\[red]"),
    ],
)
def test_what_is_shown(text: str, seen: str) -> None:
    assert shown(text) == seen
    assert shown(seen) == seen  # again changes nothing


def test_lines_stay_lines_where_they_may() -> None:
    assert shown("one\r\ntwo\x1b[A\nthree\r", newlines=True) == "one\ntwo\\x1b[A\nthree\\r"


def test_no_character_at_all_passes_that_a_terminal_obeys() -> None:
    """Each of the 1,114,112: no control, format, surrogate or line end; and each can be written."""
    obeyed = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    for code in range(0x110000):
        seen = shown(chr(code))
        assert seen
        assert not obeyed & {unicodedata.category(letter) for letter in seen}, hex(code)
        seen.encode()
