"""What is said on stderr: progress and talk, and for each error one line and its exit code. Alone
writes stderr.

Verbosity and colour travel in the environment (DGCCTL_VERBOSITY, NO_COLOR, FORCE_COLOR, TERM), so
that the processes started from here keep to them too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import traceback
from typing import Any, TextIO

import typer

from dgc import settings
from dgc.errors import DgcError, ExitCode, RecipeError, UsageError, system_error
from dgc.talk import shown
from dgcctl.cli._ui import streams

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def has_colour(stream: TextIO) -> bool:
    """Whether colour may be written: NO_COLOR wins, then FORCE_COLOR, then TERM=dumb, then what the
    stream is.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


class Painted(str):
    """Text of which no part comes from a file as it is:
    only this may hold escape sequences, ours.
    """


def paint(text: str, style: str, stream: TextIO) -> Painted:
    """`text`, safe to print, in a style, or plain where the stream takes no colour."""
    safe = clean(text)
    if not safe or style not in _CODES or not has_colour(stream):
        return safe
    return Painted(f"\x1b[{_CODES[style]}m{safe}\x1b[0m")


def clean(text: str, *, newlines: bool = False) -> Painted:
    """`text` without control characters, unless they are known to be ours."""
    return text if isinstance(text, Painted) else Painted(shown(text, newlines=newlines))


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
        _line(clean(text))


def detail(text: str) -> None:
    """What only -v shows: the commands that are started and the like."""
    if verbosity() > 0:
        _line(paint(text, "dim", sys.stderr))


def warn(text: str) -> None:
    """Something the user should know although the work goes on. Shown in spite of -q."""
    _line(f"{paint('warning:', 'yellow', sys.stderr)} {clean(text)}")


def draw(line: str) -> None:
    """Rewrite the terminal's last line in place ("" takes it away). What has no room is cut off: a
    line that wraps could not be rewritten.
    """
    from rich.cells import cell_len

    text: str = clean(line)
    room = max(1, columns() - 1)
    while cell_len(text) > room:
        text = text[:-1]
    _write(f"\r\x1b[2K{text}")


def columns() -> int:
    """The width of the terminal behind stderr: stdout may be a file or a pipe, and has none then.
    COLUMNS holds over it; a terminal that does not know its width has 80.
    """
    if not os.environ.get("COLUMNS"):
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return shutil.get_terminal_size().columns


def help_text(text: str) -> None:
    """The help that a group shows when it is called without a command."""
    _line(text)


def _line(text: str) -> None:
    _write(text + "\n")


def _write(text: str) -> None:
    """Talk that nobody can hear any more (`2>&1 | head`, a full disk) stops no work."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        streams.silence(sys.stderr)


def report(error: BaseException) -> int:
    """Print the line of an error (a recipe with several problems has one each); return the exit
    code.
    """
    for line in error_lines(error):
        _line(f"{paint('error:', 'red', sys.stderr)} {clean(line)}")
    if verbosity() > 0 and not isinstance(error, typer.TyperException):
        told = clean("".join(traceback.format_exception(error)).rstrip(), newlines=True)
        _line(paint(told, "dim", sys.stderr))
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    if isinstance(error, DgcError | typer.TyperException):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    if isinstance(error, OSError):
        return int(system_error(error).exit_code)
    if _missing_package(error):
        return int(ExitCode.USAGE)
    return int(ExitCode.RESOURCES if isinstance(error, MemoryError) else ExitCode.FAILED)


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
        return [str(system_error(error))]
    if isinstance(error, MemoryError):
        return ["out of memory: end other programs, or ask for less"]
    if package := _missing_package(error):
        return [
            f"this needs the package {package}, which is not installed: `pip install dgcctl`"
            " installs all that its commands need"
        ]
    return [f"{type(error).__name__}: {error} (a fault of dgcctl itself: `-v` shows where)"]


def _missing_package(error: BaseException) -> str:
    """The package of somebody else that an import did not find (installed with --no-deps, say)."""
    top = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return "" if top in ("dgc", "dgcctl") else top


# commands that take no KEY=VALUE though one may think so
_NO_VALUES = {
    "dgcctl rerun": "a repetition changes nothing; `dgcctl train runs/RUN/recipe.yaml KEY=VALUE`"
    " trains a run's recipe with other values",
}


def _usage_line(error: typer.TyperException) -> str:
    """Typer's message in one line, with the command to ask for help."""
    message = " ".join(error.format_message().split())
    message = re.sub(r"\(Possible options: ([^)]*)\)", r"(did you mean \1?)", message).rstrip(".")
    context = getattr(error, "ctx", None)
    if hint := _no_option(getattr(error, "option_name", ""), context):
        message = f"{re.sub(r' .did you mean .*', '', message)}: {hint}"
    command = context.command_path if context else "dgcctl"
    if "unexpected extra argument" in message and command in _NO_VALUES:
        return f"{message[:1].lower()}{message[1:]}: {_NO_VALUES[command]}"
    where = "" if "see `" in message else f": see `{command} --help`"
    return f"{message[:1].lower()}{message[1:]}{where}"


_SETTING = ("--set", "--override", "--param", "--config", "--hparam")


def _no_option(name: str, context: Any) -> str:
    """What to write in the place of an option that other programs have for a recipe's values; ""
    where the command has no recipe, or nothing is called so.
    """
    if context is None or not any("KEY=" in str(p.metavar) for p in context.command.params):
        return ""
    if name in _SETTING:
        return "values of the recipe stand alone, as optim.lr=0.1"
    from dgc.recipe.meanings import keys  # here: most mistakes are of other kinds

    leaf = name.lstrip("-").replace("-", "_")
    found = [key.name for key in keys() if leaf in (key.name, key.name.rpartition(".")[2])]
    told = " or ".join(f"{key}=VALUE" for key in found)
    return f"values of the recipe stand alone: write {told}" if found else ""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is removed or replaced. Raises UsageError where nobody can answer, Abort
    on no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question} stdin is no terminal, so nobody can be asked: pass --yes to agree"
        )
    _write(f"{clean(question)} [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Abort
