"""What a file holds is shown, never obeyed."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from dgc.errors import RecipeError
from dgc.run.paths import RunDir
from dgc.talk import say_error, shown


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


EVIL = "\x1b]0;owned\x07 \u202e\x1b[2J"
SEEN = "\\x1b]0;owned\\x07 \\u202e\\x1b[2J"


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env=env
    )


def test_a_fault_of_the_trainer_is_told_in_one_line_that_moves_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dgc.train import __main__ as trainer

    assert trainer.unexpected(RunDir(tmp_path), ValueError(f"{EVIL}\nand"), 1) == 1
    assert capsys.readouterr().err == (
        f"error: ValueError: {SEEN} and (traceback in {tmp_path}/log.txt)\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("dgc.train", "--run-dir"),
        ("dgc.train.launch", "--standalone", "-m", "dgc.train", "--run-dir"),
        ("dgc.jobs.evaluate", "--json", os.devnull, "--run-dir"),
        ("dgc.jobs.data_sets", "verify", "image_folder", "--data-dir"),
        ("dgc.jobs.metadata", "--json", os.devnull, "--recipe"),
    ],
    ids=lambda words: words[0],
)
def test_a_program_that_is_started_by_hand_shows_what_it_was_given(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = run_python("-m", *words, str(tmp_path / "is not there" / EVIL)).stderr
    assert SEEN in said, said
    assert said.replace("\n", "").isprintable()


def test_a_traceback_shows_what_its_message_holds() -> None:
    code = (
        f"from dgc.talk import run_program\ndef main(): raise OSError({EVIL!r})\nrun_program(main)"
    )
    done = run_python("-c", code)
    assert done.returncode == 1
    assert done.stderr.endswith(f"\nOSError: {SEEN}\n")
    assert done.stderr.replace("\n", "").isprintable()


def test_a_recipes_problems_stay_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(RecipeError(["r.yaml:1: one", f"r.yaml:2: {EVIL}\ntwo"]))
    assert capsys.readouterr().err == f"error: r.yaml:1: one\nr.yaml:2: {SEEN}\\ntwo\n"
