"""What is said on stderr: progress and talk, and for each error one line and its exit code. Alone writes stderr.

Verbosity and colour travel in the environment (DGCCTL_VERBOSITY, NO_COLOR, FORCE_COLOR, TERM), so that the processes
started from here keep to them too.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from typing import TextIO

import typer

from dgc import settings
from dgc.errors import DgcError, ExitCode, RecipeError, UsageError

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def has_colour(stream: TextIO) -> bool:
    """Whether colour may be written: NO_COLOR wins, then FORCE_COLOR, then TERM=dumb, then what the stream is."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, style: str, stream: TextIO) -> str:
    """`text` in a style, or plain where the stream takes no colour."""
    if not text or style not in _CODES or not has_colour(stream):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def plain(text: str) -> str:
    """`text` without colour."""
    return _ANSI.sub("", text)


def verbosity() -> int:
    """-1 after -q, 1 after -v, else 0."""
    try:
        return settings.verbosity()
    except UsageError:  # said once, when the command starts
        return 0


def note(text: str) -> None:
    """Talk: what is being done. Silent after -q."""
    if verbosity() >= 0:
        _line(text)


def detail(text: str) -> None:
    """What only -v shows: the commands that are started and the like."""
    if verbosity() > 0:
        _line(paint(text, "dim", sys.stderr))


def warn(text: str) -> None:
    """Something the user should know although the work goes on. Shown in spite of -q."""
    _line(f"{paint('warning:', 'yellow', sys.stderr)} {text}")


def draw(line: str) -> None:
    """Rewrite the terminal's last line in place ("" takes it away)."""
    sys.stderr.write(f"\r\x1b[2K{line}")
    sys.stderr.flush()


def help_text(text: str) -> None:
    """The help that a group shows when it is called without a command."""
    _line(text)


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def report(error: BaseException) -> int:
    """Print the line of an error (a recipe with several problems has one each); return the exit code."""
    for line in error_lines(error):
        _line(f"{paint('error:', 'red', sys.stderr)} {line}")
    if verbosity() > 0 and not isinstance(error, typer.TyperException):
        _line(paint("".join(traceback.format_exception(error)).rstrip(), "dim", sys.stderr))
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    if isinstance(error, DgcError | typer.TyperException):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or isinstance(error, MemoryError):
        return int(ExitCode.RESOURCES)
    return int(ExitCode.FAILED)


def error_lines(error: BaseException) -> list[str]:
    """What is shown of an error."""
    if isinstance(error, RecipeError):
        return error.problems
    if isinstance(error, DgcError):
        return [" ".join(str(error).split("\n"))]
    if isinstance(error, typer.TyperException):
        return [_usage_line(error)]
    if isinstance(error, typer.Abort):
        return ["given up: nothing was changed"]
    if isinstance(error, KeyboardInterrupt):
        return ["interrupted"]
    if isinstance(error, OSError):
        return [f"{error.filename or 'what was to be written'}: {(error.strerror or str(error)).lower()}"]
    return [f"{type(error).__name__}: {error} (a fault of dgcctl itself: `-v` shows where)"]


def _usage_line(error: typer.TyperException) -> str:
    """Typer's message in one line, with the command to ask for help."""
    message = " ".join(error.format_message().split())
    message = re.sub(r"\(Possible options: ([^)]*)\)", r"(did you mean \1?)", message).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "dgcctl"
    return f"{message[:1].lower()}{message[1:]}: see `{command} --help`"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is removed or replaced. Raises UsageError where nobody can answer, Abort on no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} stdin is no terminal, so nobody can be asked: pass --yes to agree")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Abort
